"""What a model costs in memory and arithmetic, from its configuration alone: no weights are loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from rbft.vlm.abilities import sees_every_token
from rbft.vlm.label_scorer import LOGITS_AT_ONCE
from rbft.vlm.loading import DType, bare_model, load_config, weights_dtype
from rbft.vlm.master_weights import hold_in_float32
from rbft.vlm.model_parts import Part, parts_of
from rbft.vlm.tower import PRODUCTS, Tower, UnknownCostError, is_rotary, vision_size
from rbft.vlm.tuning import LoRA, Tuning
from rbft.vlm.upper_layers import first_trained, layers_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class ModelSize:
    """A model as it will be loaded and set up for training.

    Args:
        language: Its language model.
        vision: Its vision tower.
        projector: Parameters of what stands between the two.
        vocabulary: Tokens it knows.
        patch_values: Numbers that the vision tower makes one token of.
        parameters: parameters of the whole model, adapters included.
        weight_bytes: bytes of the weights, as they are loaded.
        trained_parameters: Those that are trained.
        trained_bytes: bytes of the trained weights in training, which is in float32.
        master_bytes: What they take more than as they are loaded.
        half_copies: Bytes of copies in half precision that a training step makes of weights held in float32.
        trained_tensors: How many tensors they are.
        trained_parts: Where they are.
        trained_layers: Layers of the language model that gradients flow back through.
        element: Bytes of a number that products of matrices are computed in.
        stream: Bytes of a number between the layers of the language model in a training step.
        adapted: Input features of all adapted linear layers together.
        dropout: Whether adapters drop inputs.
        eager: Whether attention is computed step by step, with all its scores in memory.
        takes_tree_masks: Whether all labels can stand in one row after a prompt.
    """

    language: Tower
    vision: Tower
    projector: int
    vocabulary: int
    patch_values: int
    parameters: int
    weight_bytes: int
    trained_parameters: int
    trained_bytes: int
    master_bytes: int
    half_copies: int
    trained_tensors: int
    trained_parts: frozenset[Part]
    trained_layers: int
    element: int
    stream: int
    adapted: int
    widest_adapter: int
    dropout: bool
    eager: bool
    takes_tree_masks: bool

    @property
    def vision_trained(self) -> bool:
        """Whether gradients flow through anything that turns pixels into features."""
        return bool(self.trained_parts & {"vision", "projector"})

    @property
    def whole_language(self) -> bool:
        """Whether the language model's own weights are trained, not adapters in it."""
        return "language" in self.trained_parts and not self.adapted

    @property
    def training_state(self) -> int:
        """Bytes of gradients and of AdamW's two moments; all are of the weights' own type."""
        return 3 * self.trained_bytes

    # -- memory

    def training_activations(self, rows: int, row: int, supervised: int, *, checkpointing: bool) -> int:
        """Most bytes of activations of the language model in a training step, logits included.

        What the layers that gradients flow through keep, and then the larger of the logits with their gradients and
        one layer's gradients, which are about as large as what it kept. With checkpointing each layer but the last
        keeps its input, and one at a time computes the rest anew.

        Args:
            rows: rows of a micro-batch.
            row: Tokens of each, padding included.
            supervised: Tokens of each that the loss is about.
            checkpointing: Whether activations are computed anew in the backward pass.
        """
        tower = self.language
        adapters = self.adapted * (4 + (1 if self.dropout else 0)) // self.trained_layers
        scores = row if self.eager else 0
        layer = tower.kept(self.element, self.whole_language, scores, stream=self.stream) + adapters
        last = tower.kept(self.element, self.whole_language, scores, forward=False, stream=self.stream)
        ends = 3 * tower.width * self.stream  # embeddings without and with features, and the last norm
        kept = (self.trained_layers - 1) * (tower.width * self.stream if checkpointing else layer) + last + ends
        working = 2 * layer if checkpointing else layer
        half = self.element if self.element < 4 else 0
        logits = rows * supervised * self.vocabulary * (3 * 4 + half)  # log-softmax and two gradients
        return rows * row * kept + max(logits, rows * row * working)

    def reading_activations(self, rows: int, row: int) -> int:
        """Most bytes of activations of the language model while rows are read without a backward pass: of one layer.

        An adapter adds to a layer's result in float32, and takes its inputs so: there are the result, what is added
        before and after it is scaled, and the sum, while the other branch of a gated feed-forward part waits.
        """
        tower, converted = self.language, 4 if self.element < 4 else 0
        layer = tower.kept(self.element, False, row if self.eager else 0)
        results = (2 if tower.gated else 1) * self.element + 8 + converted
        adapter = self.widest_adapter * results + (converted * tower.width if self.widest_adapter else 0)
        return rows * row * (max(layer, adapter) + 2 * tower.width * self.element)

    def vision_activations(self, pixel_values: int, clips: int, *, training: bool, checkpointing: bool = False) -> int:
        """Most bytes of pixels and activations of the vision tower for a batch of equal clips.

        Clips are encoded one by one, so that a frozen tower holds one layer of one clip at a time.
        """
        patches = pixel_values // self.patch_values
        pixels = 4 * clips * pixel_values
        if not (training and "vision" in self.trained_parts):
            return pixels + self.element * pixel_values + patches * self.vision.encoding(self.element)
        # trained weights are held in float32
        layer = self.vision.kept(self.element, True, stream=4)
        kept = 4 * self.vision.width if checkpointing else layer
        pixels += self.element * pixel_values * (clips if self.element < 4 else 1)  # converted
        return pixels + patches * (clips * self.vision.layers * kept + (2 if checkpointing else 1) * layer)

    def features(self, visual_tokens: int) -> int:
        """Bytes of encoded clips, once as features and once among the embeddings."""
        return 2 * visual_tokens * self.language.width * self.element

    def logits(self, positions: int) -> int:
        """Bytes of logits at some positions, as computed and in float32."""
        return positions * self.vocabulary * (self.element + 4)

    def scored_logits(self, positions: int) -> int:
        """Bytes of logits at many positions, of which some at a time are summed up in float32."""
        summed = 4 * min(positions, LOGITS_AT_ONCE) * self.vocabulary * (2 if self.element < 4 else 1)
        return positions * self.vocabulary * self.element + summed

    def kv_cache(self, tokens: int) -> int:
        """Bytes of keys and values of `tokens`, of all rows together."""
        return tokens * self.language.layers * 2 * self.language.key * self.element

    # -- arithmetic

    def read_flops(self, row: int, kept: int) -> float:
        """Floating-point operations of a forward pass over a row, without the head.

        Two for each weight and token (Kaplan et al., arXiv 2001.08361, section 2.1), and causal attention.

        Args:
            row: Tokens of the row.
            kept: Those whose logits are asked for; the last layer computes for all others keys and values alone.
        """
        whole = row * (2.0 * self.language.linear + 2.0 * self.language.layers * row * self.language.query)
        return whole - 2.0 * (row - kept) * self.language.own

    def lower_flops(self, row: int) -> float:
        """Of `read_flops`, what the layers take that no gradient flows back through."""
        below = 1 - self.trained_layers / self.language.layers
        return below * self.read_flops(row, row)

    def vision_flops(self, pixel_values: int, visual_tokens: int) -> float:
        """Of encoding a clip, whose frames each attend to themselves."""
        patches = pixel_values // self.patch_values
        return 2.0 * (patches * self.vision.linear + visual_tokens * self.projector)

    def head_flops(self, positions: int) -> float:
        """Of the language-model head at some positions."""
        return 2.0 * positions * self.vocabulary * self.language.width


