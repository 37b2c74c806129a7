"""What ways of writing and of keeping rationales give, where the truth is known.

The built-in model writes about clips of the built-in domain `pairs`, plain and textured, under each hint policy
(`model.prompts.hint`) and each way of keeping (`model.keep`, `model.writer`):

  all         every text
  filter      what passes LabelParse, Contradiction and Grounding
  best of 4   of four samples of a clip the one with the greatest product of those scores
  regenerate  as filter, and up to two further attempts for clips that keep nothing

Of the kept texts: `events` is the share that tells both actions of the labelled object right, `exact` the share that
tells everything in the clip and nothing else, `class` the share that states the right class. `covered` is the share of
clips that keep a text, `emptied` counts classes of a draw that keep none, `tokens` are those written for each clip.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
import yaml

# a script knows its own folder only
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.common import Row, describe, make_parser, on_one_core, print_table, say, write_record
from tools.tiny_vlm.evaluate import parse

from rbft.data.formats import ShapesWorld
from rbft.data.labels import LabelSet
from rbft.data.prompt_templates import HintPolicy, PromptBook, Prompts
from rbft.data.records import VideoRecord
from rbft.files import read_jsonl
from rbft.rationales.checks.base import Check, Judge, Material
from rbft.rationales.checks.contradiction import Contradiction
from rbft.rationales.checks.grounding import Grounding
from rbft.rationales.checks.text import LabelParse
from rbft.rationales.quality import BestOf, Filter, Keep, KeepAll, score
from rbft.rationales.store import Rationale
from rbft.rationales.writer import Attempt, RationaleWriter, Regenerate
from rbft.video.clip import Clip, read_clip
from rbft.video.clip_spec import ClipSpec
from rbft.video.sampling import FrameSampling
from rbft.vlm.batch import Item, PromptInputs, collate
from rbft.vlm.loading import load_model
from rbft.vlm.model import VLM
from rbft.vlm.processing import ClipProcessor
from rbft.vlm.prompt import Prompt
from rbft.worlds.domain import TRUTH_FILE
from rbft.worlds.scenes import Style

EXPERIMENT = Path(__file__).resolve().parents[1] / "experiments" / "quickstart.yaml"
HINTS: tuple[HintPolicy, ...] = ("blind", "hint_stripped", "blind_then_hint")
TOKENS = 48
CHECKS: tuple[Check, ...] = (LabelParse(), Contradiction(), Grounding())
BEST: tuple[Check, ...] = (Contradiction(), Grounding())


@dataclass(frozen=True)
class Policy:
    """A way of writing and keeping.

    Args:
        writer: How it writes.
        checks: What scores the texts.
        keep: What decides on them.
    """

    writer: RationaleWriter
    checks: Sequence[Check]
    keep: Keep


POLICIES: Mapping[str, Policy] = {
    "all": Policy(RationaleWriter(max_new_tokens=TOKENS), (), KeepAll()),
    "filter": Policy(RationaleWriter(max_new_tokens=TOKENS), CHECKS, Filter()),
    "best of 4": Policy(RationaleWriter(samples=4, temperature=0.7, max_new_tokens=TOKENS), BEST, BestOf()),
    "regenerate": Policy(RationaleWriter(max_new_tokens=TOKENS, regenerate=Regenerate(2, 0.7)), CHECKS, Filter()),
}


@dataclass(frozen=True)
class World:
    """Clips with their truth, and the model that watches them.

    Args:
        vlm: The model.
        processor: Its processor.
        records: The clips.
        clips: Their frames, by path.
        truth: What each shows, by path: a row of the domain's own file.
        labels: The classes.
        prompts: The wording, whatever its hint policy.
    """

    vlm: VLM
    processor: ClipProcessor
    records: Sequence[VideoRecord]
    clips: Mapping[str, Clip]
    truth: Mapping[str, Row]
    labels: LabelSet
    prompts: Prompts

    def ask(self, video: str, prompt: Prompt) -> PromptInputs:
        """A question about a clip."""
        return self.processor.prompt_inputs(prompt, self.clips[video])

    def write(self, hint: HintPolicy, policy: Policy, seed: int) -> tuple[list[Rationale], PromptBook]:
        """What a write stage does: attempts, each about the clips that nothing is kept of, judged in between."""
        book = PromptBook(dataclasses.replace(self.prompts, hint=hint), self.labels)
        judge = Judge(self.vlm, self.processor, self.ask, 32)
        judged: list[Rationale] = []
        for attempt in policy.writer.attempts(hint):
            kept = {rationale.id for rationale in judged if rationale.kept}
            left = [record for record in self.records if record.id not in kept]
            if left:
                material = Material((*judged, *self._attempt(policy.writer, book, attempt, left, seed)), book, judge)
                scored = score(policy.checks, material, standing=len(judged))
                judged = policy.keep.judge(scored, policy.checks, book)
        return judged, book

    def _attempt(
        self, writer: RationaleWriter, book: PromptBook, attempt: Attempt, records: Sequence[VideoRecord], seed: int
    ) -> list[Rationale]:
        examples = writer.examples(records, book, attempt)
        nothing = torch.empty(0, dtype=torch.long)
        rows = [[Item(i, self.ask(e.record.path, e.prompt), nothing)] for i, e in enumerate(examples)]
        return writer.write(self.vlm, self.processor, book, collate(rows), examples, "builtin/tiny", seed, attempt)

    def right(self, rationale: Rationale) -> tuple[bool, bool]:
        """Whether a text tells both actions of the labelled object, and whether it tells everything as it is."""
        row = self.truth[rationale.video]
        told, true = parse(rationale.text), parse(row["description"])
        colour = row["objects"][0]["colour"]
        return told.get(colour, ("",) * 3)[1:] == true[colour][1:], told == true

    def tokens(self, rationales: Sequence[Rationale], book: PromptBook) -> int:
        """Of all texts, their ends included."""
        return sum(len(self.processor.target_ids(book.blind_prompt(), r.written)) for r in rationales)


def make_world(root: Path, style: Style, clips: int, seed: int) -> World:
    """So many clips of each class of `pairs`.

    Raises:
        DataError: `root` holds something else.
    """
    form = ShapesWorld("pairs", style, seed, train_per_class=clips, val_per_class=1, test_per_class=1)
    form.prepare(root)
    records = [record for record in form.read(root) if record.split == "train"]
    processor = ClipProcessor("builtin/tiny")
    vlm = VLM(load_model("builtin/tiny", None, "float32", None), processor.pad_id, processor.end_ids).eval()
    prompts = yaml.safe_load(EXPERIMENT.read_text(encoding="utf-8"))["model"]["prompts"]
    frames = {r.path: read_clip(r.path, ClipSpec(FrameSampling(num_frames=8)), root=root) for r in records}
    truth = {row["path"]: row for _, row in read_jsonl(root / TRUTH_FILE)}
    return World(vlm, processor, records, frames, truth, LabelSet.from_records(records), Prompts(**prompts))


@dataclass
class Tally:
    """Counts over draws."""

    clips: int = 0
    covered: int = 0
    emptied: int = 0
    written: int = 0
    tokens: int = 0
    kept: int = 0
    events: int = 0
    exact: int = 0
    stated: int = 0

    def add(self, world: World, rationales: Sequence[Rationale], book: PromptBook) -> None:
        """Count what one draw gave."""
        kept = [rationale for rationale in rationales if rationale.kept]
        right = [world.right(rationale) for rationale in kept]
        self.clips += len(world.records)
        self.covered += len({r.id for r in kept})
        self.emptied += len({record.label for record in world.records} - {r.label for r in kept})
        self.written += len(rationales)
        self.tokens += world.tokens(rationales, book)
        self.kept += len(kept)
        self.events += sum(events for events, _ in right)
        self.exact += sum(exact for _, exact in right)
        self.stated += sum(r.stated == r.label for r in kept)

    def row(self) -> Row:
        """Shares; those of kept texts are null where nothing is kept."""

        def share(count: int) -> float | None:
            return round(count / self.kept, 4) if self.kept else None

        return {
            "clips": self.clips,
            "written": self.written,
            "kept": self.kept,
            "covered": round(self.covered / self.clips, 4),
            "emptied": self.emptied,
            "events": share(self.events),
            "exact": share(self.exact),
            "class": share(self.stated),
            "tokens": round(self.tokens / self.clips, 2),
        }


def measure(style: Style, clips: int, draws: int) -> list[Row]:
    """A row for each hint and policy in one style, over all draws."""
    tallies = {(hint, name): Tally() for hint in HINTS for name in POLICIES}
    for draw in range(draws):
        with tempfile.TemporaryDirectory(prefix="rbft-policies-") as folder:
            world = make_world(Path(folder) / "world", style, clips, 1000 + draw)
            for (hint, name), tally in tallies.items():
                say(f"{style}, draw {draw + 1} of {draws}: {hint}, {name}")
                tally.add(world, *world.write(hint, POLICIES[name], draw))
    return [
        {"case": f"{style}: {hint}, {name}", "style": style, "hint": hint, "policy": name} | tally.row()
        for (hint, name), tally in tallies.items()
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = make_parser("rationale_policies", __doc__, repeats=3)
    parser.add_argument("--clips", type=int, default=4, help="clips of each class in a draw (default: %(default)s)")
    parser.add_argument("--styles", nargs="+", choices=get_args(Style), default=list(get_args(Style)), help="of clips")
    settings: argparse.Namespace = parser.parse_args(arguments)
    if settings.clips < 1:
        parser.error(f"argument --clips: must be at least 1, not {settings.clips}")
    torch.set_num_threads(1)
    with on_one_core():
        rows = [row for style in settings.styles for row in measure(style, settings.clips, settings.repeats)]
    columns = ("case", "clips", "written", "kept", "covered", "emptied", "events", "exact", "class", "tokens")
    print_table("Rationales where the truth is known", columns, rows)
    write_record(settings.json, "rationale_policies", describe([], arguments), rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
