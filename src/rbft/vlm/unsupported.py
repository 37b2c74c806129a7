"""Model types that cannot be used, told by their configuration alone, before any other file of theirs is asked for."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# faults of transformers 5.23 that leave no way to ask about a clip; a test says when one is mended
FAULTS = {
    "kimi_k25": "cannot be used: transformers does not count the features of its clips right and fails on any that "
    "has several frames",
    "nemotron_h_omni": "cannot be used: its processor in transformers fails on a clip that comes with the times of "
    "its frames",
}


def unsupported(config: PretrainedConfig) -> str | None:
    """Why a model cannot be used, as the end of a sentence that begins with its type; None if nothing is known.

    Args:
        config: The model's.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    if config.model_type not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        return "takes no video: transformers has no class of it that answers about pictures"
    processor: Any = PROCESSOR_MAPPING.get(type(config), None)
    if processor is not None:
        if "video_processor" not in processor.get_attributes():
            return NO_PART
        if "videos" not in inspect.signature(processor.__call__).parameters:
            return "takes clips of four frames in the place of pictures: its processor has no argument for videos"
    return FAULTS.get(config.model_type)


NO_PART = "takes no video: its processor has no part for it"


def takes_modalities(config: PretrainedConfig) -> bool:
    """Whether a model's forward pass names an argument for the modality of each token.

    Args:
        config: The model's.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    model: Any = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)]
    return "mm_token_type_ids" in inspect.signature(model.forward).parameters
