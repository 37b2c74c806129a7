"""What the index of an mp4 promises, looked through before the media library builds it in memory."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

# Boxes that hold boxes (ISO/IEC 14496-12 and QuickTime); the media library looks for tables inside of all of them.
_NESTING = frozenset(
    (
        b"moov",
        b"trak",
        b"mdia",
        b"minf",
        b"stbl",
        b"edts",
        b"mvex",
        b"moof",
        b"traf",
        b"udta",
        b"meta",
        b"dinf",
        b"wave",
        b"sinf",
        b"schi",
        b"gmhd",
        b"tapt",
        b"ipro",
        b"iprp",
        b"ilst",
        b"tref",
    )
)
_MOST_BOXES = 100_000
_MOST_IN_FRAGMENTS = 10_000_000
_MOST_EDITS = 1_000


def excess(file: Path) -> str | None:
    """Why a file must not be opened as an mp4, as a clause; None if nothing speaks against it, or it is no mp4.

    A sample that takes no byte of the table takes tens in memory, before anything about the file can be asked: of a few
    kilobytes the media library makes gigabytes. So whatever a table may promise without spending bytes on it is held
    against the size of the file.

    Args:
        file: An existing file.
    """
    size = file.stat().st_size
    fragmented = edits = boxes = 0
    left = [(0, size)]  # from where to where boxes stand
    with file.open("rb") as stream:
        while left:
            start, end = left.pop()
            while end - start >= 8:
                boxes += 1
                if boxes > _MOST_BOXES:
                    return f"its index is cut into more than {_MOST_BOXES} boxes"
                kind, begin, stop = _box(stream, start, end)
                if begin is None:
                    break
                if kind in _NESTING:
                    left += [(begin, stop)] + ([(begin + 4, stop)] if kind == b"meta" else [])
                elif kind == b"cmov":
                    return "its index is compressed; write the file anew with a current tool"
                elif kind == b"stsz":
                    each, count = _numbers(stream, begin + 4)
                    if each * count > size:
                        return f"its index promises {count} samples of {each} bytes, and the file has {size} bytes"
                elif kind == b"trun":
                    fragmented += _numbers(stream, begin + 4)[0]
                    if fragmented > min(size, _MOST_IN_FRAGMENTS):
                        return f"its fragments promise {fragmented} samples or more, and the file has {size} bytes"
                elif kind == b"elst":
                    edits += _numbers(stream, begin + 4)[0]
                    if edits > _MOST_EDITS:
                        return f"it is edited in {edits} places, {_MOST_EDITS} are the most"
                start = stop
    return None


def _box(stream: BinaryIO, start: int, end: int) -> tuple[bytes, int | None, int]:
    """Kind, first byte of the content and end of a box; no content where no box stands."""
    stream.seek(start)
    head = stream.read(16)
    size, kind = struct.unpack_from(">I4s", head)
    begin = start + 8
    if size == 1 and len(head) == 16:
        size, begin = struct.unpack_from(">Q", head, 8)[0], start + 16
    elif size == 0:  # up to the end
        size = end - start
    if size < begin - start:
        return kind, None, end
    return kind, begin, min(start + size, end)


def _numbers(stream: BinaryIO, start: int) -> tuple[int, int]:
    """Two numbers of 32 bits; zeros where the file ends."""
    stream.seek(start)
    first, second = struct.unpack(">II", stream.read(8).ljust(8, b"\0"))
    return first, second
