"""Receiving one video of a form: to disk as it comes, never more than the limit, never under a name of the sender's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from rbft.data.formats.on_disk import is_video
from rbft.errors import printable

_OVERHEAD = 64 * 1024  # bytes of a form beside its file: boundaries, headers, other fields
_FIELD_BYTES = 1024
UPLOAD_SECONDS = 900.0
"""Most time that an upload may take as a whole."""
_SILENT_SECONDS = 30.0
# who sends a byte now and then is let go long before: that much a second is expected, but for the first seconds
_SLOWEST, _PATIENCE = 25_000, 30.0
DISCARD_SECONDS = 10.0
_LONGEST_NAME = 200


class UploadError(Exception):
    """A request that cannot be taken.

    Args:
        status: HTTP status: 400, 408, 413 or 415.
        message: message for a person.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Upload:
    """What a form brought.

    Args:
        name: The file's name as its sender calls it, for people only.
        path: path of the file; None until it has come.
        fields: The other fields.
    """

    name: str = ""
    path: Path | None = None
    fields: dict[str, str] = field(default_factory=dict)


async def receive(request: Request, folder: Path, max_bytes: int) -> Upload:
    """Receive a form with one file in the field `video`.

    Args:
        request: request of type multipart/form-data.
        folder: Where to put the file, under a name made here; of the sender's only a known suffix is kept.
        max_bytes: most bytes of the file.

    Raises:
        UploadError: It is no such form, brings no file or several, is larger, or stops coming.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise UploadError(415, "send the video as multipart/form-data in a field called video.")
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > max_bytes + _OVERHEAD:
        raise _too_large(max_bytes)
    form = _Form(folder, max_bytes)
    try:
        parser = MultipartParser(options[b"boundary"], form.callbacks())  # type: ignore[arg-type]
        taken, start = 0, time.monotonic()
        async for chunk in _chunks(request):
            taken += len(chunk)
            if taken > max_bytes + _OVERHEAD:
                raise _too_large(max_bytes)
            if taken < _SLOWEST * (time.monotonic() - start - _PATIENCE):
                raise UploadError(408, f"the video comes too slowly, with less than {_SLOWEST / 1000:g} kB a second.")
            parser.write(chunk)
        parser.finalize()
    except (FormParserError, UnicodeDecodeError) as error:
        raise UploadError(400, "the form is not well formed, or it was cut short.") from error
    except ClientDisconnect as error:
        raise UploadError(400, "the sender went away.") from error
    finally:
        form.close()
    if form.upload.path is None or not form.ended:
        raise UploadError(400, "the form brought no whole file in a field called video.")
    return form.upload


async def discard(request: Request, max_bytes: int, seconds: float) -> None:
    """Read what still comes, for some seconds and up to a limit: a sender that is cut off never sees the answer."""
    taken = 0
    try:
        async with asyncio.timeout(seconds):
            async for chunk in _chunks(request):
                taken += len(chunk)
                if taken > max_bytes + _OVERHEAD:
                    return
    except (ClientDisconnect, UploadError, TimeoutError):
        return


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    stream = request.stream()
    while True:
        try:
            # not wait_for, which before Python 3.12 can lose the end of the time for the whole
            async with asyncio.timeout(_SILENT_SECONDS):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise UploadError(408, f"nothing came for {_SILENT_SECONDS:g} s.") from error
        yield chunk


def _too_large(max_bytes: int) -> UploadError:
    return UploadError(413, f"the video is larger than {max_bytes / 1e6:g} MB, the most this server takes (--max-mb).")


class _Form:
    """What the parser of a form calls as its parts come."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.upload, self.ended = Upload(), False
        self._folder, self._max_bytes = folder, max_bytes
        self._header, self._value = b"", b""
        self._disposition = b""
        self._file: BinaryIO | None = None
        self._field: str | None = None
        self._text = b""

    def callbacks(self) -> dict[str, object]:
        names = (
            "part_begin",
            "header_field",
            "header_value",
            "header_end",
            "headers_finished",
            "part_data",
            "part_end",
            "end",
        )
        return {f"on_{name}": getattr(self, f"_{name}") for name in names}

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _part_begin(self) -> None:
        self._disposition, self._field, self._text = b"", None, b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header, self._value = b"", b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode()
        if b"filename" not in options:
            self._field = name
            return
        if name != "video" or self.upload.path is not None:
            raise UploadError(400, "send one file, in a field called video.")
        sent = PurePosixPath(options[b"filename"].decode(errors="replace").replace("\\", "/")).name
        suffix = PurePosixPath(sent).suffix.lower()
        self.upload.name = printable(sent)[-_LONGEST_NAME:] or "video"
        self.upload.path = self._folder / f"video{suffix if is_video(sent) else ''}"
        self._file = self.upload.path.open("xb")

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is None:
            self._text += data[start:end]
            if len(self._text) > _FIELD_BYTES:
                raise UploadError(400, f"the field {printable(self._field or '')[:40]!r} is too long.")
            return
        if self._file.tell() + end - start > self._max_bytes:
            raise _too_large(self._max_bytes)
        self._file.write(data[start:end])

    def _part_end(self) -> None:
        if self._file is None and self._field is not None:
            self.upload.fields[self._field] = self._text.decode()
        self.close()

    def _end(self) -> None:
        self.ended = True
