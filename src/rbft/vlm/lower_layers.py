"""The frozen layers below the first trained one: computed alone for a row, or left out where their result is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rbft.errors import warn
from rbft.vlm.adapters import has_adapters
from rbft.vlm.batch import PromptInputs
from rbft.vlm.feature_cache import weights_digest
from rbft.vlm.state_cache import StateCache, state_key
from rbft.vlm.upper_layers import first_trained, layers_of, tensors_below

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


class _ReachedError(Exception):
    """Carries what left the last frozen layer."""

    def __init__(self, states: Any) -> None:
        self.states = states


class LowerLayers:
    """The layers of a language model below one of them.

    Args:
        model: The transformers model.
        first: Index of the first layer that is trained, at least 1.
    """

    def __init__(self, model: PreTrainedModel, first: int) -> None:
        self._model, self.first = model, first
        self._layers = layers_of(model)[:first]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._model.device

    @property
    def family(self) -> str:
        """The type of the model, as transformers names it."""
        family: str = self._model.config.model_type
        return family

    @property
    def quantized(self) -> bool:
        """Whether weights are kept in fewer bits than they are computed with."""
        return bool(getattr(self._model, "is_quantized", False))

    def digest(self, *computing: object) -> str:
        """A hash of all that decides what they make of a row: weights, settings, and libraries.

        Args:
            computing: What the caller knows of how they are computed, as plain values.
        """
        settings = self._model.config.get_text_config().to_dict()
        for foreign in ("use_cache", "_name_or_path", "transformers_version"):
            settings.pop(foreign, None)
        kernel = self._model.config.get_text_config()._attn_implementation
        exact = torch.are_deterministic_algorithms_enabled()
        about = [settings, kernel, exact, torch.__version__, self.first, computing]
        return weights_digest(tensors_below(self._model, self.first), about)

    def rest(self) -> None:
        """Switch off what is random in them, as in a frozen vision tower."""
        decoder: Any = self._model.get_decoder()
        for name, child in decoder.named_children():
            if name == "layers":
                break
            child.eval()
        for layer in self._layers:
            layer.eval()

    @torch.no_grad()
    def of_row(self, **arguments: Any) -> Tensor:
        """What leaves the last of them for one row; nothing above is computed.

        Args:
            arguments: arguments of the model for that row alone.

        Returns:
            (L, H).
        """

        def stop(layer: nn.Module, inputs: Any, output: Any) -> None:
            raise _ReachedError(output)

        hook = self._layers[-1].register_forward_hook(stop)
        try:
            self._model(**arguments)
        except _ReachedError as reached:
            states: Tensor = reached.states
            return states[0]
        finally:
            hook.remove()
        raise AssertionError("the model read a row past its layers")

    @contextmanager
    def replaced(self, states: Tensor) -> Iterator[None]:
        """While it lasts they compute nothing, and the next layer is fed `states` (B, L, H).

        What else a model does between its layers, such as adding further levels of visual features, it does as ever.
        """

        def skip(hidden_states: Tensor, *inputs: Any, **others: Any) -> Tensor:
            return hidden_states

        def give(*inputs: Any, **others: Any) -> Tensor:
            return states

        try:
            for layer in self._layers[:-1]:
                layer.forward = skip
            self._layers[-1].forward = give
            yield
        finally:
            for layer in self._layers:
                vars(layer).pop("forward", None)

    @torch.no_grad()
    def can_be_replaced(self, token: int) -> bool:
        """Whether the layers above need nothing of them but their result: tried on a row of a few tokens.

        Some families have layers that read the keys and values of others below.

        Args:
            token: Any token of text.

        Raises:
            torch.OutOfMemoryError: There is no memory to try it.
        """
        ids = torch.full((1, 6), token, device=self._model.device)
        training = [module for module in self._model.modules() if module.training]
        self._model.eval()
        try:
            states = self.of_row(input_ids=ids, use_cache=False)
            if not isinstance(states, Tensor):
                return False
            whole = self._model(input_ids=ids, use_cache=False).logits
            with self.replaced(states.unsqueeze(0)):
                upper = self._model(input_ids=ids, use_cache=False).logits
        except torch.OutOfMemoryError:
            raise  # says nothing of the family
        except Exception:  # each family fails in its own words where a layer misses what it reads of another
            return False
        finally:
            for module in training:
                module.training = True
        return torch.equal(whole, upper)


LayOut = Callable[[Sequence[int]], tuple[Tensor, dict[str, Any]]]
"""From numbers of rows to where logits are asked for (B, L), and the arguments of the model for those rows."""


class KeptStates:
    """What leaves the frozen layers for each row, computed at its first visit and read at every other.

    A row is computed alone, so that what is kept of it depends on nothing but itself.

    Args:
        lower: The frozen layers.
        cache: Where states are kept.
        computing: What the caller knows of how they are computed, as plain values.

    Attributes:
        visits: Visits of a row so far.
        found: Those of them for which its states were there, so that the upper layers alone were computed.
    """

    def __init__(self, lower: LowerLayers, cache: StateCache, *computing: object) -> None:
        self.lower, self._cache = lower, cache
        self.visits = self.found = 0
        self._digest = lower.digest(*computing)

    def key(self, prompt: PromptInputs, *tokens: Tensor) -> str | None:
        """The key of a row; None where nothing is known that tells its clip from others.

        Args:
            prompt: The row's prompt, whose clip has a key of its own where its features are kept.
            tokens: What stands after the prompt, and what says which of it sees which.
        """
        return None if prompt.key is None else state_key(self._digest, prompt.key, prompt.ids, *tokens)

    def clear(self) -> None:
        """Free the memory; what is on disk stays."""
        self._cache.clear()

    def of_rows(self, keys: Sequence[str], lay_out: LayOut, width: int) -> Tensor:
        """The states of some rows (B, L, H), filled up with zeros, which no token of a row looks at.

        Args:
            keys: One per row.
            lay_out: How the rows are fed to the model.
            width: L.
        """
        rows = [self._row(key, number, lay_out) for number, key in enumerate(keys)]
        whole = rows[0].new_zeros((len(rows), width, rows[0].shape[-1]))
        for number, row in enumerate(rows):
            whole[number, : len(row)] = row
        return whole

    def _row(self, key: str, number: int, lay_out: LayOut) -> Tensor:
        states = self._cache.load(key)
        self.visits += 1
        self.found += states is not None
        if states is None:
            states = self.lower.of_row(**lay_out([number])[1])
            self._cache.store(key, states)
        return states.to(self.lower.device, non_blocking=self.lower.device.type != "cpu")


def lower_layers_of(model: PreTrainedModel | PeftModel) -> LowerLayers | None:
    """The layers of a model below all that is trained; None where there are none."""
    first = first_trained(model)
    base: Any = model.get_base_model() if has_adapters(model) else model
    return LowerLayers(base, first) if first else None


def keep_states(lower: LowerLayers, cache: StateCache, token: int, *computing: object) -> KeptStates | None:
    """What keeps the states of a model's rows; None, with a warning, where its family does not allow it.

    Args:
        lower: The layers below all that is trained.
        cache: Where states are kept.
        token: Any token of text.
        computing: What the caller knows of how they are computed, as plain values.
    """
    if not lower.can_be_replaced(token):
        warn(
            f"a {lower.family!r} model has trained layers that need more of the frozen ones below than their result, "
            "so nothing is kept of those (data.cache_states); they are computed in every epoch.",
        )
        return None
    # of weights in 4 bits the scales are no tensors of the model, so that no hash of it tells them from others
    return KeptStates(lower, cache.in_memory_only() if lower.quantized else cache, *computing)
