"""Which weights are trained: LoRA in the language model, or whole parts; and how they are saved and handed on."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rbft.errors import ConfigError, StageError, warn
from rbft.files import read_json, replacing
from rbft.vlm.adapters import PeftModel, PreTrainedModel, has_adapters
from rbft.vlm.lora_targets import adapter_targets, expert_stacks, language_layers
from rbft.vlm.model_parts import Part, indexers, parts_of
from rbft.vlm.upper_layers import check_layers, first_of, names_above

Training = Literal["frozen", "train"]

_TRAINED = "trained.safetensors"


class Tuning(ABC):
    """Decides what of a model is trained."""

    @abstractmethod
    def apply(self, model: PreTrainedModel) -> PreTrainedModel | PeftModel:
        """Freeze and unfreeze in place; may wrap the model."""


@dataclass(frozen=True)
class LoRA(Tuning):
    """Low-rank adapters in the language model; the rest frozen unless asked (Hu et al., arXiv 2106.09685).

    Args:
        rank: Rank of each adapter.
        alpha: Scale; the adapter's output is multiplied by alpha / rank.
        dropout: dropout on the adapter's input.
        targets: Regular expression over the whole names of the linear layers that get an adapter; None: all of the
            language model.
        experts: Whether its stacks of experts get adapters, too. In each pass a whole stack is computed anew, which
            costs memory and time of the size of all experts.
        projector: Whether the projector is trained, in full.
        vision: Whether the vision tower is trained, in full.
        layers: Upper layers of the language model that get adapters: how many, or a fraction between 0 and 1 of them,
            rounded up; None: all.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.05
    targets: str | None = None
    experts: Training = "frozen"
    projector: Training = "frozen"
    vision: Training = "frozen"
    layers: int | float | None = None

    def __post_init__(self) -> None:
        check_layers(self.layers)
        _require_frozen_below(self.layers, self.projector, self.vision)
        try:
            re.compile(self.targets or "")
        except re.error as error:
            raise ConfigError(f"model.tuning.targets: {self.targets!r} is no regular expression: {error}") from error
        if self.rank < 1 or not 0 <= self.dropout < 1:
            raise ConfigError("model.tuning: rank must be at least 1, and dropout lies in [0, 1).")
        if self.alpha < 1:
            raise ConfigError(
                f"model.tuning.alpha: {self.alpha} must be at least 1; an adapter's output is multiplied by alpha / "
                "rank, so at 0 nothing would be trained."
            )

    def apply(self, model: PreTrainedModel) -> PeftModel:
        """Freeze the model and add adapters."""
        parts = parts_of(model)
        trained = _asked_for(parts, {"language": "frozen", "projector": self.projector, "vision": self.vision})
        first = first_of(model, self.layers)
        chosen = adapter_targets(model, self.targets, first)
        if both := [f"{name}.weight" for name in chosen.layers if f"{name}.weight" in trained]:
            raise ConfigError(
                f"model.tuning.targets: {self.targets!r} reaches {both[0]!r}, which is trained whole; leave "
                f"{parts[both[0]]} frozen or its layers out of the expression."
            )
        if self.targets is None:
            _say_what_is_left(model, chosen.layers, self.experts, first)
        experts = expert_stacks(model, first) if self.experts == "train" else []
        if self.experts == "train" and not experts:
            raise ConfigError("model.tuning.experts: this model has no stacks of experts; leave them frozen.")
        if experts and self.dropout:
            raise ConfigError("model.tuning.experts: their adapters cannot drop inputs; set model.tuning.dropout to 0.")
        from peft import LoraConfig, get_peft_model
        from peft.tuners.lora import Linear

        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=chosen.expression,
            target_parameters=experts or None,
            bias="none",
        )
        wrapped = get_peft_model(model, config)
        adapted = {name for name, module in model.named_modules() if isinstance(module, Linear)}
        if adapted != set(chosen.layers):
            odd = sorted(adapted ^ set(chosen.layers))[0]
            raise ConfigError(
                f"model.tuning.targets: PEFT reads {chosen.expression!r} otherwise for this family and disagrees about "
                f"{odd!r}; leave it out" + (", or train all layers (model.tuning.layers)." if first else ".")
            )
        for name, parameter in wrapped.named_parameters():
            if "lora_" not in name:
                bare = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
                parameter.requires_grad_(bare in trained)
        return wrapped


def _require_frozen_below(layers: float | None, projector: Training, vision: Training) -> None:
    """Refuse to train what is reached only through layers that nothing is to flow back through."""
    for part, training in (("projector", projector), ("vision", vision)):
        if layers is not None and training == "train":
            raise ConfigError(
                f"model.tuning.layers: gradients end at the first of these layers, and model.tuning.{part} is to be "
                "trained below it; leave one of the two out."
            )


def _say_what_is_left(model: PreTrainedModel, adapted: Collection[str], experts: Training, first: int) -> None:
    """Warn of linear layers that get no adapter though all from the layer `first` on were meant."""
    layers = language_layers(model, first)
    stacks = len(expert_stacks(model, first)) if experts == "frozen" else 0
    if len(adapted) < len(layers) or stacks:
        left = sorted({name.rpartition(".")[2] for name in set(layers) - set(adapted)})
        without = [f"the others are named {', '.join(left)}"] if left else []
        without += [f"its {stacks} stacks of experts get none (model.tuning.experts)"] if stacks else []
        warn(
            f"LoRA: {len(adapted)} of {len(layers)} linear layers of the language model get an adapter; "
            f"{'; '.join(without)}.",
        )


