"""Sizes of a stack of transformer layers, and of a vision tower as its own modules say them."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from torch import nn

from rbft.errors import ModelError
from rbft.vlm.model_parts import vision_towers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PRODUCTS = (nn.Linear, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Tower:
    """A stack of equal transformer layers.

    Args:
        layers: How many.
        heads: Query heads.
        width: Features of a token between layers.
        inner: Features of a token inside the feed-forward part.
        query: Features of all query heads together.
        key: Features of all key heads together; values have as many.
        gated: Whether the feed-forward part multiplies two branches.
        linear: Parameters that each token is multiplied with, embeddings and head left out.
        rotary: Whether queries and keys are turned by their positions (Su et al., arXiv 2104.09864).
    """

    layers: int
    heads: int
    width: int
    inner: int
    query: int
    key: int
    gated: bool
    linear: int
    rotary: bool

    @property
    def own(self) -> float:
        """Parameters of one layer that serve no token but the one they are multiplied with: all but keys and values."""
        return self.linear / self.layers - 2 * self.width * self.key

    def kept(
        self, element: int, trained: bool, scores: int = 0, *, forward: bool = True, stream: int | None = None
    ) -> int:
        """Bytes that one layer keeps of each token for its backward pass, without any adapters'.

        Counted over the layer as transformers computes it: two norms (in float32 whatever the weights are), queries,
        keys and values with keys and values repeated for all query heads, the attention's result twice, and the
        feed-forward part's branches. Trained linear layers keep their inputs too. After Korthikanti et al.
        (arXiv 2205.05198, section 4) with fused attention, which keeps no score.

        Args:
            element: Bytes of a number.
            trained: Whether the layer's own weights are trained.
            scores: Tokens of a row where attention is not fused (`eager`) and keeps a score for each; else 0.
            forward: Whether the feed-forward part is computed, which in the last layer it is for few tokens only.
            stream: Bytes of a number between layers; None: `element`. Weights in float32 make it float32, though
                products are computed in half precision.
        """
        kept_scores = self.heads * scores * (element + 4)
        norms = 2 * self.width * ((stream or element) + (4 if element < 4 else 0))
        repeated = 2 * self.query if self.key < self.query else 0
        attention = (3 * self.query + 2 * self.key + repeated) * element
        branches = (3 if self.gated else 2) * self.inner * element if forward else 0
        inputs = (2 * self.width + self.inner if forward else self.width) * element if trained else 0
        return norms + attention + kept_scores + branches + inputs

    def encoding(self, element: int) -> int:
        """Most bytes that a layer of a vision tower takes for each token while nothing is kept.

        Of its feed-forward part, or of turning queries and keys by their positions, which is done in float32; with the
        inputs of the layer and of its parts beside them.

        Args:
            element: Bytes of a number.
        """
        forward = (5 * self.width + (3 if self.gated else 2) * self.inner) * element
        turned = 5 * self.width * element + 6 * 4 * self.width if self.rotary else 0
        return max(forward, turned)


class UnknownCostError(ModelError):
    """What a model's cost is computed from is not known."""


def vision_size(model: PreTrainedModel, linear: int) -> tuple[Tower, int]:
    """The vision tower, and how many numbers it makes a token of.

    Read from its modules, because each family has words of its own for them in its configuration: the first product of
    matrices makes tokens of pixels, the longest stack of equal modules are its layers, and the last product of a layer
    that narrows is the end of its feed-forward part.

    Args:
        model: May be on the meta device.
        linear: Parameters that each token is multiplied with.

    Raises:
        UnknownCostError: Its tower has no such modules.
    """
    towers = vision_towers(model)
    if not towers:
        return _patches_alone(model)
    # where there is one for pictures and one for videos, a clip goes through one of them
    return tower_size(towers[0], towers[0].config, linear // len(towers))


def tower_size(tower: nn.Module, config: Any, linear: int) -> tuple[Tower, int]:
    """A vision tower, and how many numbers it makes a token of; see `vision_size`.

    Args:
        tower: May be on the meta device.
        config: its configuration.
        linear: Parameters that each token is multiplied with.

    Raises:
        UnknownCostError: It has no such modules.
    """
    first: Any = next((module for module in tower.modules() if isinstance(module, PRODUCTS)), None)
    stacks: list[Any] = [module for module in tower.modules() if _is_stack(module)]
    layers = max(stacks, key=len, default=None)
    if first is None or layers is None:
        raise UnknownCostError(
            f"the cost of a {config.model_type!r} model is not known: its vision tower has no stack of layers."
        )
    width, layer = first.weight.shape[0], layers[0]
    heads = [int(module.num_heads) for module in layer.modules() if hasattr(module, "num_heads")]
    number = heads[0] if heads else int(getattr(config, "num_attention_heads", 1))
    inner, gated = _forward_part(layer, width)
    whole = Tower(len(layers), number, width, inner, width, width, gated, linear, is_rotary(tower))
    return whole, prod(first.weight.shape[1:])


def is_rotary(model: nn.Module) -> bool:
    """Whether a part of a model turns queries and keys by their positions."""
    return any("Rotary" in type(module).__name__ for module in model.modules())


def _is_stack(module: nn.Module) -> bool:
    kinds = {type(child) for child in module.children()}
    return isinstance(module, (nn.ModuleList, nn.Sequential)) and len(kinds) == 1 and nn.Linear not in kinds


def _forward_part(layer: nn.Module, width: int) -> tuple[int, bool]:
    """Features inside the feed-forward part of a layer, and whether it multiplies two branches."""
    linear = {name: module for name, module in layer.named_modules() if isinstance(module, nn.Linear)}
    ends = [name for name, module in linear.items() if module.out_features == width != module.in_features]
    end = (ends or list(linear))[-1]
    inner = linear[end].in_features
    # projections may be wrapped
    part = end.split(".")[0]
    branches = sum(
        module.out_features for name, module in linear.items() if name.startswith(f"{part}.") and name != end
    )
    return inner, branches >= 2 * inner


def _patches_alone(model: PreTrainedModel) -> tuple[Tower, int]:
    """Of a family without a tower, which feeds patches through a projector: as one layer of nothing else."""
    language = set(model.get_decoder().modules())
    products = (module for module in model.modules() if isinstance(module, PRODUCTS) and module not in language)
    head = model.get_output_embeddings()
    first = next((module for module in products if module is not head), None)
    if first is None:
        raise UnknownCostError(f"the cost of a {model.config.model_type!r} model is not known: it has no tower.")
    width = first.weight.shape[0]
    return Tower(1, 1, width, width, width, width, False, 0, False), prod(first.weight.shape[1:])
