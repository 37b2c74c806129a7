"""Each control takes away what it says, and nothing else."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import pytest

from rbft.data.records import VideoRecord
from rbft.errors import ConfigError, DataError
from rbft.rationales.controls import (
    GenericText,
    HumanText,
    NoDescription,
    RandomDrop,
    ReplacedWords,
    ShuffledVideos,
    ShuffledWords,
)
from rbft.rationales.store import Rationale


def rationale(number: int, label: str, sample: int = 0) -> Rationale:
    text = f"the object clip{number} of {label} moves in its own way {sample}"
    return Rationale(
        id=f"v{number}",
        sample=sample,
        video=f"{number}.mp4",
        label=label,
        prompt_hash="",
        hint="blind",
        model="m",
        text=text,
        stated=label,
        written=text,
        truncated=False,
    )


ROWS = [rationale(i, "push" if i % 2 else "pull", sample) for i in range(8) for sample in range(2)]


def same_but_text(found: list[Rationale]) -> bool:
    key = [(r.id, r.sample, r.video, r.label, r.weight) for r in found]
    return key == [(r.id, r.sample, r.video, r.label, r.weight) for r in ROWS]


@pytest.mark.parametrize("within", ["class", "all"])
@pytest.mark.parametrize("seed", range(5))
def test_every_video_gets_the_texts_of_another(within, seed):
    found = ShuffledVideos(within).apply(ROWS, seed)
    assert same_but_text(found)
    assert Counter(r.text for r in found) == Counter(r.text for r in ROWS)
    for before, after in zip(ROWS, found, strict=True):
        assert f"clip{before.id[1:]}" not in after.text.split()
        assert (before.label in after.text) is (within == "class")
        assert after.text.endswith(str(before.sample))


def test_the_exchange_follows_the_seed():
    texts = [[r.text for r in ShuffledVideos().apply(ROWS, seed)] for seed in (0, 0, 1, 2, 3)]
    assert texts[0] == texts[1]
    assert any(other != texts[0] for other in texts[2:])


def test_where_one_class_is_most_of_all_some_texts_stay_in_it():
    rows = [rationale(i, "push") for i in range(5)] + [rationale(9, "pull")]
    found = ShuffledVideos("all").apply(rows, 0)
    assert all(a.text != b.text for a, b in zip(rows, found, strict=True))
    assert "push" in found[-1].text


def test_a_class_of_one_video_has_nothing_to_exchange():
    with pytest.raises(DataError, match="the only rationale of the class 'pull'"):
        ShuffledVideos().apply([*(r for r in ROWS if r.label == "push"), rationale(9, "pull")], 0)


def test_words_stay_and_their_order_goes():
    found = ShuffledWords().apply(ROWS, 0)
    assert same_but_text(found)
    for before, after in zip(ROWS, found, strict=True):
        assert sorted(before.text.split()) == sorted(after.text.split())
    assert sum(before.text != after.text for before, after in zip(ROWS, found, strict=True)) == len(ROWS)
    assert found == ShuffledWords().apply(ROWS, 0) != ShuffledWords().apply(ROWS, 1)


def test_generic_text_has_the_length_and_nothing_of_the_content():
    found = GenericText("any old words").apply(ROWS, 0)
    assert same_but_text(found)
    for before, after in zip(ROWS, found, strict=True):
        assert len(after.text.split()) == len(before.text.split())
        assert not {"object", before.label} & set(after.text.split())
    assert found[0].text.startswith("any old words any old")
    default = GenericText().apply(ROWS, 0)
    assert not {"push", "pull", "object"} & set(default[0].text.split())


def test_without_description_the_class_alone_is_left():
    found = NoDescription().apply(ROWS, 0)
    assert same_but_text(found)
    assert {r.text for r in found} == {""}


@pytest.mark.parametrize(("keep", "left"), [(0.5, 4), (0.3, 3), (1.0, 8), (0.01, 1)])
def test_a_random_part_of_each_class_is_kept(keep, left):
    found = RandomDrop(keep).apply(ROWS, 0)
    assert Counter(r.label for r in found) == {"push": left, "pull": left}
    assert [r for r in ROWS if r in found] == found
    if keep == 0.5:
        assert found != RandomDrop(keep).apply(ROWS, 1)


DOINGS = ("goes left", "goes right", "goes", "waits")
DOING = r"goes left(?!w)|goes right|goes|waits"


def doing(*texts: str) -> list[Rationale]:
    return [replace(rationale(i, "push" if i % 2 else "pull"), text=text) for i, text in enumerate(texts)]


MOVING = doing(*(f"the ring {what} then waits ." for what in ("goes left", "goes right", "goes leftwards", "waits")))


def occurrences(rows: list[Rationale]) -> list[list[str]]:
    return [re.findall(DOING, row.text) for row in rows]


def test_a_share_of_the_deciding_words_become_others_of_their_kind():
    before = occurrences(MOVING)
    assert sum(map(len, before)) == 8
    for share, changed in ((0.0, 0), (0.25, 2), (0.5, 4), (1.0, 8)):
        found = ReplacedWords(share, DOINGS).apply(MOVING, 3)
        # every other word stays, and so does the place of each
        assert [re.sub(DOING, "*", r.text) for r in found] == [re.sub(DOING, "*", r.text) for r in MOVING]
        pairs = [pair for a, b in zip(before, occurrences(found), strict=True) for pair in zip(a, b, strict=True)]
        assert sum(a != b for a, b in pairs) == changed


def test_a_larger_share_replaces_the_same_words_and_more():
    some, more = (ReplacedWords(share, DOINGS).apply(MOVING, 1) for share in (0.25, 0.75))
    for before, a, b in zip(*map(occurrences, (MOVING, some, more)), strict=True):
        assert all(late == early for old, early, late in zip(before, a, b, strict=True) if early != old)
    assert some != ReplacedWords(0.25, DOINGS).apply(MOVING, 2)


def test_without_words_those_are_replaced_that_say_most_about_the_class():
    rows = doing("a cat sits there", "a dog sits there", "one cat runs there", "one dog runs there")
    found = [row.text.split() for row in ReplacedWords(1.0, count=2).apply(rows, 0)]
    assert [words[:2] for words in found] == [["a", "dog"], ["a", "cat"], ["one", "dog"], ["one", "cat"]]
    assert [words[2:] for words in found] == [row.text.split()[2:] for row in rows]


def test_words_that_no_text_holds_are_named():
    with pytest.raises(DataError, match="no rationale holds any of 'flies', 'swims'"):
        ReplacedWords(0.5, ("flies", "swims")).apply(ROWS, 0)
    with pytest.raises(DataError, match="fewer than two different words"):
        ReplacedWords(0.5).apply(doing("same", "same"), 0)


def test_wrong_settings_are_refused():
    for wrong, key in (({"share": 1.1}, "share"), ({"words": ("a",)}, "words"), ({"words": ("a", " ")}, "words")):
        with pytest.raises(ConfigError, match=rf"^model\.control\.{key}"):
            ReplacedWords(**wrong)
    with pytest.raises(ConfigError, match=r"^model\.control\.count"):
        ReplacedWords(count=1)
    with pytest.raises(ConfigError, match=r"^model\.control\.text"):
        GenericText(" ")
    with pytest.raises(ConfigError, match=r"^model\.control\.keep"):
        RandomDrop(0.0)


def videos(text: str = "people saw {}") -> list[VideoRecord]:
    return [
        VideoRecord(f"v{i}", f"{i}.mp4", "push" if i % 2 else "pull", text={"seen": text.format(i)}) for i in range(8)
    ]


def test_human_text_takes_the_place_of_all_rationales_of_its_video():
    found = HumanText("seen").apply(ROWS, 0, videos())
    assert [(r.id, r.label, r.text) for r in found] == [(v.id, v.label, v.text["seen"]) for v in videos()]
    assert {r.sample for r in found} == {0}


def test_what_people_wrote_is_part_of_what_a_stage_is_made_from():
    control = HumanText("seen")
    assert control.takes(videos()) == control.takes(videos()[::-1])
    assert control.takes(videos()) != control.takes(videos("somebody saw {}"))
    assert NoDescription().takes(videos()) == ""
    with pytest.raises(DataError, match=r"0\.mp4 has no text in the column 'told'; it has 'seen'"):
        HumanText("told").takes(videos())
    with pytest.raises(DataError, match="has no text in the column 'seen'"):
        HumanText("seen").takes(videos("  "))
