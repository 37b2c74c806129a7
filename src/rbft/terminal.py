"""What a run prints, and what it keeps its libraries from printing."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TaskID
from rich.text import Text

from rbft.errors import printable

_LEAST_WIDTH = 20


class _Terminal(Console):
    """Lets no text through that could drive the terminal, and breaks lines between words where a person watches."""

    def print(self, *objects: Any, **options: Any) -> None:
        """As of rich; on a terminal, lines that are too long go on below, further in.

        A word that is longer than the terminal is wide, such as a path, is left whole, so that it can be copied. In a
        file or pipe a line stays a line.
        """
        if self.is_terminal and objects:
            options["soft_wrap"] = False
            if all(isinstance(entry, str) for entry in objects):
                objects = tuple(self._broken(entry, options.get("markup")) for entry in objects)
                options |= {"crop": False, "overflow": "ignore", "no_wrap": True}
        super().print(*objects, **options)

    def _broken(self, text: str, markup: bool | None) -> Text:
        lines = []
        for line in self.render_str(text, markup=markup).split("\n", allow_blank=True):
            indent = len(line.plain) - len(line.plain.lstrip())
            if line.cell_len <= self.width or self.width < indent + _LEAST_WIDTH:
                lines.append(line)
                continue
            below = indent + 2
            # the first piece may be wider by what it stands further out
            pieces = line[indent:].divide(_places(line.plain[indent:], self.width - indent, self.width - below))
            for number, piece in enumerate(pieces):
                piece.rstrip()
                lines.append(Text(" " * (below if number else indent)) + piece)
        return Text("\n").join(lines)

    def render_str(self, text: str, **style: Any) -> Text:
        """As of rich; every string and table cell that is printed comes by here."""
        return super().render_str(printable(text), **style)


def _places(text: str, first: int, others: int) -> list[int]:
    """Where a line is broken: the words that begin a new piece, the first of so many cells, the others of so many."""
    places: list[int] = []
    used = 0
    for word in re.finditer(r"\S+\s*", text):
        if used and used + cell_len(word[0].rstrip()) > (others if places else first):
            places.append(word.start())
            used = 0
        used += cell_len(word[0])
    return places


def make_console(*, alone: bool = False) -> Console:
    """The terminal of the first process; the others are silent.

    Colours and bars come only where a person watches: not into a file or pipe, and no colours where NO_COLOR is set
    (no-color.org) or TERM is `dumb`.

    Args:
        alone: Whether this command never runs as one of several processes; it then prints without torch, too.
    """
    quiet = False
    if not alone:
        from rbft.ranks import first_rank

        quiet = not first_rank()
    # emoji: a file that is called :x:.mp4 is called so
    return _Terminal(quiet=quiet, highlight=False, soft_wrap=True, emoji=False)


@contextmanager
def steps_shown(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """A function to call with (what, done, total) as work goes on: a bar for each `what`, or a line at its end."""
    with Progress(
        *Progress.get_default_columns(), MofNCompleteColumn(), console=console, disable=not console.is_terminal
    ) as progress:
        bars: dict[str, TaskID] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in bars:
                bars[what] = progress.add_task(f"  {what}", total=total)
            progress.update(bars[what], completed=done)
            if done == total and not console.is_terminal:
                console.print(f"  {what}: {done} done", markup=False)

        yield show


def quieten() -> None:
    """Leave the terminal to the plan, the progress and the figures."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    quieten_lightning()


def quieten_lightning() -> None:
    """Leave out what Lightning and torch say of how this package uses them."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",  # decoding in this process is a choice
        ".*is_gradient_checkpointing.*",  # peft asks transformers by its old name
        ".*isinstance.treespec, LeafSpec.*",  # lightning asks torch by its old name
        ".*custom batch sampler `EvaluationSampler`.*",  # it does return every index
        ".*predict returned None.*",  # rationales go to the store
        ".*your dataloader is not resumable.*",  # the sampler skips what was computed
        ".*in eval mode at the start of training.*",  # the module sets modes when an epoch starts
        ".*returned a view tensor.*",  # nothing changes the features of a sharded model in place
        ".*Glyph .* missing from font.*",
    ):
        warnings.filterwarnings("ignore", message=message)
