"""Measures the built-in model on fresh clips: python -m tools.tiny_vlm.evaluate --model FOLDER --json OUT."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from rbft.vlm.loading import BUILTIN
from rbft.vlm.prompt import Prompt
from rbft.worlds import language
from rbft.worlds.events import GENERAL, MEANINGS, NAMED_TARGETS, Domain, phrase
from rbft.worlds.scenes import NUM_STEPS, Scenes, general_scenes, target_scenes
from rbft.worlds.shapes import Frames, render

SEED = 20_000  # pre-training draws its clips from (seed, phase); these are others
_BATCH = 100
_NAMES = tuple(GENERAL)


class Describer:
    """A model folder, asked through the library's own processor and `generate`.

    Args:
        folder: The model folder.
    """

    def __init__(self, folder: Path) -> None:
        self.model = AutoModelForImageTextToText.from_pretrained(folder).eval()
        self.processor = AutoProcessor.from_pretrained(folder)

    @torch.no_grad()
    def answers(self, questions: Sequence[str], frames: Frames | None = None) -> list[str]:
        """Greedy answers to one question a clip (N, 8, 64, 64, 3), or to questions without video."""
        found: list[str] = []
        for inputs in self._batches(questions, [""] * len(questions), frames):
            out = self.model.generate(**inputs, do_sample=False, max_new_tokens=40)
            found += self.processor.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return [text.strip() for text in found]

    @torch.no_grad()
    def choices(self, question: str, begun: Sequence[str], frames: Frames, names: Sequence[str]) -> list[str]:
        """The likeliest of the names, each one token, after what the answer to each clip has begun with."""
        ids = [self.processor.tokenizer.convert_tokens_to_ids(name) for name in names]
        found: list[str] = []
        for inputs in self._batches([question] * len(begun), begun, frames):
            logits = self.model(**inputs, logits_to_keep=1).logits[:, -1, ids]
            found += [names[best] for best in logits.argmax(-1).tolist()]
        return found

    def _batches(self, questions: Sequence[str], begun: Sequence[str], frames: Frames | None) -> Iterator[Any]:
        for start in range(0, len(questions), _BATCH):
            part = slice(start, start + _BATCH)
            texts = [
                self.processor.apply_chat_template(
                    Prompt(question, video=frames is not None).messages(), add_generation_prompt=True, tokenize=False
                )
                + beginning
                for question, beginning in zip(questions[part], begun[part], strict=True)
            ]
            clips = {} if frames is None else video_arguments(frames[part])
            yield self.processor(text=texts, padding=True, return_tensors="pt", **clips)


def video_arguments(frames: Frames) -> dict[str, Any]:
    """What a processor of transformers takes for decoded clips (N, T, H, W, 3)."""
    metadata = {
        "total_num_frames": frames.shape[1],
        "fps": float(NUM_STEPS),
        "duration": frames.shape[1] / NUM_STEPS,
        "frames_indices": list(range(frames.shape[1])),
    }
    return {
        "videos": [[torch.from_numpy(clip).permute(0, 3, 1, 2)] for clip in frames],
        "video_metadata": [[metadata] for _ in frames],
        "do_sample_frames": False,
    }


def parse(text: str) -> dict[str, tuple[str, str, str]]:
    """A description as colour -> (shape, first action, second action), the actions in words."""
    objects: dict[str, tuple[str, str, str]] = {}
    for sentence in text.split(" ."):
        words = sentence.split()
        if len(words) < 4 or words[0] != "the":
            continue
        first, _, second = " ".join(words[3:]).partition(" then ")
        objects[words[1]] = (words[2], first, second or first)
    return objects


def description_accuracy(texts: Sequence[str], scenes: Scenes, slots: tuple[int, ...] = (0, 1)) -> dict[str, float]:
    """Shares of true objects that are named by colour, and of those with shape and actions right.

    Args:
        texts: One description a clip; what stands after a conclusion's lead is not looked at.
        scenes: The truth.
        slots: The objects that count.

    Returns:
        colour, shape, first, second and both (of all objects), and exact: clips whose every object is told, and
        nothing else.
    """
    tally, total, exact = np.zeros(5), 0, 0
    lead = language.CONCLUSION.partition("{")[0]
    for clip, text in enumerate(texts):
        told = parse(text.partition(lead)[0])
        truth = parse(language.description(scenes, clip))
        exact += told == truth
        for slot in slots:
            if slot >= scenes.num_objects[clip]:
                continue
            total += 1
            colour = language.COLOUR_NAMES[scenes.colours[clip, slot]]
            if colour not in told:
                continue
            same = [a == b for a, b in zip(told[colour], truth[colour], strict=True)]
            tally += [1, *same, same[1] and same[2]]
    shares = (tally / max(total, 1)).round(4).tolist()
    return dict(zip(("colour", "shape", "first", "second", "both"), shares, strict=True)) | {
        "exact": round(exact / len(texts), 4)
    }


def _same(found: Sequence[str], wanted: Sequence[str]) -> float:
    return round(float(np.mean([a == b for a, b in zip(found, wanted, strict=True)])), 4)


def _by_name(names: Sequence[str], right: Sequence[bool]) -> dict[str, float]:
    return {
        name: round(float(np.mean([ok for ok, found in zip(right, names, strict=True) if found == name])), 4)
        for name in dict.fromkeys(names)
    }


def _draw(name: str, make: Callable[[np.random.Generator], Scenes]) -> tuple[Scenes, Frames]:
    rng = np.random.default_rng([SEED, *name.encode()])
    scenes = make(rng)
    return scenes, np.concatenate(
        [render(scenes.take(slice(i, i + 200)), rng) for i in range(0, len(scenes), 200)], axis=0
    )


def _target(domain: Domain, clips: int, textured: bool = False) -> tuple[Scenes, Frames, list[str]]:
    names = list(NAMED_TARGETS[domain])
    labels = np.arange(clips) % len(names)
    scenes, frames = _draw(
        f"{domain}-{textured}",
        lambda rng: target_scenes(rng, labels, domain, style="textured" if textured else "plain"),
    )
    return scenes, frames, [names[label] for label in labels]


def describing(model: Describer, clips: int) -> dict[str, Any]:
    """Accuracy of captions in and outside the world of pre-training."""
    general, frames = _draw("general", lambda rng: general_scenes(rng, clips))
    result: dict[str, Any] = {
        "general": description_accuracy(model.answers([language.CAPTION] * clips, frames), general)
    }
    for domain in NAMED_TARGETS:
        for textured in (False, True):
            scenes, frames, names = _target(domain, clips, textured)
            texts = model.answers([language.CAPTION] * clips, frames)
            key = f"{domain}/{'textured' if textured else 'plain'}"
            result[key] = {
                "all objects": description_accuracy(texts, scenes),
                "labelled object": description_accuracy(texts, scenes, slots=(0,)),
                "both actions by name": {
                    name: description_accuracy([texts[i] for i in rows], scenes.take(np.array(rows)), slots=(0,))[
                        "both"
                    ]
                    for name in NAMED_TARGETS[domain]
                    for rows in [[i for i, found in enumerate(names) if found == name]]
                },
            }
    return result


def emptiness(model: Describer, clips: int) -> dict[str, float]:
    """Share of clips without any object that are described as empty."""
    rng = np.random.default_rng([SEED, 1])
    shape = (clips, NUM_STEPS, 64, 64, 3)
    colours = rng.integers(0, 256, (clips, 1, 1, 1, 3), dtype=np.uint8)
    greys = np.linspace(0, 255, clips).astype(np.uint8)[:, None, None, None, None]
    pictures = {
        "background of the world": _draw("empty", lambda r: general_scenes(r, clips, empty=1.0))[1],
        "one grey": np.broadcast_to(greys, shape).copy(),
        "one colour": np.broadcast_to(colours, shape).copy(),
        "uniform noise": rng.integers(0, 256, shape, dtype=np.uint8),
    }
    return {
        name: _same(model.answers([language.CAPTION] * clips, frames), [language.EMPTY_DESCRIPTION] * clips)
        for name, frames in pictures.items()
    }


def naming(model: Describer, clips: int) -> dict[str, float]:
    """Label, rationale and hinted questions about clips with general names."""
    scenes, frames = _draw("named", lambda rng: general_scenes(rng, clips, named=1.0))
    names = [_NAMES[event] for event in scenes.event]
    others = [_NAMES[(event + 5) % len(_NAMES)] for event in scenes.event]
    rationales = model.answers([language.RATIONALE] * clips, frames)
    right = model.answers([language.HINTED.format(name=name) for name in names], frames)
    wrong = model.answers([language.HINTED.format(name=name) for name in others], frames)
    return {
        "label": _same(model.answers([language.LABEL] * clips, frames), names),
        "name after the rationale": _same([text.split()[-1] for text in rationales], names),
        "both actions in the rationale": description_accuracy(rationales, scenes)["both"],
        "both actions under the right hint": description_accuracy(right, scenes)["both"],
        "both actions under a wrong hint": description_accuracy(wrong, scenes)["both"],
        "hint repeated at the end": _same([text.split()[-1] for text in right + wrong], names + others),
    }


def classifying(model: Describer, clips: int) -> dict[str, dict[str, float]]:
    """Accuracy among a domain's names by likelihood: at once, after the own rationale, after the true description."""
    result: dict[str, dict[str, float]] = {}
    lead = language.CONCLUSION.partition("{")[0].strip()
    for domain, meanings in NAMED_TARGETS.items():
        for textured in (False, True):
            scenes, frames, names = _target(domain, clips, textured)
            own = model.answers([language.RATIONALE] * clips, frames)
            begun = {
                "at once": (language.LABEL, [""] * clips),
                "after its own rationale": (language.RATIONALE, [t.partition(lead)[0] + lead for t in own]),
                "after the true description": (
                    language.RATIONALE,
                    [f"{language.description(scenes, clip)} {lead}" for clip in range(clips)],
                ),
            }
            result[f"{domain}/{'textured' if textured else 'plain'}"] = {
                key: _same(model.choices(question, beginnings, frames, list(meanings)), names)
                for key, (question, beginnings) in begun.items()
            }
    return result