def model_size(
    vlm: str,
    revision: str | None,
    dtype: DType,
    attn_implementation: str | None,
    tuning: Tuning,
    *,
    mixed: bool = False,
) -> ModelSize:
    """Build a model without memory for its weights, set it up for training, and count.

    Args:
        vlm: Built-in name, local folder or hub id.
        revision: revision of a hub id.
        dtype: dtype of the weights.
        attn_implementation: attention of transformers; None is its own choice.
        tuning: What of it is trained.
        mixed: Whether it computes in half precision beside weights of another (Lightning's mixed precision).

    Raises:
        UnknownCostError: Its configuration is unlike that of the families this knows.
        ModelError: Its configuration cannot be had.
        ConfigError: `tuning` does not go with it.
    """
    config: Any = load_config(vlm, revision)
    text = config.get_text_config()
    number = weights_dtype(config, dtype)
    model: Any = bare_model(config, number)
    with torch.device("meta"):
        linear = _linear_parameters(model)
        tuned: Any = tuning.apply(model)
        loaded_bytes = _bytes(dict(tuned.named_parameters()))
        half = hold_in_float32(tuned) is not None or mixed
    parameters = dict(tuned.named_parameters())
    trained = {name: value for name, value in parameters.items() if value.requires_grad}
    parts = parts_of(tuned)
    trained_parts = frozenset(parts[name] for name in trained)
    reached: set[Part] = {"language", *(("vision", "projector") if trained_parts & {"vision", "projector"} else ())}
    gated = any(part == "language" and re.search(r"\.gate_(up_)?proj\.", name) for name, part in parts.items())
    try:
        language = _language(text, linear["language"], gated, is_rotary(model.get_decoder()))
    except AttributeError as error:
        raise UnknownCostError(f"the cost of a {config.model_type!r} model is not known: {error}.") from error
    vision, patch_values = vision_size(model, linear["vision"])
    return ModelSize(
        language=language,
        vision=vision,
        projector=linear["projector"],
        vocabulary=text.vocab_size,
        patch_values=patch_values,
        parameters=sum(value.numel() for value in parameters.values()),
        weight_bytes=loaded_bytes,
        trained_parameters=sum(value.numel() for value in trained.values()),
        trained_bytes=_bytes(trained),
        master_bytes=_bytes(parameters) - loaded_bytes,
        half_copies=_half_copies(tuned, parts, reached) if half else 0,
        trained_tensors=len(trained),
        trained_parts=trained_parts,
        trained_layers=len(layers_of(model)) - first_trained(tuned),
        element=2 if mixed else number.itemsize,
        stream=model.dtype.itemsize,
        adapted=sum(module.in_features for name, module in tuned.named_modules() if name.endswith("lora_A.default")),
        widest_adapter=max(
            (module.out_features for name, module in tuned.named_modules() if name.endswith("lora_B.default")),
            default=0,
        ),
        dropout=isinstance(tuning, LoRA) and tuning.dropout > 0,
        eager=attn_implementation == "eager",
        takes_tree_masks=sees_every_token(config) and attn_implementation in (None, "sdpa", "eager"),
    )


