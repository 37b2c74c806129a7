"""No video takes unbounded time: a limit in predict and serve, in every process that decodes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.runs import Run
from tests.support.videos import write_video

from rbft.__main__ import main
from rbft.errors import ConfigError, VideoError
from rbft.predict import Classifier, Windows
from rbft.serve.model import ServedModel
from rbft.video import container
from rbft.video.clip import read_clip
from rbft.video.clip_spec import ClipSpec
from rbft.video.container import reading_limit, reading_within
from rbft.video.reader import count_frames
from rbft.video.sampling import FrameSampling

pytest_plugins = ["tests.support.run_fixtures"]
REFUSED = r"takes longer than 5 s to read; cut it into clips, or allow more time \(--time-limit\)"


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second goes by with every look at the clock, also in processes that are forked."""

    class Clock:
        def __init__(self) -> None:
            self.now = 0.0

        def monotonic(self) -> float:
            self.now += 1
            return self.now

    monkeypatch.setattr(container, "time", Clock())


@pytest.fixture
def long(tmp_path: Path) -> Iterator[Path]:
    yield write_video(tmp_path / "long.mp4", num_frames=200, size=(48, 64))


@pytest.mark.usefixtures("slowly")
def test_a_video_that_takes_too_long_is_refused(long: Path) -> None:
    spec = ClipSpec(FrameSampling(num_frames=4))
    assert len(read_clip(long, spec).timestamps) == 4, "there is no limit unless one is set"
    with reading_within(5):
        with pytest.raises(VideoError, match=REFUSED):
            read_clip(long, spec)
        with pytest.raises(VideoError, match=REFUSED):
            count_frames(long)
    with reading_within(1000):
        assert len(read_clip(long, spec).timestamps) == 4
    assert reading_limit() == math.inf


@pytest.mark.usefixtures("slowly")
@pytest.mark.parametrize("workers", ["0", "1"])
def test_predict_says_so_and_answers_the_others(workers: str, finished: Run, clips: Path, long: Path) -> None:
    short = next((clips / "test").rglob("*.mp4"))
    flags = ["--data.num_workers", workers, "--data.cache_clips", "false", "--data.cache_features", "false"]
    bad, good = Classifier(finished.folder, flags, time_limit=1000).predict([long, short])
    assert bad.error is None and good.error is None
    bad, good = Classifier(finished.folder, flags, time_limit=100).predict([long, short])
    assert bad.error is not None and "takes longer than 100 s to read" in bad.error
    assert good.error is None
    (windowed,) = Classifier(finished.folder, flags, time_limit=5).predict([long], windows=Windows(0.2))
    assert windowed.error is not None and "takes longer than 5 s to read" in windowed.error


@pytest.mark.usefixtures("slowly")
def test_serve_says_so(finished: Run, long: Path) -> None:
    model = ServedModel(finished.folder, time_limit=5)
    model.load()
    with pytest.raises(VideoError, match=REFUSED):
        model.predict(long, rationale=False)


def test_no_time_at_all_is_refused(finished: Run, clips: Path) -> None:
    with pytest.raises(ConfigError, match="--time-limit 0: must be above 0"):
        Classifier(finished.folder, time_limit=0)
    assert main(["predict", "--run", str(finished.folder), str(clips), "--time-limit", "-1"]) == 2