def target_hints(model: Describer, clips: int) -> dict[str, float]:
    """Rationales under hints that pre-training never gave with a video."""
    result: dict[str, float] = {}
    for domain in NAMED_TARGETS:
        scenes, frames, names = _target(domain, clips)
        texts = model.answers([language.HINTED.format(name=name) for name in names], frames)
        repeated = [text.split()[-1] for text in texts]
        result[f"{domain}: both actions"] = description_accuracy(texts, scenes, slots=(0,))["both"]
        result[f"{domain}: hint repeated at the end"] = _same(repeated, names)
        result |= _by_name(names, [a == b for a, b in zip(repeated, names, strict=True)])
    return result


def words_only(model: Describer, judged: int) -> dict[str, float]:
    """Names and their meanings, both ways, without video."""
    asked = [(language.NAME_OF_WORDS.format(words=phrase(*e)), name) for name, es in MEANINGS.items() for e in es]
    names = [(language.WORDS_OF_NAME.format(name=name), language.meaning(name)) for name in MEANINGS]
    rng = np.random.default_rng([SEED, 2])
    judge = [language.judge_turn(rng) for _ in range(judged)]
    return {
        key: _same(model.answers([q for q, _ in turns]), [a for _, a in turns])
        for key, turns in {"name of words": asked, "words of name": names, "judge": judge}.items()
    }


def evaluate(folder: Path, clips: int) -> dict[str, Any]:
    """All measurements; `clips` in each set."""
    model = Describer(folder)
    return {
        "clips": clips,
        "describing": describing(model, clips),
        "described as empty": emptiness(model, clips),
        "naming": naming(model, clips),
        "hints with target names": target_hints(model, clips),
        "classifying": classifying(model, clips),
        "without video": words_only(model, clips),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.tiny_vlm.evaluate", description=__doc__)
    parser.add_argument("--model", type=Path, default=BUILTIN["builtin/tiny"], help="model folder")
    parser.add_argument("--clips", type=int, default=1000, help="clips in each set (default 1000)")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    args = parser.parse_args()
    torch.set_num_threads(1)
    figures = json.dumps(evaluate(args.model, args.clips), indent=2)
    print(figures)
    if args.json is not None:
        args.json.write_text(figures + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
