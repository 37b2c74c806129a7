"""The model card: what was trained on what, how well it does, how to use it, and what is not known of it."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from rbft import __version__
from rbft.errors import printable
from rbft.export.settings import calibration_of_program
from rbft.export.weights import Form, Parity
from rbft.files import parse_yaml, read_json
from rbft.predict.model import WarmModel
from rbft.predict.run_settings import Recorded
from rbft.runs.names import METRICS, SPLITS
from rbft.video.image_sequence import SUFFIXES
from rbft.vlm.loading import BUILTIN, model_source

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM takes for --max-lora-rank


def _md(text: object) -> str:
    """Text of data as itself: no markup, no link, no HTML, no line of its own."""
    plain = " ".join(printable(str(text)).split())
    return re.sub(r"([\\`*_{}\[\]<>!|~$])", r"\\\1", plain)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("rbft", "export"),
        autoescape=False,  # Markdown and Python: values of data go through the filter md
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["percent"] = lambda value: "not defined" if value is None else f"{value:.1%}"
    environment.filters["md"] = _md
    return environment


def script(description: dict[str, Any], dtype: str) -> str:
    """A program that scores a video with the export and without this package.

    Args:
        description: content of rbft.json.
        dtype: dtype of the weights.
    """
    frames = description["frames"]
    sized = frames["max_pixels"] is not None or frames["cells"] is not None
    template = _environment().get_template("score_video.py.j2")
    return template.render(frames=frames, suffixes=SUFFIXES, sized=sized, form=description["form"], dtype=dtype)


def licence_of(name: str, revision: str | None) -> str | None:
    """The base model's licence as its own card states it; None where that is not on this machine or does not say."""
    from huggingface_hub import try_to_load_from_cache

    if name in BUILTIN:
        return "apache-2.0"  # part of this package
    source = Path(model_source(name))
    card: Any = (
        source / "README.md" if source.is_dir() else try_to_load_from_cache(name, "README.md", revision=revision)
    )
    if not isinstance(card, (str, Path)) or not Path(card).is_file():
        return None
    match = re.match(r"\A---\r?\n(.*?)\r?\n---", Path(card).read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    try:
        content = parse_yaml(match.group(1)) if match else None
    except ValueError:
        return None
    stated = [content.get(key) for key in ("license_name", "license")] if isinstance(content, dict) else []
    return next((value for value in stated if isinstance(value, str) and value.strip()), None)


def serve_command(model: WarmModel, form: Form, frames: dict[str, Any], name: str) -> str:
    """How vLLM serves the export with as many frames of a video."""
    media = {"num_frames": frames["num_frames"]} if frames["num_frames"] else {"fps": frames["fps"], "num_frames": -1}
    args = [
        "--limit-mm-per-prompt",
        json.dumps({"video": 1, "image": 0}),
        "--media-io-kwargs",
        json.dumps({"video": media}),
    ]
    if form == "merged":
        return shlex.join(["vllm", "serve", ".", *args])
    rank = next(size for size in _RANKS if size >= min(model.module.tuning.rank, _RANKS[-1]))  # type: ignore[attr-defined]
    base = model_source(model.module.name)
    revision = ["--revision", model.module.revision] if model.module.revision else []
    return shlex.join(
        [
            "vllm",
            "serve",
            base,
            *revision,
            "--enable-lora",
            "--max-lora-rank",
            str(rank),
            "--lora-modules",
            f"{name}=.",
            *args,
        ]
    )


def _parity_words(form: Form, parity: Parity) -> str:
    """What comparing the weights with the run's gave, in sentences."""
    said = (
        f"On {parity.clips} clips no {parity.measure} of a class differs from the run's by more than "
        f"{parity.tolerance:g} in {parity.dtype}: "
    )
    if parity.merged is None:
        return f"{said}loaded again {parity.reloaded:.2g}."
    if form == "merged":
        return f"{said}merged {parity.merged:.2g}, loaded again {parity.reloaded:.2g}."
    apart = "" if parity.merged <= parity.tolerance else ", more than that; keep the adapter apart"
    merged = f"Merged into the base model it differs by {parity.merged:.2g}{apart}."
    return f"{said}loaded again {parity.reloaded:.2g}. {merged}"


def card(recorded: Recorded, model: WarmModel, description: dict[str, Any], parity: Parity, code: str) -> str:
    """README.md in the layout of the Hugging Face Hub.

    Args:
        recorded: The run.
        model: settings of the model; the weights may be gone.
        description: content of rbft.json.
        parity: result of the comparison.
        code: code of the program that scores a video.
    """
    run, form = recorded.run, description["form"]
    metrics = read_json(run / METRICS if (run / METRICS).is_file() else recorded.folder / METRICS)
    splits = read_json(run / SPLITS) if (run / SPLITS).is_file() else {}
    counts = {side: len(splits[side]) if side in splits else "not recorded" for side in ("train", "val")}
    name, revision, frames = model.module.name, model.module.revision, description["frames"]
    local = Path(model_source(name)).is_dir()
    base = Path(name).name if local and name not in BUILTIN else name
    licence = licence_of(name, revision)
    title = f"{recorded.experiment.name}-{recorded.experiment.variant}"
    how_many = (
        f"{frames['num_frames']} of each video"
        if frames["num_frames"]
        else (f"{frames['fps']:g} a second, at most {frames['max_frames']}")
    )
    size = f", at most {frames['max_pixels']} pixels each" if frames["max_pixels"] else ""
    size += f", at most {frames['max_visual_tokens']} visual tokens a clip" if frames["max_visual_tokens"] else ""
    body = (
        _environment()
        .get_template("card.md.j2")
        .render(
            version=__version__,
            title=title,
            labels=recorded.labels.names,
            base=base,
            revision=revision,
            method=recorded.experiment.method,
            stages=[stage.name for stage in recorded.experiment.stages],
            form=form,
            form_words="LoRA adapter (peft), which needs the base model" if form == "adapter" else "all weights",
            train_videos=counts["train"],
            val_videos=counts["val"],
            shots=model.data.shots,
            seed=model.seed,
            frame_words=f"{how_many}, the middle of each of equal parts{size}",
            metrics={"test/ece_calibrated": None, **metrics},
            calibration=recorded.calibration.describe(),
            program_calibration=calibration_of_program(recorded).describe(),
            script=code,
            mode=description["answering"]["mode"],
            serve=serve_command(model, form, frames, title),
            frames=frames,
            wraps_frames=model.processor.wraps_frames,
            parity_words=_parity_words(form, parity),
            licence=licence,
            # whoever reads a card has videos of their own
            cautions=recorded.cautions(own_videos=True),
        )
    )
    return f"---\n{_front_matter(recorded, model, metrics, form, title, licence, local=local)}---\n\n{body}"


def _front_matter(
    recorded: Recorded,
    model: WarmModel,
    metrics: dict[str, Any],
    form: Form,
    title: str,
    licence: str | None,
    *,
    local: bool,
) -> str:
    """What the hub reads of a card."""
    low, high = metrics["test/accuracy_ci95"]
    accuracy = {
        "type": "accuracy",
        "value": round(metrics["test/accuracy"], 4),
        "name": f"accuracy (95% interval {low:.1%} to {high:.1%})",
    }
    dataset = {"name": recorded.experiment.name, "type": recorded.experiment.name}
    results = [{"task": {"type": "video-classification"}, "dataset": dataset, "metrics": [accuracy]}]
    content: dict[str, Any] = {
        "library_name": "peft" if form == "adapter" else "transformers",
        "pipeline_tag": "video-text-to-text",
        "tags": ["video-classification", "rbft"],
        "license": licence or "unknown",
        "model-index": [{"name": title, "results": results}],
    }
    if not local:
        content["base_model"] = model.module.name
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
