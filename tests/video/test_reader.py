from __future__ import annotations

import numpy as np
import pytest

from rbft.video.reader import count_frames, open_reader, read_frames
from tests.support.videos import read_number, write_video
CASES = {
    "mp4_gop12": ("a.mp4", {}),
    "mp4_gop30_b": ("a.mp4", dict(gop=30, bframes=3)),
    "mp4_gop250_b": ("a.mp4", dict(gop=250, bframes=3)),
    "mp4_open_gop": ("a.mp4", dict(gop=8, bframes=3, codec_options={"x264-params": "open-gop=1:b-pyramid=normal:scenecut=0"})),
    "hevc": ("a.mp4", dict(codec="libx265", gop=10, bframes=3, codec_options={"x265-params": "log-level=none:pools=1:frame-threads=1"})),
    "mkv": ("a.mkv", dict(bframes=2)),
    "vp9": ("a.webm", dict(codec="libvpx-vp9")),
    "avi_b": ("a.avi", dict(codec="mpeg4", bframes=2)),
    "ts": ("a.ts", dict(bframes=2)),
    "h264": ("a.h264", dict(bframes=2)),
    "gif": ("a.gif", dict(codec="gif", pix_fmt="rgb8")),
}

@pytest.mark.parametrize("name", CASES)
def test_every_index(tmp_path, name):
    file, kw = CASES[name]
    p = write_video(tmp_path / file, **kw)
    n = 40
    assert count_frames(p) == n
    with open_reader(p) as r:
        assert r.index.num_frames == n
        assert r.index.loss is None
        rng = np.random.default_rng(0)
        for idx in ([0], [n - 1], list(range(n)), rng.permutation(n).tolist(), [5, 5, 3], *[[int(i)] for i in range(n)]):
            d = r.read(idx)
            assert [read_number(f.numpy()) for f in d.frames] == idx
            assert d.timestamps == pytest.approx([i / 25 for i in idx], abs=0.006)
