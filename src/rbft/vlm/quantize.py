"""Base weights in 4 bits, under adapters that are trained as usual (QLoRA, Dettmers et al., arXiv 2305.14314)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from rbft.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Quantize = Literal["none", "4bit"]


def require_quantizable(quantize: Quantize, *, on_gpu: bool) -> None:
    """Refuse what cannot be had on this machine, before a model is read.

    Args:
        quantize: What was asked for.
        on_gpu: Whether the run computes on a GPU of CUDA.

    Raises:
        ConfigError: The library or the GPU is missing.
    """
    if quantize == "none":
        return
    from transformers.utils.import_utils import is_bitsandbytes_available

    if not is_bitsandbytes_available():
        raise ConfigError(
            f"model.quantize: {quantize} needs bitsandbytes, which is not installed or too old; run "
            "`pip install 'rbft[quantize]'`, or leave model.quantize out."
        )
    if not on_gpu:
        raise ConfigError(f"model.quantize: {quantize} needs an NVIDIA GPU, and this run has none; leave it out.")


def quantized(bare: PreTrainedModel) -> Any:
    """How `from_pretrained` shall read a model: linear layers of the language model in 4-bit NormalFloat.

    Vision tower, projector, embeddings and head stay as they are: they hold few of the weights, and what they compute
    is fed to everything else. Products are computed in bfloat16.

    Args:
        bare: The model, without its weights.
    """
    import torch
    from torch import nn
    from transformers import BitsAndBytesConfig

    language = set(bare.get_decoder().modules())
    whole = [name for name, module in bare.named_modules() if isinstance(module, nn.Linear) and module not in language]
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_use_double_quant=True,
        llm_int8_skip_modules=whole,
    )
