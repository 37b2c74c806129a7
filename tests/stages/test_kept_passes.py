"""The clause on passes that were spared the frozen layers counts them, and says where it counted one process alone."""

from __future__ import annotations

from rbft.stages.kept_passes import describe_passes, pass_figures


def test_the_clause_counts_passes_and_layers() -> None:
    clause = "3 of 4 passes of a row (75%) computed the upper 2 of 6 layers alone; what leaves those below was kept"
    assert describe_passes(pass_figures((3, 4), 4, 6, 1)) == clause
    assert describe_passes(pass_figures((3, 4), 4, 6, 2)) == f"{clause} (on the first process)"


def test_nothing_is_said_where_nothing_was_kept_or_read() -> None:
    assert pass_figures(None, 4, 6, 1) == {} and describe_passes({"rows": 3}) == ""
    assert describe_passes(pass_figures((0, 0), 4, 6, 1)) == ""
