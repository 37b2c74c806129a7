"""A session of labelling: the clips, and their labels as the table has them."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rbft.data.labels import folded, require_name
from rbft.errors import DataError, VideoError
from rbft.labelling.clips import Clip, Found, in_order

if TYPE_CHECKING:
    from rbft.labelling.opinions import Opinions

_FRAMES, _PIXELS, _SECONDS = 12, 320 * 240, 60.0


class Session:
    """What the page works on.

    Args:
        found: clips and their table.
        wanted: clips to show first.
        classes: classes that may be chosen though no clip has them yet.
        opinions: what a run says; None: there is none.
    """

    def __init__(
        self, found: Found, wanted: Sequence[Clip] = (), classes: Sequence[str] = (), opinions: Opinions | None = None
    ) -> None:
        self.found, self.opinions = found, opinions
        for name in classes:
            require_name(name)
        self._classes = list(dict.fromkeys(classes))
        labelled = {clip for clip, label in self._labels().items() if label}
        self.order = in_order(found.clips, labelled, wanted)
        self.wanted = len(set(wanted) & set(found.clips))

    def clip(self, number: int) -> Clip:
        """The clip of a number.

        Raises:
            IndexError: There is none.
        """
        if number < 0:
            raise IndexError(number)
        return self.found.clips[number]

    def _labels(self) -> dict[Clip, str]:
        return {Clip(row.path, row.part): row.label for row in self.found.table.read()}

    def state(self) -> dict[str, Any]:
        """Everything that the page shows of the clips; read from the table, which others may have changed."""
        labels = self._labels()
        given = [labels.get(clip, "") for clip in self.found.clips]
        counts = Counter(filter(None, labels.values()))
        names = list(dict.fromkeys([*self._classes, *sorted(counts)]))
        return {
            "clips": [
                {"name": clip.name, "part": clip.part, "label": label}
                for clip, label in zip(self.found.clips, given, strict=True)
            ],
            "classes": [{"name": name, "count": counts[name]} for name in names],
            "order": self.order,
            "wanted": self.wanted,
            "labelled": sum(map(bool, given)),
            "run": self.opinions is not None,
            "explains": self.opinions is not None and self.opinions.explains,
        }

    def label(self, number: int, label: str) -> dict[str, Any]:
        """Give a clip a class, or take it off with an empty one; on the disk when this returns.

        Args:
            number: number of the clip.
            label: class, which may be a new one.

        Returns:
            Its class before, how many clips have one now, and the classes with their counts.

        Raises:
            DataError: The name cannot be a class, or reads like another class.
        """
        clip = self.clip(number)
        name = label.strip()
        if name:
            require_name(name)
            known = [entry["name"] for entry in self.state()["classes"]]
            alike = [other for other in known if other != name and folded(other) == folded(name)]
            if name not in known and alike:
                raise DataError(f"the class {name!r} reads the same as {alike[0]!r}; choose that one.")
        before = self._labels().get(clip, "")
        self.found.table.set(clip.path, clip.part, name)
        if name and name not in self._classes:
            self._classes.append(name)
        state = self.state()
        return {"before": before, "label": name, "labelled": state["labelled"], "classes": state["classes"]}

    def file(self, number: int) -> Path:
        """The file of a clip, links followed; nothing outside of the folder.

        Raises:
            VideoError: It must not be opened, or is a folder of images.
        """
        # what reads videos takes seconds to import, which the page need not wait for
        from rbft.video.container import resolve_inside

        path = self.clip(number).path
        file = resolve_inside(self.found.root, path)
        if not file.is_file():
            raise VideoError(path, "is a folder of images, which no browser plays")
        return file

    def frames(self, number: int) -> list[dict[str, Any]]:
        """Frames of a clip, spread over its length, for a browser that cannot play it.

        Raises:
            VideoError: It cannot be read.
        """
        from rbft.video.clip import read_clip
        from rbft.video.clip_spec import ClipSpec
        from rbft.video.container import reading_within
        from rbft.video.sampling import FrameSampling

        clip = self.clip(number)
        spec = ClipSpec(FrameSampling(num_frames=_FRAMES), _PIXELS).of_part(clip.part)
        with reading_within(_SECONDS):
            read = read_clip(clip.path, spec, self.found.root)
        shown = dict(zip(read.timestamps, read.frames, strict=True))
        return [
            {"time": round(time, 2), "image": _picture(frame.permute(1, 2, 0).numpy())} for time, frame in shown.items()
        ]


def _picture(pixels: Any) -> str:
    """A frame (H, W, 3) as the address of a JPEG."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
