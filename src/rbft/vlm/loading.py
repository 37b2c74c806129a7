"""From a model's name to its files: built in, a local folder, or a hub id; refused early if it takes no video."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from rbft.errors import ModelError, warn
from rbft.files import expanded, file_digest
from rbft.vlm.hub import require_hub
from rbft.vlm.quantize import Quantize, quantized
from rbft.vlm.unsupported import NO_PART, unsupported

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

DType = Literal["auto", "float32", "bfloat16", "float16"]
# implementations that are part of transformers and torch
_ATTENTION = (None, "eager", "sdpa", "flex_attention")
_EXPERTS = (None, "eager", "batched_mm", "grouped_mm")
_WHOLE_FILE_BYTES = 64 * 1024 * 1024
BUILTIN = {"builtin/tiny": Path(__file__).parent / "tiny" / "checkpoint"}


def model_source(vlm: str) -> str:
    """The folder or hub id after a name.

    Raises:
        ModelError: An unknown built-in name, or a path to something that is no model folder.
    """
    if vlm.startswith("builtin/"):
        if vlm not in BUILTIN:
            raise ModelError(f"model.vlm: {vlm!r} is unknown; built in: {', '.join(BUILTIN)}.")
        return str(BUILTIN[vlm])
    path = expanded(vlm)
    if path.exists():
        if not (path / "config.json").is_file():
            raise ModelError(f"model.vlm: {vlm} holds no config.json; name the folder that save_pretrained wrote.")
        return str(path)
    if vlm.startswith((".", "/", "~")) or vlm.count("/") > 1:
        raise ModelError(f"model.vlm: no folder {vlm}.")
    return vlm


def model_fingerprint(vlm: str) -> str:
    """Of a local model's files: small files by content, weights by name and size. Hub ids: their name."""
    folder = Path(model_source(vlm))
    return folder_fingerprint(folder) if folder.is_dir() else f"hub:{vlm}"


def folder_fingerprint(folder: Path) -> str:
    """Of the files in a model's folder: small ones by content, weights by name and size."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(folder.iterdir()):
        if path.is_file():
            size = path.stat().st_size
            # hashing tens of gigabytes at every start would cost more than the rare swap it could show
            content = file_digest(path) if size <= _WHOLE_FILE_BYTES else ""
            digest.update(f"{path.name}\0{size}\0{content}\0".encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class Source:
    """Where a model's files are read from, and how messages speak of it.

    Args:
        name: what the setting names.
        place: local folder, or hub id.
        key: setting that names it.
        advice: sentence about what else can be named.
        options: further arguments of `from_pretrained`: where files may come from.
    """

    name: str
    place: str
    key: str = "model.vlm"
    advice: str = "Give a local folder, `builtin/tiny`, or a hub id that this machine can reach or has in its cache."
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def what(self) -> str:
        """The beginning of a message."""
        return f"{self.key}: {self.name!r}"

    def explain(self, error: Exception) -> ModelError:
        """What the libraries tripped over, as an error that says what to do."""
        first = str(error).strip().split("\n")[0]
        if isinstance(error, ImportError):  # a package that this model alone needs; transformers names it
            return ModelError(f"{self.what} cannot be loaded: {first}")
        return ModelError(f"{self.what} cannot be loaded: {first} {self.advice}")


def _source(vlm: str, revision: str | None) -> Source:
    return Source(vlm, model_source(vlm), options={"revision": revision})


def load_config(vlm: str, revision: str | None) -> PretrainedConfig:
    """The model's configuration, without the names of code that it would have fetched.

    Raises:
        ModelError: It cannot be had.
    """
    source = model_source(vlm)
    if not Path(source).is_dir():
        require_hub(source, revision)
    return read_config(_source(vlm, revision))


def read_config(source: Source) -> PretrainedConfig:
    """A configuration as its files state it, without the names of code that it would have fetched.

    Raises:
        ModelError: It cannot be had.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(source.place, trust_remote_code=False, **source.options)
        strange = sorted(set(_take_no_kernels(config)))
    except Exception as error:  # whatever the libraries trip over in these files
        raise source.explain(error) from error
    if strange:
        warn(
            f"{source.key}: config.json of {source.name!r} asks for the kernels {', '.join(map(repr, strange))}. They "
            "would be fetched code, so it is loaded as if it named none. If you know and trust them, or have them "
            "installed, name them yourself as model.attn_implementation.",
        )
    return config


def _take_no_kernels(config: PretrainedConfig) -> Iterator[str]:
    """Leave the choice of kernels to transformers wherever a model's files name others than it has built in.

    With the package `kernels`, a name such as `owner/repository`, or that of a library which is not installed, is
    fetched from the hub and run.

    Args:
        config: config of the model or of a part of it; changed in place.

    Yields:
        The names that are not taken.
    """
    for part in (getattr(config, name, None) for name in config.sub_configs):
        if part is not None:
            yield from _take_no_kernels(part)
    for key, built_in in (("_attn_implementation", _ATTENTION), ("_experts_implementation", _EXPERTS)):
        named = getattr(config, key)
        if named not in built_in:
            # the parts have been looked at; the property would set them, too
            setattr(config, f"{key}_internal", None)
            yield str(named)


def weights_dtype(config: PretrainedConfig, dtype: DType) -> torch.dtype:
    """The type that `load_model` gives weights.

    Args:
        config: The model's.
        dtype: see `load_model`.
    """
    import torch

    if dtype != "auto":
        return cast("torch.dtype", getattr(torch, dtype))
    recorded = getattr(config, "dtype", None) or getattr(config.get_text_config(), "dtype", None)
    return torch.float32 if recorded is None else recorded


