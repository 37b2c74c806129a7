"""One wrapper around every video VLM of transformers: encode clips, score answers, generate."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rbft.errors import ModelError
from rbft.vlm.abilities import encoder_of, masks_of, position_keys, sees_every_token
from rbft.vlm.adapters import has_adapters
from rbft.vlm.base_weights import Reference
from rbft.vlm.batch import EncodedClip, PromptInputs, Rows, pad_rows
from rbft.vlm.feature_cache import FeatureCache, weights_digest
from rbft.vlm.finite import require_finite
from rbft.vlm.last_layer import read_at
from rbft.vlm.lower_layers import KeptStates, LayOut
from rbft.vlm.master_weights import convert_between
from rbft.vlm.model_parts import parts_of
from rbft.vlm.token_tree import TokenTree
from rbft.vlm.visual_features import encoded_clip, modality_of, together

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


class VLM(nn.Module):
    """A vision-language model that is fed clips one by one and rows together.

    Clips are encoded alone and their features concatenated, so that clips of any length share a batch in every
    family, and features can be computed once and fed many times (`mm_encoder_outputs` of transformers).

    Args:
        model: The model, with or without a PEFT adapter around it.
        pad_id: Token that fills rows up.
        end_ids: Tokens at which an answer ends.
        compute_dtype: What to compute in where trained weights are held in another type
            (`rbft.vlm.master_weights`); None: in the type of the weights.

    Attributes:
        sees_every_token: Whether prompts of unlike length can be read into one cache.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        pad_id: int,
        end_ids: tuple[int, ...],
        compute_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.pad_id = pad_id
        self.end_ids = end_ids
        self.compute_dtype = compute_dtype
        self.sees_every_token = sees_every_token(self.base.config)
        # asked while weights are whole: once they are sharded, all processes would have to ask
        self._masks = masks_of(self.base)
        self._position_keys = position_keys(self.base)
        # where they are, looked for once: it is asked in every step
        parts = parts_of(self.base)
        state = (*self.base.named_parameters(), *self.base.named_buffers())
        places = [(name, *_place(self.base, name)) for name, _ in state if parts[name] != "language"]
        self._vision: list[tuple[str, nn.Module, str]] = places
        self.features: FeatureCache | None = None
        self.states: KeptStates | None = None
        self.reference: Reference | None = None
        if compute_dtype is not None:
            convert_between(self.base)

    @property
    def base(self) -> PreTrainedModel:
        """The transformers model; adapter layers act inside it."""
        inner = self.model.get_base_model() if has_adapters(self.model) else self.model
        return cast("PreTrainedModel", inner)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.base.device

    def _computing(self, *, share: bool = False) -> AbstractContextManager[None]:
        """Around what reads weights that are held in another type than is computed in.

        Args:
            share: Whether weights are read several times, and one copy in the type of computing serves all.
        """
        device = self.device.type
        # the trainer's own mixed precision goes before
        if self.compute_dtype is None or torch.is_autocast_enabled(device):
            return nullcontext()
        return torch.autocast(device, self.compute_dtype, cache_enabled=share)

    @property
    def visual_ids(self) -> tuple[int, ...]:
        """Placeholders of visual features among token ids."""
        ids = [getattr(self.base.config, f"{kind}_token_id", None) for kind in ("video", "image")]
        return tuple(int(i) for i in ids if i is not None)

    @property
    def vision_frozen(self) -> bool:
        """Whether nothing that turns pixels into features is trained."""
        return not any(value.requires_grad for value in self._vision_state().values())

    def vision_parameters(self) -> list[nn.Parameter]:
        """All weights that turn pixels into features."""
        return [value for value in self._vision_state().values() if isinstance(value, nn.Parameter)]

    # -- vision

    def _vision_state(self) -> dict[str, Tensor]:
        """Parameters and buffers of all that turns pixels into features, by name."""
        return {name: getattr(module, local) for name, module, local in self._vision}

    def vision_digest(self, *computing: object) -> str:
        """A hash of all that decides what features pixels become: weights as they are now, and settings.

        Args:
            computing: What the caller knows of how they are computed, as plain values.
        """
        from transformers import PreTrainedModel

        settings = self.base.config.to_dict()
        for foreign in ("text_config", "use_cache", "_name_or_path", "transformers_version"):
            settings.pop(foreign, None)
        language = set(self.base.get_decoder().modules())
        kernels = {
            name: module.config._attn_implementation
            for name, module in self.base.named_modules()
            if isinstance(module, PreTrainedModel) and module not in language
        }
        return weights_digest(self._vision_state(), [settings, kernels, torch.__version__, computing])

    def encode(self, prompts: Sequence[PromptInputs]) -> dict[str, Any]:
        """Visual features of the clips of `prompts`, in the form that forward and generate take.

        Features that come with a prompt are taken; those that are computed are stored where the prompt has a key.

        Args:
            prompts: One per row.

        Returns:
            The keyword arguments `mm_encoder_outputs` and the position grids; empty for text-only prompts.
        """
        # rows about one clip share its inputs, so it is encoded once
        unique = {id(prompt.vision or prompt.encoded): prompt for prompt in prompts if prompt.has_clip}
        # features of a frozen tower are those of a stage that trains nothing, to the last bit
        with nullcontext() if self.vision_frozen else self._computing(share=True):
            encoded = {key: self._encoded(prompt) for key, prompt in unique.items()}
        clips = [encoded[id(prompt.vision or prompt.encoded)] for prompt in prompts if prompt.has_clip]
        if not clips:
            return {}
        arguments: dict[str, Any] = {"mm_encoder_outputs": {clips[0].modality: together(clips)}}
        for key in clips[0].positions:
            arguments[key] = torch.cat([clip.positions[key] for clip in clips])
        return arguments

    @torch.no_grad()
    def with_features(self, prompts: Sequence[PromptInputs]) -> list[PromptInputs]:
        """The prompts with the visual features of their clips, to be read more than once without gradients."""
        unique = {id(prompt.vision or prompt.encoded): prompt for prompt in prompts if prompt.has_clip}
        with nullcontext() if self.vision_frozen else self._computing(share=True):
            encoded = {key: self._encoded(prompt) for key, prompt in unique.items()}
        return [
            replace(prompt, vision={}, encoded=encoded[id(prompt.vision or prompt.encoded)])
            if prompt.has_clip
            else prompt
            for prompt in prompts
        ]

    def _encoded(self, prompt: PromptInputs) -> EncodedClip:
        return self._encode_one(prompt) if prompt.encoded is None else prompt.encoded

    def _encode_one(self, prompt: PromptInputs) -> EncodedClip:
        inputs = {key: value for key, value in prompt.vision.items() if key != "second_per_grid_ts"}
        # most towers do so themselves; some (LFM3-VL's) multiply pixels in float32 with weights in half precision
        dtype = next((weight.dtype for weight in self.vision_parameters() if weight.is_floating_point()), None)
        inputs = {key: value.to(dtype) if value.is_floating_point() else value for key, value in inputs.items()}
        encode = encoder_of(self.base, modality_of(inputs))
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.vision_frozen):
            output = encode(**inputs, return_dict=True)
        clip = encoded_clip(output, prompt.vision, prompt.text, self._position_keys)
        if prompt.key is not None and self.features is not None:
            for level in (clip.features, *clip.deepstack):
                require_finite(level.unsqueeze(0), [prompt], "the visual features of the clip", self)
            self.features.store(prompt.key, clip)
        return clip

    def arguments(self, rows: Rows, visual: dict[str, Any]) -> dict[str, Any]:
        """Keyword arguments of a forward pass over whole rows, but for mask and positions."""
        # a fresh dict: some families write the encoder outputs they computed back into it
        arguments: dict[str, Any] = {"input_ids": rows.ids, **visual}
        if "mm_encoder_outputs" in visual:
            arguments["mm_encoder_outputs"] = dict(visual["mm_encoder_outputs"])
            arguments |= rows.extras
            if rows.types is not None:
                arguments["mm_token_type_ids"] = rows.types
        return arguments

    def positions(self, rows: Rows, visual: dict[str, Any]) -> Tensor | None:
        """Position of each token in the models that count time, height and width apart (3, B, L); None elsewhere.

        Given explicitly, because what those models infer depends on an offset they keep from their last call.
        """
        if not hasattr(self.base.model, "get_rope_index") or not visual:
            return None
        if rows.types is None:
            kind = self.base.config.model_type
            raise ModelError(f"a {kind!r} model places clips by types of tokens, which its processor does not give.")
        grids = {key: visual[key] for key in self._position_keys if key in visual}
        positions: Tensor = self.base.model.get_rope_index(
            rows.ids, mm_token_type_ids=rows.types, attention_mask=rows.mask, **grids
        )[0]
        return positions

    # -- language

    def read(self, keep: Tensor, **arguments: Any) -> Any:
        """A forward pass that computes logits, and what only they need, at the kept places.

        Args:
            keep: (B, L) bool.
            arguments: arguments of the model.

        Returns:
            Its output, with logits (N, V) for the N kept places row by row.
        """
        with self._computing(), read_at(self.base.get_decoder(), keep):
            output = self.base(**arguments, logits_to_keep=keep)
        # some models take only a number of last tokens, or compute all in any case
        if output.logits.ndim == 3:
            output.logits = output.logits[keep]
        return output

    def read_rows(self, lay_out: LayOut, rows: Sequence[tuple[PromptInputs, tuple[Tensor, ...]]]) -> tuple[Tensor, Any]:
        """As `read`, with what leaves the frozen layers taken from where it is kept.

        Args:
            lay_out: How rows are fed to the model.
            rows: For each row its prompt, and what else it consists of (`KeptStates.key`).

        Returns:
            Where logits were asked for (B, L), and the output.
        """
        keep, arguments = lay_out(range(len(rows)))
        keys = [None if self.states is None else self.states.key(prompt, *tokens) for prompt, tokens in rows]
        known = [key for key in keys if key is not None]
        if self.states is None or len(known) < len(rows):
            return keep, self.read(keep, **arguments)
        with self._computing():
            states = self.states.of_rows(known, lay_out, keep.shape[1])
        with self.states.lower.replaced(states):
            return keep, self.read(keep, **arguments)

    def target_logits(
        self, prompts: Sequence[PromptInputs], targets: Sequence[Tensor], visual: dict[str, Any] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits about each target token after its prompt.

        The language-model head and the last layer run only where a token is supervised.

        Args:
            prompts: One per row.
            targets: Token ids of each answer.
            visual: What `encode` gave for these prompts, if it was called already.

        Returns:
            Logits (N, V) and the row of each (N,), N the number of target tokens.
        """
        if self.states is not None:
            prompts = self.with_features(prompts)
        given = self.encode(prompts) if visual is None else visual

        def lay_out(numbers: Sequence[int]) -> tuple[Tensor, dict[str, Any]]:
            asked, answers = [prompts[i] for i in numbers], [targets[i] for i in numbers]
            seen = given if len(asked) == len(prompts) else self.encode(asked)
            rows = pad_rows(asked, answers, self.pad_id)
            keep = torch.zeros_like(rows.ids, dtype=torch.bool)
            for row, (prompt, target) in enumerate(zip(asked, answers, strict=True)):
                # the logits at a position are about the token after it
                keep[row, len(prompt.ids) - 1 : len(prompt.ids) - 1 + len(target)] = True
            # a row is filled up after its tokens, where none of them looks: without a mask attention is the faster
            # kernel
            arguments = self.arguments(rows, seen)
            return keep, {**arguments, "position_ids": self.positions(rows, seen), "use_cache": False}

        keep, output = self.read_rows(lay_out, [(prompts[i], (target,)) for i, target in enumerate(targets)])
        logits: Tensor = output.logits
        return logits, keep.nonzero()[:, 0]

    def target_log_probs(
        self, prompts: Sequence[PromptInputs], targets: Sequence[Tensor], visual: dict[str, Any] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Log-probability of each target token after its prompt, as `target_logits`.

        Returns:
            Log-probabilities (N,) in float32 and the row of each (N,), N the number of target tokens.
        """
        logits, rows = self.target_logits(prompts, targets, visual)
        wanted = torch.cat(list(targets)).to(logits.device)
        return -F.cross_entropy(logits.float(), wanted, reduction="none"), rows

    def prefix(
        self, prompts: Sequence[PromptInputs], visual: dict[str, Any] | None = None
    ) -> tuple[Any, Tensor, Tensor, Rows]:
        """Read prompts once, so that many answers can be tried after each.

        Args:
            prompts: One per row; of one length unless `sees_every_token` (`rbft.vlm.prefix_cache.read_together`).
            visual: What `encode` gave for these prompts, if it was called already.

        Returns:
            The key-value cache, log-probabilities of the next token (B, V) in float32, the position of the next
            token (B,) and the rows read (right-padded).
        """
        if not self.sees_every_token and len({len(prompt.ids) for prompt in prompts}) > 1:
            raise ValueError("this model's layers would read the padding after shorter prompts")
        visual = self.encode(prompts) if visual is None else visual
        rows = pad_rows(prompts, None, self.pad_id)
        arguments = self.arguments(rows, visual)
        positions = self.positions(rows, visual)
        last = (rows.lengths - 1).unsqueeze(1)
        keep = torch.zeros_like(rows.ids, dtype=torch.bool).scatter(1, last, True)
        # without a mask, as in `target_logits`; whoever goes on after the prompts leaves their padding out
        output = self.read(keep, **arguments, position_ids=positions, use_cache=True)
        # text goes on after the last token's position, which is not the row's length where a clip spans few positions
        following = rows.lengths if positions is None else positions[0].gather(1, last).squeeze(1) + 1
        return output.past_key_values, output.logits.float().log_softmax(-1), following, rows

    @property
    def takes_tree_masks(self) -> bool:
        """Whether attention takes a mask of which tokens each token sees; fused kernels know causal rows only."""
        kernel = self.base.config.get_text_config()._attn_implementation
        return self.sees_every_token and self._masks.taken and kernel in ("sdpa", "eager")

    @property
    def takes_packed_rows(self) -> bool:
        """Whether one mask can express a prompt with several answers after it, its clip included."""
        return self.takes_tree_masks and self._masks.causal

    def attention_mask(self, visible: Tensor) -> Tensor:
        """What attention takes for (B, Q, K) bool: whether a query sees a key."""
        if self.base.config.get_text_config()._attn_implementation == "sdpa":
            return visible.unsqueeze(1)
        mask = torch.zeros(visible.shape, dtype=self.base.dtype, device=visible.device)
        return mask.masked_fill(~visible, torch.finfo(mask.dtype).min).unsqueeze(1)

    def continue_tree(self, cache: Any, mask: Tensor, following: Tensor, tree: TokenTree) -> Tensor:
        """Logits after each node of a tree that stands after each prompt of a cached prefix.

        Args:
            cache: From `prefix`; the nodes are appended to it.
            mask: (B, P) 1 for real tokens of the prefix.
            following: (B,) position of the token after each prefix.
            tree: The nodes.

        Returns:
            (B, N, V) logits.
        """
        clips, nodes = len(mask), len(tree)
        lineage = tree.lineage().to(mask.device).expand(clips, -1, -1)
        visible = torch.cat([mask.bool().unsqueeze(1).expand(-1, nodes, -1), lineage], dim=2)
        positions = following.unsqueeze(1) + tree.depths.to(mask.device)
        ids = tree.ids.to(mask.device).expand(clips, -1)
        return self.continue_prefix(cache, self.attention_mask(visible), ids, positions)

    def continue_prefix(self, cache: Any, mask: Tensor, ids: Tensor, positions: Tensor) -> Tensor:
        """Logits after more tokens after a cached prefix.

        Args:
            cache: From `prefix`, expanded to the rows of `ids`.
            mask: (R, P + T) 1 for real tokens of prefix and continuation, or as `attention_mask` gives it.
            ids: (R, T) the continuation.
            positions: (R, T) position of each of its tokens.

        Returns:
            (R, T, V) logits.
        """
        # where time, height and width are counted apart, text has the same position in all three
        multi = hasattr(self.base.model, "get_rope_index")
        position_ids = positions.unsqueeze(0).expand(3, -1, -1) if multi else positions
        with self._computing():
            output = self.base(
                input_ids=ids,
                attention_mask=mask,
                position_ids=position_ids,
                past_key_values=cache,
                use_cache=True,
            )
        return output.logits


def _place(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that a parameter or buffer is of, and its name there."""
    owner, _, local = name.rpartition(".")
    return model.get_submodule(owner), local
