"""Ways of writing and keeping are counted against the truth of the clips."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from benchmarks.rationale_policies import HINTS, POLICIES, Tally, World, make_world

from benchmarks import rationale_policies
from rbft.data.prompt_templates import PromptBook
from rbft.rationales.store import Rationale
from rbft.worlds.events import VERBS


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("policies") / "world", "plain", 1, 5)


def texts(world: World, *told: str) -> list[Rationale]:
    return [
        Rationale(r.id, 0, r.path, r.label, "", "blind", "me", text, r.label, text, False)
        for r, text in zip(world.records, told, strict=False)
    ]


def test_truth_is_what_the_clip_shows(world: World) -> None:
    row = world.truth[world.records[0].path]
    thing = row["objects"][0]
    first, second = VERBS[thing["first"]], VERBS[thing["second"]]
    event, turned = (
        f"the {thing['colour']} {thing['shape']} {one} then {other} ."
        for one, other in ((first, second), (second, first))
    )
    true, part, wrong, silent = (texts(world, text)[0] for text in (row["description"], event, turned, "a video"))
    assert world.right(true) == (True, True)
    assert world.right(part) == (True, len(row["objects"]) == 1)
    assert world.right(wrong) == world.right(silent) == (False, False)


def test_only_what_is_kept_is_judged_and_classes_without_any_are_counted(world: World) -> None:
    book = PromptBook(world.prompts, world.labels)
    one, two = texts(world, world.truth[world.records[0].path]["description"], "a video")
    tally = Tally()
    tally.add(world, [one, dataclasses.replace(two, kept=False)], book)
    assert tally.row() | {"tokens": 0} == {
        "clips": 8,
        "written": 2,
        "kept": 1,
        "covered": 0.125,
        "emptied": 7,
        "events": 1.0,
        "exact": 1.0,
        "class": 1.0,
        "tokens": 0,
    }
    nothing = Tally()
    nothing.add(world, [dataclasses.replace(one, kept=False)], book)
    assert nothing.row()["events"] is None


@pytest.mark.slow
def test_rows(tmp_path: Path) -> None:
    out = tmp_path / "record.json"
    assert rationale_policies.main(["--json", str(out), "--repeats", "1", "--clips", "1", "--styles", "plain"]) == 0
    record = json.loads(out.read_text())
    assert record["benchmark"] == "rationale_policies"
    rows = {(row["hint"], row["policy"]): row for row in record["rows"]}
    assert set(rows) == {(hint, policy) for hint in HINTS for policy in POLICIES}
    for row in rows.values():
        assert row["clips"] == 8 and 0 < row["tokens"] < 4 * 4 * 50
        assert 8 <= row["written"] <= 4 * 8 * 2 and row["kept"] <= row["written"]
    for hint in ("blind", "hint_stripped"):
        assert (rows[hint, "all"]["written"], rows[hint, "all"]["covered"]) == (8, 1.0)
        assert (rows[hint, "best of 4"]["written"], rows[hint, "best of 4"]["kept"]) == (32, 8)
        assert rows[hint, "regenerate"]["covered"] >= rows[hint, "filter"]["covered"]
    # a model that was given the class ends with it; alone it has to find it
    assert rows["hint_stripped", "all"]["class"] > rows["blind", "all"]["class"]
    assert rows["blind_then_hint", "all"]["class"] >= rows["blind", "all"]["class"]
