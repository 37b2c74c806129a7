"""What to do where a data set has too few videos for the splits that are asked for, in numbers that were tried."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rbft.data.records import VideoRecord
from rbft.errors import DataError

_SHOWN = 4


@dataclass(frozen=True)
class Settings:
    """What is asked of the splits; see `rbft.data.splits.make_splits`."""

    shots: int | None
    pool_shots: int | None
    val_shots: int | None
    val_fraction: float
    draw: int
    nested: bool


class Shortage(DataError):
    """A class has too few videos for what is asked.

    Args:
        message: What is short.
        label: The class.
    """

    def __init__(self, message: str, label: str) -> None:
        super().__init__(message)
        self.label = label


def advise(
    shortage: Shortage, pool: Sequence[VideoRecord], settings: Settings, works: Callable[[Settings], bool]
) -> str:
    """The message of a shortage with its cause and what would do.

    Args:
        shortage: What is short.
        pool: The videos from which training videos are drawn.
        settings: What is asked.
        works: Whether the splits can be had with other settings; every number in the advice was tried.
    """
    parts = [str(shortage), *_cause(shortage.label, pool)]
    ways = _ways(settings, works)
    more = "add videos of the class"
    if _grouped(shortage.label, pool):
        more += " that are of other groups"
    parts.append(f"{_joined([*ways, more, 'leave it out'])}.")
    return " ".join(parts)


def _grouped(label: str, pool: Sequence[VideoRecord]) -> bool:
    return any(record.source[0] != "id" for record in pool if record.label == label)


def _cause(label: str, pool: Sequence[VideoRecord]) -> list[str]:
    """How few the groups are, if there are some."""
    groups = Counter(record.source for record in pool if record.label == label)
    sizes = Counter({name: size for (kind, name), size in groups.items() if kind != "id"})
    alone = sum(groups.values()) - sum(sizes.values())
    if not sizes:
        return []
    shown = ", ".join(f"{name!r} ({size})" for name, size in sizes.most_common(_SHOWN))
    more = f" and {len(sizes) - _SHOWN} more" if len(sizes) > _SHOWN else ""
    number = "1 group" if len(sizes) == 1 else f"{len(sizes)} groups"
    apart = f", {alone} of none" if alone else ""
    return [f"Of its videos {sum(sizes.values())} are of {number}, {shown}{more}{apart}; a group stays on one side."]


def _ways(settings: Settings, works: Callable[[Settings], bool]) -> list[str]:
    """Settings to lower, with the largest numbers that work."""
    ways = []
    shots = _largest(settings, works)
    if shots is not None:
        ways.append(f"lower {shots}")
    if settings.val_shots:
        below = _search(settings.val_shots - 1, lambda number: works(replace(settings, val_shots=number)), least=0)
        if below is not None:
            ways.append(f"lower data.val_shots to at most {below}")
    without = replace(settings, val_shots=0)
    if settings.val_shots != 0 and not ways:
        if works(without):
            ways.append("set data.val_shots to 0")
        elif (shots := _largest(without, works)) is not None:
            ways.append(f"set data.val_shots to 0 and lower {shots}")
    if settings.shots is not None and not ways and works(replace(settings, shots=None, pool_shots=None)):
        ways.append("set data.shots to null")
    some = replace(settings, val_fraction=0.2)
    if settings.shots is None and settings.val_fraction == 0 and not ways and works(some):
        ways.append("set data.val_fraction above 0, for example to 0.2")
    return ways


def _largest(settings: Settings, works: Callable[[Settings], bool]) -> str | None:
    """The largest number of shots that works, as advice; None if none does."""
    if settings.shots is None:
        return None
    if settings.pool_shots is not None and settings.pool_shots > settings.shots:
        shots = settings.shots
        largest = _search(
            settings.pool_shots - 1, lambda n: works(replace(settings, shots=min(shots, n), pool_shots=n))
        )
        if largest is None:
            return None
        also = f" and data.shots to at most {largest}" if largest < shots else ""
        return f"data.pool_shots to at most {largest}{also}"
    pooled = settings.pool_shots is not None
    largest = _search(settings.shots - 1, lambda n: works(replace(settings, shots=n, pool_shots=n if pooled else None)))
    return None if largest is None else f"data.shots {'and data.pool_shots ' if pooled else ''}to at most {largest}"


def _search(most: int, works: Callable[[int], bool], least: int = 1) -> int | None:
    """A number from `least` to `most` that works, the largest where all smaller ones do; None if the smallest fails."""
    if most < least or not works(least):
        return None
    low, high = least, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if works(middle) else (low, middle)
    return low


def _joined(ways: Sequence[str]) -> str:
    text = f"{', '.join(ways[:-1])}, or {ways[-1]}"
    return text[0].upper() + text[1:]