def bare_model(config: PretrainedConfig, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """The model without its weights, which take no memory.

    Args:
        config: The model's.
        dtype: dtype of the weights; None: as the configuration says.
    """
    import torch
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    return model


def load_processor(vlm: str, revision: str | None) -> Any:
    """The model's processor, checked to take video; reads no weights.

    Raises:
        ModelError: It cannot be had, or the model takes no video.
    """
    from transformers import AutoProcessor

    config = load_config(vlm, revision)
    what = f"model.vlm: {vlm!r} is a {config.model_type!r} model"
    choose = (
        "Choose a video vision-language model, for example Qwen2.5-VL, Qwen3-VL, SmolVLM2, LLaVA-OneVision or InternVL."
    )
    if (why := unsupported(config)) is not None:
        raise ModelError(f"{what}, which {why}. {choose}")
    try:
        processor = AutoProcessor.from_pretrained(model_source(vlm), revision=revision, trust_remote_code=False)
    except Exception as error:  # of a damaged tokenizer.json a plain Exception
        raise _source(vlm, revision).explain(error) from error
    if getattr(processor, "video_processor", None) is None:
        raise ModelError(f"{what}, which {NO_PART}. {choose}")
    if not getattr(processor, "chat_template", None):
        raise ModelError(f"model.vlm: {vlm!r} has no chat template; choose an instruction-tuned model.")
    return processor


def _revision(revision: str | None) -> dict[str, Any]:
    """Only where one is stated: this loader takes no None."""
    return {} if revision is None else {"revision": revision}


def load_end_ids(vlm: str, revision: str | None, config: Any, tokenizer: Any) -> tuple[int, ...]:
    """Tokens at which an answer ends: the generation config's, else the configuration's, else the tokenizer's.

    Raises:
        ModelError: None of the three names one.
    """
    from transformers import GenerationConfig

    ends: Any = None
    try:
        ends = GenerationConfig.from_pretrained(model_source(vlm), **_revision(revision)).eos_token_id
    except OSError:
        # not every checkpoint has generation_config.json; its configuration then says the same
        ends = None
    for other in (
        getattr(config, "eos_token_id", None),
        config.get_text_config().eos_token_id,
        tokenizer.eos_token_id,
    ):
        ends = other if ends is None else ends
    if ends is None:
        raise ModelError(f"model.vlm: {vlm!r} names no end-of-text token (eos_token_id), so no answer could end.")
    return tuple(ends) if isinstance(ends, (list, tuple)) else (int(ends),)


def load_model(
    vlm: str, revision: str | None, dtype: DType, attn_implementation: str | None, quantize: Quantize = "none"
) -> PreTrainedModel:
    """Load the weights; remote code is never run.

    Args:
        vlm: Built-in name, local folder or hub id.
        revision: revision of a hub id.
        dtype: dtype of the weights that are not quantised.
        attn_implementation: attention of transformers; None lets it choose.
        quantize: how the language model is quantised; see `rbft.vlm.quantize`.

    Raises:
        ModelError: They cannot be had, the files are damaged, or some weights are missing from them.
    """
    from transformers import AutoModelForImageTextToText

    options: dict[str, Any] = {"dtype": dtype, "config": load_config(vlm, revision)}
    if attn_implementation is not None:
        options["attn_implementation"] = attn_implementation
    if quantize != "none":
        options["quantization_config"] = quantized(bare_model(options["config"]))
    return read_weights(AutoModelForImageTextToText, _source(vlm, revision), **options)[0]


def read_weights(
    kind: Any, source: Source, heads: tuple[str, ...] = (), **options: Any
) -> tuple[PreTrainedModel, list[str]]:
    """Weights from safetensors files, each of them found and of the right shape; remote code is never run.

    Args:
        kind: class of transformers that has `from_pretrained`.
        source: where the files are.
        heads: beginnings of the names of weights in the files that belong to heads which it has not.
        options: arguments of `from_pretrained`.

    Returns:
        The model, and the names of what else is in the files that it has no place for.

    Raises:
        ModelError: They cannot be had, the files are damaged, or some weights are missing from them.
    """
    from safetensors import SafetensorError

    # mismatched sizes are reported below by name; without it they end in an error that looks like a lack of memory
    fixed: dict[str, Any] = {"trust_remote_code": False, "use_safetensors": True, "ignore_mismatched_sizes": True}
    try:
        loaded: Any = kind.from_pretrained(source.place, output_loading_info=True, **source.options, **options, **fixed)
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        raise source.explain(error) from error
    model, info = loaded
    if wrong := sorted(key[0] if isinstance(key, tuple) else key for key in info["mismatched_keys"]):
        raise ModelError(
            f"{source.what} cannot be loaded: the weight {wrong[0]!r} has another shape in the files than its "
            f"configuration says ({len(wrong)} weights in all); the files do not belong together."
        )
    left = sorted(name for name in info["unexpected_keys"] if not name.startswith(heads))
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            f"{source.what} lacks {len(missing)} weights, first {missing[0]!r}; the files are incomplete."
            + _left_over(left)
        )
    return cast("PreTrainedModel", model), left


def _left_over(names: Sequence[str]) -> str:
    """What the files have instead: weights under other names than this version of transformers reads."""
    if not names:
        return ""
    return (
        f" They hold {len(names)} weights under names that this version of transformers does not read, first "
        f"{names[0]!r}: load and save the model with a version that does, or take another one."
    )
