"""From a folder to a frozen video encoder: local files only, every weight found, nothing left at its random start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rbft.encoders.families import FAMILIES, EncoderFamily
from rbft.errors import ConfigError, ModelError
from rbft.files import expanded
from rbft.vlm.loading import DType, Source, folder_fingerprint, read_config, read_weights, weights_dtype

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PretrainedConfig

KEY = "model.encoder.folder"
KNOWN = "VideoMAE, V-JEPA 2, X-CLIP and TimeSformer"


class EncoderFiles:
    """A folder with a video encoder, checked by its configuration; no weights are read before `load`.

    Args:
        folder: folder that `save_pretrained` wrote.

    Raises:
        ConfigError: There is no such folder.
        ModelError: It holds another kind of model, or its configuration cannot be read.
    """

    def __init__(self, folder: str) -> None:
        self.folder = expanded(folder)
        if not self.folder.is_dir():
            raise ConfigError(
                f"{KEY}: no folder {folder}. Name the folder of a video encoder on this machine ({KNOWN}); "
                "`hf download OWNER/NAME --local-dir FOLDER` fetches one."
            )
        if not (self.folder / "config.json").is_file():
            raise ConfigError(f"{KEY}: {folder} holds no config.json; name the folder that save_pretrained wrote.")
        advice = "Name a folder with all files of the encoder, its weights as safetensors."
        self.source = Source(folder, str(self.folder), KEY, advice, {"local_files_only": True})
        self.config: PretrainedConfig = read_config(self.source)
        if self.config.model_type not in FAMILIES:
            raise ModelError(
                f"{self.source.what} is a {self.config.model_type!r} model; the video encoders that are known are "
                f"{KNOWN} ({', '.join(FAMILIES)})."
            )
        self.family: EncoderFamily = FAMILIES[self.config.model_type]

    @property
    def frames(self) -> int:
        """Frames of a clip, as the encoder was pre-trained."""
        return int(self.family.frames(self.config))

    @property
    def positions(self) -> int:
        """Positions in time that a clip has features of."""
        return self.frames // int(self.family.group(self.config))

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of a frame, in pixels."""
        size: Any = self.family.size(self.config)
        return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))

    @cached_property
    def fingerprint(self) -> str:
        """A hash of its files."""
        return folder_fingerprint(self.folder)

    @cached_property
    def processor(self) -> Any:
        """What makes its pixels of frames.

        Raises:
            ModelError: The folder has none.
        """
        from transformers import AutoImageProcessor, AutoVideoProcessor

        of_videos = self.config.model_type == "vjepa2" or (self.folder / "video_preprocessor_config.json").is_file()
        kind: Any = AutoVideoProcessor if of_videos else AutoImageProcessor
        try:
            return kind.from_pretrained(str(self.folder), trust_remote_code=False, **self.source.options)
        except Exception as error:  # whatever the libraries trip over in these files
            raise self.source.explain(error) from error

    def dtype(self, dtype: DType) -> torch.dtype:
        """The type of its weights under `model.dtype`."""
        return weights_dtype(self.config, dtype)

    def bare(self, dtype: DType) -> nn.Module:
        """The encoder without its weights, which take no memory."""
        import torch

        with torch.device("meta"):
            return self._part(self._kind._from_config(self.config, dtype=self.dtype(dtype)))

    def load(self, dtype: DType) -> nn.Module:
        """The encoder with its weights, for inference.

        A checkpoint may name its weights otherwise than this version of transformers reads them, which then leaves
        those at their random start and says so in a log at most: so did VideoMAE's query and value biases under
        transformers 5.0, and the vision tower of X-CLIP does where it is loaded alone. Here every weight of the encoder
        has to be found, and what is left over has to belong to a head.

        Args:
            dtype: dtype of the weights; `auto` is the checkpoint's own.

        Raises:
            ModelError: A weight is missing or left over; names it.
        """
        options = {"config": self.config, "dtype": self.dtype(dtype)}
        with _without_reports():  # of heads that are not used; what matters is an error here
            model, left = read_weights(self._kind, self.source, self.family.unused, **options)
        strange = [name for name in left if not _is_counter(name)]
        if strange:
            raise ModelError(
                f"{self.source.what} holds {len(strange)} weights that its {self.family.name} encoder has no place "
                f"for, first {strange[0]!r}, so it would not be the encoder that was trained. Load and save it with "
                "the version of transformers that wrote it, or take another one."
            )
        return self._part(model).requires_grad_(False).eval()

    @property
    def _kind(self) -> Any:
        import transformers

        return getattr(transformers, self.family.kind)

    def _part(self, model: Any) -> nn.Module:
        part: nn.Module = getattr(model, self.family.part) if self.family.part else model
        return part


@contextmanager
def _without_reports() -> Iterator[None]:
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _is_counter(name: str) -> bool:
    """Whether it counts positions from 0, which older checkpoints hold and nothing learns."""
    return name.endswith(".position_ids")
