"""The experiment file of some clips: every key that a person may want to change, with a comment on it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

from rbft.errors import ConfigError, printable
from rbft.runs.names import HEADING
from rbft.starter.layout import Layout

Preset = Literal["quick", "good", "best"]
PRESETS: tuple[str, ...] = get_args(Preset)
REHEARSAL = "builtin/tiny"

# at few labels no worse than all layers, and cheaper (docs/results.md); a file without `layers` goes on meaning all
_UPPER_HALF = "{{class_path: {}, init_args: {{layers: 0.5}}}}"


@dataclass(frozen=True)
class Choices:
    """What a person said beside the clips.

    Args:
        vlm: Model: a folder, a hub id or a built-in name.
        about: What the videos are, in a few words; empty where nothing was said.
        preset: How much to spend.
        on_gpu: Whether there is a GPU to compute on.

    Raises:
        ConfigError: A brace in `about`, which prompts would take for a field.
    """

    vlm: str = REHEARSAL
    about: str = ""
    preset: Preset = "good"
    on_gpu: bool = False

    def __post_init__(self) -> None:
        if "{" in self.about or "}" in self.about:
            raise ConfigError("--about: braces have a meaning in prompts; say it without them.")
        if self.preset not in PRESETS:
            raise ConfigError(f"--preset {self.preset}: it is one of {', '.join(PRESETS)}.")

    @property
    def rehearses(self) -> bool:
        """Whether the built-in model runs, which knows nothing of a person's videos."""
        return self.vlm.startswith("builtin/")


# frames of a clip, epochs of each training stage, rationales of each clip
_SPENT: dict[str, tuple[int, int, int]] = {"quick": (8, 1, 1), "good": (16, 3, 1), "best": (32, 5, 2)}
_REHEARSED: dict[str, tuple[int, int, int]] = {"quick": (4, 1, 1), "good": (8, 2, 1), "best": (8, 4, 2)}


def experiment_text(layout: Layout, choices: Choices, root: str) -> str:
    """The whole experiment file.

    Args:
        layout: The clips.
        choices: What a person said.
        root: How the data root is written in the file.
    """
    frames, epochs, samples = (_REHEARSED if choices.rehearses else _SPENT)[choices.preset]
    counts = ", ".join(f"{name} {count}" for name, count in layout.classes.items())
    writer: dict[str, Any] = {"max_new_tokens": 48 if choices.rehearses else 192}
    writer |= {"samples": samples, "temperature": 0.7} if samples > 1 else {}
    data_format: Any = layout.format
    if layout.settings:
        data_format = {"class_path": layout.format, "init_args": dict(layout.settings)}
    return f"""\
{HEADING}{_in_a_line(f"{len(layout.records)} labelled clips ({layout.description}): {counts}")}
# Run it: rbft fit FILE. Every key is a flag too, such as --trainer.max_epochs 5.

data:
  root: {_plain(root)}
  format: {_plain(data_format)}
  shots: null              # labelled training clips a class; null: all that are not kept for testing
  num_frames: {frames:<13}# frames of a clip, spread over its whole length
  max_pixels: {25600 if choices.rehearses else 151200:<13}# most pixels of a frame; more shows smaller things
  batch_size: {4 if choices.rehearses else 1}
  eval_batch_size: 4
  num_workers: 0           # processes that decode videos; raise it where a GPU waits
  on_bad_video: error      # skip: leave out what cannot be read

model:
{_model(choices)}
{_prompts(choices)}
  writer: {_plain(writer)}

trainer: {_plain(_trainer(choices))}
seed_everything: 0         # one run is one draw: repeat it with other seeds

# stages of the method; --method sft leaves out the rationales, zero_shot trains nothing
stages:
  write: {{}}
  rationale: {{trainer: {{max_epochs: {epochs}}}}}
  classification: {{trainer: {{max_epochs: {epochs}}}}}
  test: {{}}
  probe: {{}}
"""


def _plain(value: Any) -> str:
    """A value on one line, as JSON, which is YAML."""
    text = json.dumps(value, ensure_ascii=False)
    # what ends a line in YAML, or must not stand in it
    return re.sub("[\x7f-\x9f\u2028\u2029\ufeff]", lambda match: f"\\u{ord(match[0]):04x}", text)


def _in_a_line(text: str) -> str:
    """A text as it may stand in a comment, where a break of the line would end it."""
    return " ".join(printable(text).split())


def _model(choices: Choices) -> str:
    if choices.rehearses:
        return (
            f"  vlm: {choices.vlm:<20}# knows moving shapes only: a rehearsal, until a real model stands here\n"
            "  dtype: float32\n"
            "  # the upper half of its layers; without layers: all. A real model takes LoRA\n"
            f"  tuning: {_UPPER_HALF.format('FullFineTuning')}\n"
            "  optim: {lr: 1.0e-3}"
        )
    dtype = "bfloat16" if choices.on_gpu else "auto"
    return (
        f"  vlm: {_plain(choices.vlm)}\n"
        f"  dtype: {dtype:<18}# type of the weights\n"
        "  activation_checkpointing: true  # less memory for more time\n"
        "  # the upper half of the language model's layers; without layers: all\n"
        f"  tuning: {_UPPER_HALF.format('LoRA')}\n"
        "  optim: {lr: 1.0e-4}      # the first thing to vary"
    )


def _trainer(choices: Choices) -> dict[str, Any]:
    if choices.rehearses:
        return {"accelerator": "cpu", "devices": 1}
    common = {"accelerator": "auto", "devices": 1, "accumulate_grad_batches": 8, "gradient_clip_val": 1.0}
    return common | ({"precision": "bf16-mixed"} if choices.on_gpu else {})


def _prompts(choices: Choices) -> str:
    if choices.rehearses:
        about = f"\n    # for a real model: {_in_a_line(choices.about)}" if choices.about else ""
        return f"""\
  prompts:                 # in the words that the built-in model knows{about}
    label_question: "which event is it ?"
    rationale_question: "describe the video and answer which event is it ?"
    hinted_question: "the event is {{label}} . describe the video and say why ."
    conclusion: "so it is {{label}}"
    separator: " \""""
    begin = f"About the videos: {choices.about.strip().rstrip('.')}. " if choices.about.strip() else ""
    label = f"{begin}Which of these classes does the video show: {{labels}}? Answer with the class only."
    see = f"{begin}The video shows one of these classes: {{labels}}."
    end = "and end with a last line 'Classification: ' and the class."
    why = (
        f"{see} Describe in detail what happens in it, name the evidence for and against each class that comes into "
        f"question, {end}"
    )
    hint = (
        f"{see} It is known to show: {{label}}. Describe in detail what happens in it and which visible evidence makes "
        f"it that class, {end}"
    )
    return f"""\
  prompts:                 # say here what matters in your domain; criteria: holds a sentence for each class
    label_question: {_plain(label)}
    rationale_question: {_plain(why)}
    hinted_question: {_plain(hint)}
    conclusion: "Classification: {{label}}\""""