def _language(text: Any, linear: int, gated: bool, rotary: bool) -> Tower:
    heads = text.num_attention_heads
    size = getattr(text, "head_dim", None) or text.hidden_size // heads
    key = size * (getattr(text, "num_key_value_heads", None) or heads)
    width, inner = text.hidden_size, text.intermediate_size
    return Tower(text.num_hidden_layers, heads, width, inner, size * heads, key, gated, linear, rotary)


def _bytes(parameters: dict[str, nn.Parameter]) -> int:
    return sum(value.numel() * value.element_size() for value in parameters.values())


def _half_copies(model: nn.Module, parts: Mapping[str, Part], reached: set[Part]) -> int:
    """Bytes of the copies that autocast keeps for the backward pass: of products' weights that are in float32."""
    return sum(
        2 * module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, PRODUCTS) and module.weight.dtype == torch.float32 and parts[f"{name}.weight"] in reached
    )


def _linear_parameters(model: PreTrainedModel) -> dict[Part, int]:
    """Weights that tokens are multiplied with, by part of the model; the head is counted where it is used."""
    counts: dict[Part, int] = {"language": 0, "projector": 0, "vision": 0}
    head, parts = model.get_output_embeddings(), parts_of(model)
    for name, module in model.named_modules():
        if isinstance(module, PRODUCTS) and module is not head:
            counts[parts[f"{name}.weight"]] += module.weight.numel()
    return counts
