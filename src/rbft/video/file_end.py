"""Whether a file stops before its container says that it ends, where reading it up to there raises no error."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

# What holds pictures of a fragmented mp4, or comes before more of them (ISO/IEC 14496-12).
_OF_FRAGMENTS = frozenset((b"moof", b"mdat", b"styp", b"sidx"))
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")


def missing_end(file: Path, container: str) -> str | None:
    """What shows that a file was cut, as a clause; None where nothing does, or its container does not tell.

    Args:
        file: an existing file.
        container: name of the demuxer that reads it.
    """
    with file.open("rb") as stream:
        if container == "gif":
            return None if _gif_ends(stream) else "is cut short: it ends without the trailer of a GIF"
        if "mp4" in container and (box := _cut_box(stream)):
            return f"is cut short: its last box, {box}, reaches beyond the end of the file"
        if container == "asf" and (missing := _missing_data(stream)):
            return f"is cut short: {missing} bytes of its data are missing"
    return None


def _gif_ends(stream: BinaryIO) -> bool:
    """Whether the blocks of a GIF lead to its trailer (GIF89a, 12 to 27); also where they lead to something else."""
    _skip_colours(stream, stream.read(13)[10:11])
    while kind := stream.read(1):
        if kind == b"\x2c":  # an image: place, size, colours, then data after the width of its codes
            _skip_colours(stream, stream.read(9)[8:])
            stream.seek(1, os.SEEK_CUR)
        elif kind == b"\x21":  # an extension, and its label
            stream.seek(1, os.SEEK_CUR)
        else:
            return True
        while (size := stream.read(1)) not in (b"", b"\0"):
            stream.seek(size[0], os.SEEK_CUR)
    return False


def _skip_colours(stream: BinaryIO, flags: bytes) -> None:
    if flags and flags[0] & 0x80:
        stream.seek(3 * 2 ** ((flags[0] & 7) + 1), os.SEEK_CUR)


def _cut_box(stream: BinaryIO) -> str | None:
    """The kind of the box in which a fragmented mp4 ends too early; None where it does not.

    The index of one that is not fragmented says what is missing.
    """
    end = stream.seek(0, os.SEEK_END)
    start, fragmented = 0, False
    while end - start >= 8:
        stream.seek(start)
        head = stream.read(16)
        size, kind = struct.unpack_from(">I4s", head)
        if size == 1 and len(head) == 16:
            size = struct.unpack_from(">Q", head, 8)[0]
        if size < 8:  # up to the end of the file, or no box
            return None
        fragmented = fragmented or kind == b"moof"
        start += size
        if start > end and fragmented and kind in _OF_FRAGMENTS:
            return str(kind, "ascii")
    return None


def _missing_data(stream: BinaryIO) -> int:
    """Bytes by which the data object of an ASF file, after its header, reaches beyond the end; 0 where it does not."""
    end = stream.seek(0, os.SEEK_END)
    stream.seek(16)
    start = int.from_bytes(stream.read(8), "little")
    if start + 24 > end:
        return 0
    stream.seek(start)
    kind, size = stream.read(16), int.from_bytes(stream.read(8), "little")
    return max(0, start + size - end) if kind == _ASF_DATA else 0
