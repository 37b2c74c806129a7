"""What encoding clips by a video encoder beside the model will cost, before its weights are loaded."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from rbft.encoders.encoder import ClipPixels
from rbft.encoders.loading import EncoderFiles
from rbft.estimate.clip_costs import readable
from rbft.estimate.device import Device, Speed, matrix_dtype
from rbft.estimate.on_device import seconds_of
from rbft.estimate.stage_cost import Memory, StageEstimate, Work, layer_launches
from rbft.vlm.tower import PRODUCTS, Tower, tower_size

if TYPE_CHECKING:
    from torch import nn

    from rbft.stages.read_stage import ReadStage


def encoder_estimate(
    entry: ReadStage,
    device: Device,
    speed_of: Callable[[torch.dtype], Speed] | None,
) -> list[StageEstimate]:
    """The estimate of a stage of kind `encoder_probe`; none where no video can be read.

    Args:
        entry: the stage.
        device: device that it runs on.
        speed_of: function that gives the speed of that device; None leaves times out.
    """
    splits, data, folder = entry.datamodule.splits, entry.datamodule, entry.module.encoder.folder
    clips = len(readable(data, [*splits.train, *splits.val, *splits.test]))
    if not clips or folder is None:
        return []
    files = EncoderFiles(folder)
    model = files.bare(entry.module.dtype_)
    config = getattr(files.config, "vision_config", None) or files.config
    linear = sum(module.weight.numel() for module in model.modules() if isinstance(module, PRODUCTS))
    tower, patch = tower_size(model, config, linear)
    tokens = files.frames * 3 * files.frame_size[0] * files.frame_size[1] // patch
    seen = tokens if files.family.joint else tokens // files.positions
    steps = -(-clips // (data.eval_batch_size * device.processes))
    element = 2 if entry.mixed else files.dtype(entry.module.dtype_).itemsize
    seconds = None
    if speed_of is not None:
        speed = speed_of(matrix_dtype(str(entry.config["trainer"]["precision"]), element))
        seconds = seconds_of(_work(tower, tokens, seen, clips, steps * device.processes), speed)
        seconds += clips * _seconds_a_clip(files) / max(1, data.num_workers)
        seconds /= device.processes
    batch = min(data.eval_batch_size, clips)
    memory = Memory(_bytes(model), activations=batch * tokens * (tower.encoding(element) + patch * element))
    span = (float(tokens),) * 3
    return [StageEstimate(entry.stage.name, entry.stage.kind, clips, steps, span, memory, seconds)]


def _work(tower: Tower, tokens: int, seen: int, clips: int, batches: int) -> Work:
    """Products of all tokens with all weights, and of each with those that it attends to: scores, and their sums."""
    flops = 2.0 * tower.linear * tokens + 4.0 * tower.layers * tokens * seen * tower.width
    return Work(clips * flops, 0.0, layer_launches(tower.layers * batches))


def _seconds_a_clip(files: EncoderFiles) -> float:
    """Time that the processor takes to make a clip's pixels, measured on frames of twice the encoder's size."""
    pixels, (height, width) = ClipPixels(files), files.frame_size
    frames = torch.zeros((files.frames, 3, 2 * height, 2 * width), dtype=torch.uint8)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        pixels(frames)
        times.append(time.perf_counter() - start)
    return min(times)


def _bytes(model: nn.Module) -> int:
    return sum(value.numel() * value.element_size() for value in model.parameters())
