"""What a run says of the clip that a person looks at."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from rbft.labelling.clips import Clip
from rbft.predict import Classifier, VideoInput


class Superseded(Exception):
    """Another clip has been asked about meanwhile, so that nobody waits for this one."""


class Opinions:
    """What a run says of clips; it is asked by one thread at a time, and only about the clip that is looked at.

    Args:
        classifier: the run.
        root: folder of the clips.
    """

    def __init__(self, classifier: Classifier, root: Path) -> None:
        self._classifier, self._root = classifier, root
        self._lock = threading.Lock()
        self._asked: object = None
        self._known: dict[tuple[Clip, bool], dict[str, Any]] = {}
        book = classifier.model.book
        self.explains = book.blind_prompt() != book.label_prompt()

    def of(self, clip: Clip, *, rationale: bool) -> dict[str, Any]:
        """Probabilities of all classes, the likeliest first, and a rationale if it is asked for; or why there are none.

        Raises:
            Superseded: Another clip was asked about while this one waited.
        """
        key = (clip, rationale)
        if key in self._known:
            return self._known[key]
        self._asked = mine = object()
        with self._lock:
            if self._asked is not mine:
                raise Superseded
            video = VideoInput(clip.name, clip.path, self._root, part=clip.part)
            (said,) = self._classifier.predict([video], rationale=rationale)
        if said.predicted is None:
            return self._known.setdefault(key, {"error": said.error or "it cannot be read"})
        chances = zip(self._classifier.labels.names, said.calibrated or said.raw, strict=True)
        ranked = sorted(chances, key=lambda pair: -pair[1])
        answer = {
            "probabilities": [{"label": name, "probability": value} for name, value in ranked],
            "rationale": said.rationale,
        }
        return self._known.setdefault(key, answer)
