"""Spoilt files of a run and of the caches give a clear error or are read as they are."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.support.mutate import depth, explore, spoilt
from tests.support.videos import write_video

from rbft.data.records import VideoRecord
from rbft.data.splits import Splits
from rbft.data.survey import CACHE_FILE, survey
from rbft.errors import RBFTError
from rbft.evaluation.predictions import Prediction, read_predictions
from rbft.experiment import Experiment
from rbft.files import file_digest, read_json, read_jsonl
from rbft.pipeline.resume import StageFolder
from rbft.rationales.store import Rationale, RationaleStore, read_rationales
from rbft.runs.stage_record import StageRecord, fingerprint, read_record, verify_outputs, write_record
from rbft.terminal import make_console
from rbft.training.checkpoint import checkpoints, newest_whole
from rbft.video.clip_cache import ClipCache
from rbft.video.clip_spec import ClipSpec
from rbft.video.sampling import FrameSampling

LABELS = ("fall", "no fall")
RECORDS = [VideoRecord(f"{i}", f"{i}.mp4", LABELS[i % 2], group=f"g{i}") for i in range(6)]


def lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps(dataclasses.asdict(row), ensure_ascii=False) + "\n" for row in rows).encode()


RATIONALES = [
    Rationale(
        f"{i}",
        0,
        f"{i}.mp4",
        LABELS[i % 2],
        "00",
        "blind",
        "tiny",
        "It moves.",
        "fall",
        "It moves.",
        False,
        {"length": 0.5},
        0.5,
        bool(i % 2),
        "",
    )
    for i in range(3)
]
PREDICTIONS = [Prediction(f"{i}", f"{i}.mp4", "fall", "no fall", (0.25, 0.75), (-2.0, -1.0), None) for i in range(3)]
SPLITS = Splits(tuple(RECORDS[:2]), tuple(RECORDS[2:4]), tuple(RECORDS[4:]), ())
INPUTS = {"kind": "write", "seed": 0, "model": {"vlm": "builtin/tiny"}, "weights": None}
# the newer one is lost, so that the older one is taken
FILE = {"bytes": 3, "blake2b": hashlib.blake2b(b"abc", digest_size=16).hexdigest()}
MANIFEST = [{"number": n, "files": {f"place-{n}.ckpt": FILE}, "about": {}} for n in (2, 1)]
RECORD = StageRecord("write", "write", fingerprint(INPUTS), INPUTS, {"out.txt": "x"}, 1.0, {"rationales": 3})


def rationales(path: Path) -> None:
    for one in read_rationales(path):
        assert isinstance(one.sample, int)
        assert 0 <= one.weight < math.inf
        assert {type(text) for text in (one.id, one.video, one.label, one.text, one.written)} == {str}
        assert type(one.kept) is type(one.truncated) is bool


def parts(path: Path) -> None:
    """A part file as a killed process leaves it: read, and written on behind what is torn."""
    store = RationaleStore(path.parent)
    store.parts.mkdir(exist_ok=True)
    (store.parts / "rank0.jsonl").write_bytes(path.read_bytes())
    before = set(store.written())
    new = dataclasses.replace(RATIONALES[0], id="new")
    store.append([new], 0)
    assert set(store.written()) == before | {new.key}


def predictions(path: Path) -> None:
    for one in read_predictions(path):
        assert isinstance(one.probabilities, tuple)


def splits(path: Path) -> None:
    found = Splits.from_json(read_json(path), RECORDS)
    sides = [r.id for side in (found.train, found.val, found.test, found.unused) for r in side]
    assert sorted(sides) == [r.id for r in RECORDS]


def stage_record(path: Path) -> None:
    path.rename(path.with_name("stage.json"))
    record = read_record(path.parent)
    assert record is not None
    fingerprint(record.inputs)
    verify_outputs(path.parent, record)


def started(path: Path) -> None:
    """What the pipeline does with a folder in which a stage was interrupted."""
    run = path.parent / "run"
    folder = run / "write"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "started.json").write_bytes(path.read_bytes())
    experiment = Experiment("x", "own", "own", (), None, run, (), (), False, False)
    entry: Any = SimpleNamespace(stage=SimpleNamespace(name="write"), fingerprint=RECORD.fingerprint, inputs=INPUTS)
    console = make_console()
    console.quiet = True
    StageFolder(experiment, entry).make_room(console)


def manifest(path: Path) -> None:
    """The places that an interrupted training stage can go on from."""
    path.with_name("place-1.ckpt").write_bytes(b"abc")
    for found in checkpoints(path):
        assert all((path.parent / name).resolve().is_relative_to(path.parent.resolve()) for name in found.files)
    with warnings.catch_warnings(action="ignore"):
        newest_whole(path)
        assert (path.parent / next(iter(newest_whole(path).files))).read_bytes() == b"abc"


def any_json(path: Path) -> None:
    read_json(path)


def any_jsonl(path: Path) -> None:
    list(read_jsonl(path))


TEXTS: dict[str, tuple[Callable[[Path], None], bytes]] = {
    "rationales": (rationales, lines(RATIONALES)),
    "parts of rationales": (parts, lines(RATIONALES)),
    "predictions": (predictions, lines(PREDICTIONS)),
    "splits": (splits, json.dumps(SPLITS.to_json()).encode()),
    "stage record": (stage_record, json.dumps(dataclasses.asdict(RECORD)).encode()),
    "started": (started, json.dumps({"inputs": INPUTS}).encode()),
    "places": (manifest, json.dumps({"places": MANIFEST}).encode()),
    "json": (any_json, b'{"a": [1, 2.5, null, {"b": "c"}]}'),
    "jsonl": (any_jsonl, b'{"a": 1}\n{"b": "c"}\n'),
}


@depth(80, 4000)
@pytest.mark.parametrize("name", TEXTS)
def test_spoilt_texts(name: str, examples: int) -> None:
    use, valid = TEXTS[name]

    def check(content: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "file")
            path.write_bytes(content)
            try:
                use(path)
            except RBFTError as error:
                assert str(error).strip()

    explore(spoilt(valid), examples, check)


@pytest.mark.parametrize("name", sorted(set(TEXTS) - {"stage record"}))
def test_unspoilt_texts(name: str, tmp_path: Path) -> None:
    use, valid = TEXTS[name]
    (tmp_path / "file").write_bytes(valid)
    use(tmp_path / "file")


def test_an_unspoilt_stage_record(tmp_path: Path) -> None:
    write_record(tmp_path, RECORD)
    assert read_record(tmp_path) == RECORD


@depth(40, 1500)
def test_spoilt_memory_of_the_survey(examples: int, tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", num_frames=6, size=(48, 64))
    cache, console = tmp_path / "cache", make_console()
    facts = survey(tmp_path, ["a.mp4"], cache=cache, console=console, workers=1)
    valid = (cache / CACHE_FILE).read_bytes()

    def check(content: bytes) -> None:
        (cache / CACHE_FILE).write_bytes(content)
        try:
            found = survey(tmp_path, ["a.mp4"], cache=cache, console=console, workers=1)
        except RBFTError as error:
            assert CACHE_FILE in str(error)
        else:
            assert found["a.mp4"].path == facts["a.mp4"].path

    explore(spoilt(valid), examples, check)


@depth(40, 1500)
def test_spoilt_kept_clips(examples: int, tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", num_frames=6, size=(16, 16))
    sampling = FrameSampling(num_frames=2)
    clip = ClipCache(tmp_path / "cache", 10**9, file_digest).read(video, ClipSpec(sampling))
    (entry,) = (tmp_path / "cache").iterdir()
    valid = entry.read_bytes()
    head = valid[: len(valid) - clip.frames.numel()]

    def check(start: bytes) -> None:
        entry.write_bytes(start + valid[len(head) :])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            again = ClipCache(tmp_path / "cache", 10**9, file_digest).read(video, ClipSpec(sampling))
        assert (again.frames == clip.frames).all()
        assert again.timestamps == clip.timestamps

    explore(spoilt(head), examples, check)
