"""Rationales on disk survive a kill, are merged in order, and are refused by file and line where they are wrong."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from rbft.data.records import VideoRecord
from rbft.errors import DataError, StageError
from rbft.rationales.store import Rationale, RationaleStore, prompt_hash, read_rationales
from rbft.vlm.prompt import Prompt


def rationale(id: str, sample: int = 0, text: str = "It moves.") -> Rationale:
    return Rationale(id, sample, f"{id}.mp4", "push", "00", "blind", "builtin/tiny", text, "push", text, False)


def records(*ids: str) -> list[VideoRecord]:
    return [VideoRecord(id, f"{id}.mp4", "push") for id in ids]


def test_ranks_are_merged_in_the_order_of_the_records(tmp_path):
    store = RationaleStore(tmp_path)
    assert store.written() == {}
    store.append([rationale("b"), rationale("b", 1)], rank=1)
    store.append([rationale("a", 1), rationale("a")], rank=0)
    assert set(RationaleStore(tmp_path).written()) == {("a", 0), ("a", 1), ("b", 0), ("b", 1)}
    merged = store.collect(records("b", "a"), range(2))
    assert [item.key for item in merged] == [("b", 0), ("b", 1), ("a", 0), ("a", 1)]
    store.save(merged)
    assert read_rationales(tmp_path / "rationales.jsonl") == merged


def test_everything_about_a_rationale_comes_back(tmp_path):
    full = dataclasses.replace(
        rationale("ü\n", 3), scores={"a": 0.5}, weight=0.25, kept=False, reason="empty", stated=None, truncated=True
    )
    RationaleStore(tmp_path).append([full], rank=0)
    assert list(RationaleStore(tmp_path).written().values()) == [full]


def test_a_torn_line_is_dropped_and_writing_goes_on_behind_it(tmp_path):
    store = RationaleStore(tmp_path)
    store.append([rationale("a"), rationale("b")], rank=0)
    part = tmp_path / "parts" / "rank0.jsonl"
    part.write_bytes(part.read_bytes()[:-7])
    assert set(store.written()) == {("a", 0)}
    store.append([rationale("b"), rationale("c")], rank=0)
    assert [json.loads(line)["id"] for line in part.read_text().splitlines()] == ["a", "b", "c"]
    assert len(store.collect(records("a", "b", "c"), range(1))) == 3


def test_the_first_line_of_a_rationale_wins(tmp_path):
    store = RationaleStore(tmp_path)
    store.append([rationale("a", text="first")], rank=0)
    store.append([rationale("a", text="second")], rank=0)
    store.append([rationale("a", text="third")], rank=1)
    assert store.written()["a", 0].text == "first"
    assert [item.text for item in read_rationales(tmp_path / "parts" / "rank0.jsonl")] == ["first"]


def test_missing_rationales_are_counted_and_named(tmp_path):
    store = RationaleStore(tmp_path)
    store.append([rationale("a"), rationale("b")], rank=0)
    with pytest.raises(StageError, match=r"3 rationales are missing, first for 'b'"):
        store.collect(records("b", "c"), range(2))


def test_rationales_of_other_videos_are_left_out(tmp_path):
    store = RationaleStore(tmp_path)
    store.append([rationale("a"), rationale("stranger")], rank=0)
    assert [item.id for item in store.collect(records("a"), range(1))] == ["a"]


def test_files_of_before_unlabelled_videos_are_read(tmp_path):
    row = dataclasses.asdict(rationale("a"))
    del row["labelled"]
    (tmp_path / "old.jsonl").write_text(json.dumps(row) + "\n")
    assert [item.labelled for item in read_rationales(tmp_path / "old.jsonl")] == [True]
    (tmp_path / "bad.jsonl").write_text(json.dumps(row | {"labelled": 1}) + "\n")
    with pytest.raises(DataError, match=r"line 1: 'labelled' cannot be 1"):
        read_rationales(tmp_path / "bad.jsonl")


def test_what_is_asked_again_is_the_same_for_all_who_read_it(tmp_path):
    store = RationaleStore(tmp_path)
    with pytest.raises(StageError, match=r"again1\.json does not list the videos of attempt 1"):
        store.asked_again(1)
    store.ask_again(1, {"b", "a"})
    assert RationaleStore(tmp_path).asked_again(1) == {"a", "b"}
    (tmp_path / "parts" / "again1.json").write_text('{"a": 1}')
    with pytest.raises(StageError, match="does not list"):
        store.asked_again(1)
    store.append([rationale("a")], rank=0)
    assert set(store.written()) == {("a", 0)}, "it is no part"


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(StageError, match=r"nothing\.jsonl does not exist; run the stage that writes"):
        read_rationales(tmp_path / "nothing.jsonl")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row | {"wieght": 1}, r"line 2: unknown key 'wieght'; keys are .*weight"),
        (lambda row: {key: row[key] for key in row if key != "label"}, r"line 2: .*'label'"),
        (lambda row: row | {"text": 3}, r"line 2: 'text' cannot be 3"),
        (lambda row: row | {"id": None}, r"line 2: 'id' cannot be None"),
        (lambda row: [row], r"line 2: expected a JSON object, found list"),
    ],
)
def test_wrong_lines_are_named(tmp_path, change, message):
    path: Path = tmp_path / "rationales.jsonl"
    good = dataclasses.asdict(rationale("a"))
    path.write_text("".join(json.dumps(row) + "\n" for row in (good, change(good))))
    with pytest.raises(DataError, match=message) as caught:
        read_rationales(path)
    assert str(path) in str(caught.value)


def test_prompts_have_stable_names_of_their_own():
    one = Prompt("Which?", "Be brief.")
    assert prompt_hash(one) == prompt_hash(Prompt("Which?", "Be brief."))
    assert (
        len({prompt_hash(p) for p in (one, Prompt("Which?"), Prompt("Be brief.", "Which?"), Prompt("Be brief."))}) == 4
    )
