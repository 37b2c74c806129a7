"""The built-in domain as a data set: its classes, its words, and what people would say about each video."""

from __future__ import annotations

from pathlib import Path

import pytest

from rbft.data.formats.shapes_world import ARBITRARY, ShapesWorld
from rbft.worlds.events import CLASSES


def small(**settings) -> ShapesWorld:
    return ShapesWorld(domain="unions", train_per_class=2, val_per_class=1, test_per_class=1, **settings)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes") / "unions"
    small().prepare(folder)
    return folder


def test_every_video_has_its_description(root: Path):
    records = small().read(root)
    assert {record.label for record in records} == set(CLASSES["unions"])
    assert all(record.text["description"].startswith("the ") for record in records)


def test_arbitrary_names_change_the_words_and_nothing_else(root: Path):
    known, renamed = small().read(root), small(names="arbitrary").read(root)
    words = dict(zip(CLASSES["unions"], ARBITRARY, strict=False))
    assert [record.path for record in renamed] == [record.path for record in known]
    assert [record.label for record in renamed] == [words[record.label] for record in known]
    assert small().label_names(root) is None
    assert small(names="arbitrary").label_names(root) == ARBITRARY[:4]
    assert max(map(len, CLASSES.values())) <= len(ARBITRARY)
