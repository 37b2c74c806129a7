"""The weights of a run as transformers and peft lay them out, and the gate that they must pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from peft import PeftModel
from torch import Tensor

from rbft.errors import ConfigError, ModelError
from rbft.files import read_json, write_json
from rbft.predict.model import WarmModel
from rbft.video.clip import Clip
from rbft.vlm.loading import bare_model, load_config, model_source
from rbft.vlm.model import VLM
from rbft.vlm.processing import ClipProcessor
from rbft.vlm.quantize import quantized
from rbft.vlm.tuning import LoRA, save_trained

Form = Literal["adapter", "merged"]

FLOAT32_TOLERANCE = 1e-3
"""Most that a label's log-likelihood may differ by in nats, in float32."""
HALF_TOLERANCE = 2e-2
"""Most that a label's probability may differ by where weights are rounded to half precision."""
_SHARD = "5GB"


def choose_form(model: WarmModel, wanted: str | None) -> Form:
    """The form that is asked for, or the one that fits: an adapter where nothing but an adapter was trained.

    Raises:
        ConfigError: The run has no such form.
    """
    tuning = model.module.tuning
    lora = isinstance(tuning, LoRA) and model.trained
    whole = not isinstance(tuning, LoRA) or "train" in (tuning.projector, tuning.vision)
    if wanted == "adapter" and (not lora or whole):
        what = "trained whole parts of the model" if model.trained else "trained nothing"
        raise ConfigError(f"--form adapter: the run {what}, which no adapter holds; export it with --form merged.")
    if wanted == "merged" and model.module.quantize != "none":
        raise ConfigError(
            "--form merged: merging would change the quantised base model (model.quantize: "
            f"{model.module.quantize}); export the run with --form adapter."
        )
    return cast("Form", wanted) if wanted is not None else "adapter" if lora and not whole else "merged"


def label_scores(vlm: VLM, processor: ClipProcessor, model: WarmModel, clips: Sequence[Clip]) -> Tensor:
    """Log-likelihood of every label after every clip (N, C), as the run scores them without a prior.

    Args:
        vlm: The weights to score with.
        processor: The processor to feed them by.
        model: The run, for its prompts and settings.
        clips: clips as the run decodes them.
    """
    prompt, texts = model.book.label_prompt(), model.book.texts
    labels = tuple(processor.target_ids(prompt, text) for text in texts)
    scorer = replace(model.module.scoring.scorer, label_ids=labels, prior=None)
    size, parts = model.data.eval_batch_size, []
    for start in range(0, len(clips), size):
        rows = [
            processor.prompt_inputs(prompt, clip, sized=model.data.spec.sized) for clip in clips[start : start + size]
        ]
        parts.append(scorer(vlm, [row.to(model.device) for row in rows]).double().cpu())
    return torch.cat(parts)


@dataclass(frozen=True)
class Parity:
    """How far the exported weights are from the run's.

    Args:
        clips: Compared.
        dtype: dtype of the weights.
        measure: what differs: `log-likelihood` in nats, or `probability`.
        tolerance: largest allowed difference.
        merged: largest difference after merging; None where nothing was merged.
        reloaded: largest difference after loading the export as anybody would.
        answered: Videos that the program of the export answered as the run does; it reads all clips to the pixel.
    """

    clips: int
    dtype: str
    measure: str
    tolerance: float
    merged: float | None
    reloaded: float
    answered: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self)


def write_weights(model: WarmModel, form: Form, clips: Sequence[Clip], folder: Path) -> tuple[Parity, Tensor]:
    """Write weights, processor and generation config, load them again, and compare label scores.

    The model of the run is used up: it is merged, and gone afterwards.

    Args:
        model: The run.
        form: form of the weights.
        clips: To compare on.
        folder: folder to write to.

    Returns:
        What comparing gave, and the label scores (clips, classes) of the run.

    Raises:
        ModelError: A score differs by more than rounding explains.
    """
    of_run = label_scores(model.vlm, model.processor, model, clips)
    tuned = model.vlm.model
    holds_adapter = choose_form(model, None) == "adapter"
    dtype = str(model.vlm.base.dtype).removeprefix("torch.")
    model.vlm.base.generation_config.save_pretrained(str(folder))
    if form == "adapter":
        _write_adapter(model, folder)
    of_merged = None
    if isinstance(tuned, PeftModel) and model.module.quantize == "none":
        tuned = cast("Any", tuned).merge_and_unload()
        merged = VLM(tuned, model.processor.pad_id, model.processor.end_ids).eval()
        of_merged = label_scores(merged, model.processor, model, clips)
    if form == "merged":
        cast("Any", tuned).save_pretrained(str(folder), max_shard_size=_SHARD)
    model.processor.save(str(folder))
    del tuned
    model.release()
    processor = model.processor.saved_in(str(folder))
    of_reloaded = label_scores(_reload(model, form, folder, dtype), processor, model, clips)
    exact = dtype == "float32"

    def distance(scores: Tensor) -> float:
        exported, other = (scores, of_run) if exact else (scores.softmax(-1), of_run.softmax(-1))
        return float((exported - other).abs().max())

    parity = Parity(
        clips=len(clips),
        dtype=dtype,
        measure="log-likelihood" if exact else "probability",
        tolerance=FLOAT32_TOLERANCE if exact else HALF_TOLERANCE,
        merged=None if of_merged is None else distance(of_merged),
        reloaded=distance(of_reloaded),
    )
    # an adapter is loaded as it is; what merging would round is told on its card
    checked = {"merged": parity.merged if form == "merged" else None, "loaded again": parity.reloaded}
    for what, value in checked.items():
        # written so that a difference that is not a number fails as well
        if value is not None and not value <= parity.tolerance:
            apart = " Merging rounds weights; --form adapter leaves them as they were trained."
            raise ModelError(
                f"the export was not made: the weights, {what}, answer differently from the run: a "
                f"{parity.measure} of a label differs by {value:.3g} on {len(clips)} clips, more than "
                f"{parity.tolerance:g}." + (apart if what == "merged" and holds_adapter else "")
            )
    return parity, of_run


def _write_adapter(model: WarmModel, folder: Path) -> None:
    save_trained(model.vlm.model, folder)
    path = folder / "adapter_config.json"
    source = model_source(model.module.name)
    base = str(Path(source).resolve()) if Path(source).exists() else source
    write_json(path, read_json(path) | {"base_model_name_or_path": base, "revision": model.module.revision})


def _reload(model: WarmModel, form: Form, folder: Path, dtype: str) -> VLM:
    """What anybody gets who loads the folder with transformers."""
    from transformers import AutoModelForImageTextToText

    module = model.module
    # an adapter's weights are loaded by the base model's own configuration, which may name code that is fetched
    config = load_config(module.name, module.revision) if form == "adapter" else load_config(str(folder), None)
    options: dict[str, Any] = {"config": config, "dtype": dtype, "trust_remote_code": False, "use_safetensors": True}
    if module.attention is not None:
        options["attn_implementation"] = module.attention
    if form == "adapter" and module.quantize != "none":
        options["quantization_config"] = quantized(bare_model(config))
    loaded: Any = AutoModelForImageTextToText.from_pretrained(str(folder), **options)
    vlm = VLM(loaded, model.processor.pad_id, model.processor.end_ids).eval()
    # weights in 4 bits are on the device already, and cannot be moved
    return vlm if module.quantize != "none" else vlm.to(model.device)