@dataclass(frozen=True)
class FullFineTuning(Tuning):
    """Whole parts of the model are trained, as the authors of RB-FT do.

    Args:
        language: Language model with its embeddings and head.
        projector: module that maps visual features into the language model.
        vision: Vision tower.
        layers: Upper layers of the language model that are trained: how many, or a fraction between 0 and 1 of them,
            rounded up; None: all. The last norm is trained with them, and the head, unless it shares its weights with
            the embeddings, which stay frozen.
    """

    language: Training = "train"
    projector: Training = "frozen"
    vision: Training = "frozen"
    layers: int | float | None = None

    def __post_init__(self) -> None:
        check_layers(self.layers)
        _require_frozen_below(self.layers, self.projector, self.vision)
        if self.layers is not None and self.language == "frozen":
            raise ConfigError(
                "model.tuning.layers: they are layers of the language model, which model.tuning.language freezes; "
                "leave one of the two out."
            )

    def apply(self, model: PreTrainedModel) -> PreTrainedModel:
        """Freeze and unfreeze the parts."""
        asked: dict[Part, Training] = {"language": self.language, "projector": self.projector, "vision": self.vision}
        # weights without a gradient would only cost memory, and processes would wait for their gradients
        idle = tuple(f"{module}." for module in indexers(model))
        trained = {name for name in _asked_for(parts_of(model), asked) if not name.startswith(idle)}
        if self.layers is not None:
            trained &= names_above(model, first_of(model, self.layers))
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in trained)
        return model


def _asked_for(parts: Mapping[str, Part], asked: Mapping[Part, Training]) -> set[str]:
    """Names of the weights in the parts that are to be trained whole.

    Raises:
        ConfigError: There is no such part in the model.
    """
    for part, training in asked.items():
        if training == "train" and part not in parts.values():
            raise ConfigError(f"model.tuning.{part}: this model has no weights of its own for it; leave it frozen.")
    return {name for name, part in parts.items() if asked[part] == "train"}


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that are trained, by name; a tied parameter once."""
    return {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}


def save_trained(model: PreTrainedModel | PeftModel, folder: Path, *, write: bool = True) -> None:
    """Write what was trained as safetensors: the adapter in PEFT's format, whole parameters beside it.

    Args:
        model: the model; if it is sharded over processes, all of them call this together.
        folder: folder to write to.
        write: whether this process writes; the other processes of a sharded model only give their parts.
    """
    if write:
        folder.mkdir(parents=True, exist_ok=True)
    if has_adapters(model):
        if write:
            model.peft_config["default"].inference_mode = True
            model.peft_config["default"].save_pretrained(str(folder))
            model.peft_config["default"].inference_mode = False
        # a head with an adapter would bring its own weights along
        from peft.utils import get_peft_model_state_dict

        state = get_peft_model_state_dict(model, save_embedding_layers=False)
        _save(state, folder / "adapter_model.safetensors", write)
    whole = {name: value for name, value in trained_state(model).items() if "lora_" not in name}
    if whole:
        _save(whole, folder / _TRAINED, write)


def _save(state: dict[str, Tensor], path: Path, write: bool) -> None:
    from torch.distributed.tensor import DTensor

    # one parameter after the other, so that no device holds more than one whole
    gathered = ((name, value.full_tensor() if isinstance(value, DTensor) else value) for name, value in state.items())
    kept = {name: value.detach().cpu().contiguous() for name, value in gathered if write}
    if write:
        with replacing(path, sum(value.nbytes for value in kept.values())) as temporary:
            save_file(kept, str(temporary))


def load_trained(model: PreTrainedModel | PeftModel, folder: Path) -> None:
    """Load what `save_trained` wrote into a model set up by the same tuning.

    Raises:
        StageError: Files are missing, unreadable, or made by another tuning; names the folder and the difference.
    """
    state: dict[str, Tensor] = {}
    for name in ("adapter_model.safetensors", _TRAINED):
        path = folder / name
        if path.is_file():
            try:
                content = load_file(str(path))
            except SafetensorError as error:
                raise StageError(f"{path} is damaged ({error}); run the stage that wrote it again.") from error
            state |= {_parameter_name(key): value for key, value in content.items()} if name != _TRAINED else content
    if not state:
        raise StageError(f"{folder} holds no trained weights; run the stage that writes them first.")
    own = dict(model.named_parameters())
    wanted = set(trained_state(model))
    if wanted != set(state):
        odd = sorted(wanted ^ set(state))[0]
        raise StageError(
            f"{folder} holds the weights of another tuning (model.tuning): {odd!r} is on one side only. "
            "Use the same model.tuning in all stages."
        )
    if has_adapters(model):
        _check_adapter(model, folder)
    for name, value in state.items():
        if own[name].shape != value.shape:
            raise StageError(
                f"{folder}: {name!r} has shape {tuple(value.shape)}, the model wants {tuple(own[name].shape)}; "
                "use the same model.vlm and model.tuning in all stages."
            )
    for name, value in state.items():
        own[name].data.copy_(value)


def _check_adapter(model: PeftModel, folder: Path) -> None:
    """Refuse an adapter of another scale: its weights fit, and would act more or less than they were trained to."""
    # read as plain data: peft's own loader asks the hub for a file that is not there
    path, adapter = folder / "adapter_config.json", model.peft_config["default"]
    saved = read_json(path) if path.is_file() else None
    if not isinstance(saved, dict):
        raise StageError(f"{path} is missing or no adapter's configuration; run the stage that wrote it again.")
    for key in ("r", "lora_alpha"):
        if saved.get(key) != getattr(adapter, key):
            raise StageError(
                f"{folder} was trained with {key} {saved.get(key)}, model.tuning says {getattr(adapter, key)}; "
                "use the same model.tuning in all stages."
            )


def _parameter_name(key: str) -> str:
    """PEFT's file format leaves the adapter's name out of parameter names."""
    return re.sub(r"\.(lora_[A-Za-z_]+)\.weight$", r".\1.default.weight", key)
