"""One wrapper around every video VLM of transformers: encode clips, score answers, generate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from rbft.vlm.batch import PromptInputs, Rows, pad_rows

# What of a processor's visual output the model's forward needs for positions; the rest goes to the encoder only.
_POSITION_KEYS = ("image_grid_thw", "video_grid_thw", "second_per_grid_ts")


class VLM(nn.Module):
    """A vision-language model that is fed clips one by one and rows together.

    Clips are encoded alone and their features concatenated, so that clips of any length share a batch in every
    family, and features can be computed once and fed many times (`mm_encoder_outputs` of transformers).

    Args:
        model: The model, with or without a PEFT adapter around it.
        pad_id: Token that fills rows up.
        end_ids: Tokens at which an answer ends.
    """

    def __init__(self, model: PreTrainedModel | PeftModel, pad_id: int, end_ids: tuple[int, ...]) -> None:
        super().__init__()
        self.model = model
        self.pad_id = pad_id
        self.end_ids = end_ids

    @property
    def base(self) -> PreTrainedModel:
        """The transformers model; adapter layers act inside it."""
        inner = self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model
        return cast(PreTrainedModel, inner)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.base.device

    @property
    def vision_frozen(self) -> bool:
        """Whether nothing that turns pixels into features is trained."""
        language = {id(p) for p in self.base.get_decoder().parameters()}
        head = self.base.get_output_embeddings()
        language |= {id(p) for p in head.parameters()} if head is not None else set()
        return not any(p.requires_grad and id(p) not in language for p in self.base.parameters())

    # -- vision

    def encode(self, prompts: Sequence[PromptInputs]) -> dict[str, Any]:
        """Visual features of the clips of `prompts`, in the form that forward and generate take.

        Returns:
            The keyword arguments `mm_encoder_outputs` and the position grids; empty for text-only prompts.
        """
        with_video = [prompt.vision for prompt in prompts if prompt.vision]
        if not with_video:
            return {}
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.vision_frozen):
            outputs = [self._encode_one(vision) for vision in with_video]
        modality = "video" if "pixel_values_videos" in with_video[0] else "image"
        arguments: dict[str, Any] = {"mm_encoder_outputs": {modality: _concatenate(outputs)}}
        for key in _POSITION_KEYS:
            if key in with_video[0]:
                arguments[key] = torch.cat([vision[key] for vision in with_video])
        return arguments

    def _encode_one(self, vision: dict[str, Tensor]) -> Any:
        inputs = {key: value for key, value in vision.items() if key != "second_per_grid_ts"}
        if "pixel_values_videos" in inputs:
            return self.base.model.get_video_features(**inputs, return_dict=True)
        return self.base.model.get_image_features(**inputs, return_dict=True)

    def _arguments(self, rows: Rows, visual: dict[str, Any]) -> dict[str, Any]:
        """Keyword arguments of generate, or but for positions of a forward pass, over whole rows."""
        # a fresh dict: some families write the encoder outputs they computed back into it
        arguments: dict[str, Any] = {"input_ids": rows.ids, "attention_mask": rows.mask, **visual}
        if "mm_encoder_outputs" in visual:
            arguments["mm_encoder_outputs"] = dict(visual["mm_encoder_outputs"])
            if rows.types is not None:
                arguments["mm_token_type_ids"] = rows.types
        return arguments

    def _positions(self, rows: Rows, arguments: dict[str, Any]) -> Tensor | None:
        """Position of each token in the models that count time, height and width apart (3, B, L); None elsewhere.

        Given explicitly, because what those models infer depends on an offset they keep from their last call.
        """
        if not hasattr(self.base.model, "get_rope_index") or "mm_token_type_ids" not in arguments:
            return None
        grids = {key: arguments[key] for key in _POSITION_KEYS if key in arguments}
        positions: Tensor = self.base.model.get_rope_index(
            rows.ids, mm_token_type_ids=arguments["mm_token_type_ids"], attention_mask=rows.mask, **grids
        )[0]
        return positions

    # -- language

    def target_log_probs(
        self, prompts: Sequence[PromptInputs], targets: Sequence[Tensor], visual: dict[str, Any] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Log-probability of each target token behind its prompt.

        The language-model head runs only where a token is supervised (`logits_to_keep`).

        Args:
            prompts: One per row.
            targets: Token ids of each answer.
            visual: What `encode` gave for these prompts, if it was called already.

        Returns:
            Log-probabilities (N,) in float32 and the row of each (N,), N the number of target tokens.
        """
        visual = self.encode(prompts) if visual is None else visual
        rows = pad_rows(prompts, targets, self.pad_id, "right")
        keep = torch.zeros_like(rows.ids, dtype=torch.bool)
        for row, (prompt, target) in enumerate(zip(prompts, targets, strict=True)):
            # the logits at a position are about the token behind it
            keep[row, len(prompt.ids) - 1 : len(prompt.ids) - 1 + len(target)] = True
        arguments = self._arguments(rows, visual)
        output = self.base(
            **arguments, position_ids=self._positions(rows, arguments), use_cache=False, logits_to_keep=keep
        )
        wanted = torch.cat(list(targets)).to(output.logits.device)
        log_probs = -F.cross_entropy(output.logits.float(), wanted, reduction="none")
        return log_probs, keep.nonzero()[:, 0]

    def prefix(
        self, prompts: Sequence[PromptInputs], visual: dict[str, Any] | None = None
    ) -> tuple[Any, Tensor, Tensor, Rows]:
        """Read prompts once, so that many answers can be tried behind each.

        Returns:
            The key-value cache, log-probabilities of the next token (B, V) in float32, the position of the next
            token (B,) and the rows read (right-padded).
        """
        visual = self.encode(prompts) if visual is None else visual
        rows = pad_rows(prompts, None, self.pad_id, "right")
        arguments = self._arguments(rows, visual)
        positions = self._positions(rows, arguments)
        last = (rows.lengths - 1).unsqueeze(1)
        output = self.base(**arguments, position_ids=positions, use_cache=True, logits_to_keep=last)
        # text goes on behind the last token's position, which is not the row's length where a clip spans few positions
        following = rows.lengths if positions is None else positions[0].gather(1, last).squeeze(1) + 1
        return output.past_key_values, output.logits[:, 0].float().log_softmax(-1), following, rows

    def continue_prefix(self, cache: Any, mask: Tensor, ids: Tensor, positions: Tensor) -> Tensor:
        """Logits behind more tokens after a cached prefix.

        Args:
            cache: From `prefix`, expanded to the rows of `ids`.
            mask: (R, P + T) 1 for real tokens of prefix and continuation.
            ids: (R, T) the continuation.
            positions: (R, T) position of each of its tokens.

        Returns:
            (R, T, V) logits.
        """
        # where time, height and width are counted apart, text has the same position in all three
        multi = hasattr(self.base.model, "get_rope_index")
        position_ids = positions.unsqueeze(0).expand(3, -1, -1) if multi else positions
        output = self.base(
            input_ids=ids,
            attention_mask=mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
        )
        return output.logits

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[PromptInputs],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        samples: int = 1,
        banned_ids: Sequence[int] = (),
        seed: int = 0,
    ) -> list[list[Tensor]]:
        """Write answers.

        Args:
            prompts: One per row.
            max_new_tokens: Length limit of an answer.
            temperature: 0 picks the likeliest token; above, tokens are sampled.
            top_p: Sampling keeps the likeliest tokens that sum to this probability.
            samples: Answers for each prompt.
            banned_ids: Tokens that never appear (visual placeholders and other special tokens).
            seed: Of the sampling.

        Returns:
            For each prompt, `samples` sequences of token ids, the end token included if it was reached.
        """
        rows = pad_rows(prompts, None, self.pad_id, "left")
        sampling: dict[str, Any] = {
            "do_sample": temperature > 0,
            "num_return_sequences": samples,
            "num_beams": 1,
        }
        # the checkpoint's own sampling defaults must not slip in
        sampling |= {"temperature": temperature, "top_p": top_p, "top_k": 0} if temperature > 0 else {}
        sampling |= {} if temperature > 0 else {"temperature": None, "top_p": None, "top_k": None}
        banned = sorted(set(banned_ids) - set(self.end_ids))
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            output = cast(Any, self.base).generate(
                **self._arguments(rows, self.encode(prompts)),
                **sampling,
                max_new_tokens=max_new_tokens,
                pad_token_id=self.pad_id,
                eos_token_id=list(self.end_ids),
                suppress_tokens=banned or None,
            )
        written = output[:, rows.ids.shape[1] :]
        answers = [self._cut(row) for row in written]
        return [answers[start : start + samples] for start in range(0, len(answers), samples)]

    def _cut(self, row: Tensor) -> Tensor:
        """The ids up to and with the first end token."""
        ends = torch.isin(row, torch.tensor(self.end_ids, device=row.device)).nonzero()
        return row[: int(ends[0]) + 1] if len(ends) else row


def _concatenate(outputs: Sequence[Any]) -> Any:
    """Features of several clips as those of one call.

    The one difference between families: pooled features are a tensor in LLaVA-OneVision and InternVL, and a tuple
    of tensors elsewhere.
    """
    first = outputs[0]
    merged: dict[str, Any] = {}
    if isinstance(first.pooler_output, Tensor):
        flat = [output.pooler_output.reshape(-1, output.pooler_output.shape[-1]) for output in outputs]
        merged["pooler_output"] = torch.cat(flat).unsqueeze(0)
    else:
        merged["pooler_output"] = tuple(feature for output in outputs for feature in output.pooler_output)
    if (deepstack := getattr(first, "deepstack_features", None)) is not None:
        # one tuple of clips for each level
        merged["deepstack_features"] = [
            tuple(feature for output in outputs for feature in output.deepstack_features[level])
            for level in range(len(deepstack))
        ]
    return type(first)(**merged)
