"""Writing files so that they are whole or absent, and JSON Lines that survive a torn last line."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import math
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any

from rbft.errors import ConfigError, DataError, StorageError

NOT_JSON = (ValueError, RecursionError)
"""What `json` raises on text that it cannot read: bytes that are no text and endless numbers are ValueErrors too."""


NOT_YAML = (ValueError, KeyError, IndexError, AttributeError, RecursionError)
"""What `yaml` raises beside its own errors, as for the date 2024-13-45 or a number that is marked and is none."""


def parse_yaml(text: str, *, single: bool = False) -> Any:
    """What a text of YAML says.

    Args:
        text: the text.
        single: whether a key that stands twice in one place is refused; the last one would replace the others.

    Raises:
        ValueError: It is no YAML; says why.
    """
    import yaml

    twice = ""
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        twice = _key_that_stands_twice(root) if single else ""
        content = None if root is None else loader.construct_document(root)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except NOT_YAML as error:
        raise ValueError(f"a value is not what it looks like or is marked as ({error})") from error
    if twice:
        raise ValueError(twice)
    return content


def _key_that_stands_twice(root: Any) -> str:
    """What to say of the first key that stands twice in one mapping below a node of YAML; empty if none does."""
    left, seen = [root], set()
    while left:
        node = left.pop()
        # what an alias stands for is one node
        if node is None or node.id == "scalar" or id(node) in seen:
            continue
        seen.add(id(node))
        pairs = node.value if node.id == "mapping" else [(None, item) for item in node.value]
        left += [value for _, value in pairs]
        first: dict[tuple[str, str], Any] = {}
        for key in (key for key, _ in pairs if key is not None and key.value != "<<"):
            if (before := first.setdefault((key.tag, str(key.value)), key)) is not key:
                lines = f"{before.start_mark.line + 1} and {key.start_mark.line + 1}"
                said = f"the key {key.value!r} stands twice in one place, in the lines {lines}"
                return f"{said}: the second would replace the first. Put both together, or take one out"
    return ""


def expanded(name: str | Path) -> Path:
    """A path with the home folder in the place of `~` or `~user`; where there is no such user, as it is."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def read_yaml(path: Path) -> Any:
    """Content of a YAML file.

    Raises:
        DataError: There is no such file, it cannot be read, or it is no YAML; names it.
    """
    try:
        return parse_yaml(path.read_text(encoding="utf-8"), single=True)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise DataError(f"{path}: not valid YAML: {error}") from error


NO_ROOM = {
    errno.ENOSPC: "no space left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "larger than this process may write (ulimit -f)",
}
"""What is wrong where the system refuses to write more, by its error number."""


def no_room(path: Path, error: BaseException, need: int | None = None) -> StorageError | None:
    """What to raise where writing `path` failed for want of room; None where it failed for another reason.

    Args:
        path: file that was being written.
        error: error of the system, or of a library in Rust that gives the system's number in its text.
        need: Bytes of the whole file, where they are known.
    """
    if isinstance(error, StorageError):
        return None
    match = re.search(r"\(os error (\d+)\)", str(error))
    number = error.errno if isinstance(error, OSError) else int(match[1]) if match else None
    if number not in NO_ROOM:
        return None
    wanted = "" if need is None else f"{need:,} bytes are needed, "
    free = shutil.disk_usage(path.parent).free
    return StorageError(
        f"{path}: {NO_ROOM[number]}: {wanted}{free:,} bytes are free there. Make room and give the "
        "same command again; what was saved before is whole.",
        number,
    )


def file_digest(path: Path) -> str:
    """BLAKE2b-128 of the whole file, in hexadecimal."""
    status = path.stat()
    return _digest(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@cache
def _digest(path: Path, size: int, modified: int, changed: int) -> str:
    """Read a file once a process as long as its size and times stay: every stage of a run asks for the same videos."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` durable (POSIX: the directory entry is data of its own)."""
    if os.name == "nt":
        # folders cannot be opened there, and the file system journals its entries itself
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


@contextmanager
def replacing(path: Path, need: int | None = None) -> Iterator[Path]:
    """A temporary file to write in the block, which becomes `path` after it, whole and durable, or else is removed.

    It lies in the same folder, so that the rename is one; the file is synced before it and the folder after it. A file
    in the place of another may be read by whom that one might.

    Args:
        path: file to write.
        need: Bytes of it, for the message where there is no room.

    Raises:
        StorageError: The disk is full; `path` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    except OSError as error:
        if (full := no_room(path, error, need)) is not None:
            raise full from error
        raise
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        # mkstemp makes the file private; results are meant to be read by others as the umask allows
        temporary.chmod(stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o666 & ~_umask())
        temporary.replace(path)
    except BaseException as error:
        full = no_room(path, error, need)
        temporary.unlink(missing_ok=True)
        if full is not None:
            raise full from error
        raise
    sync_folder(path.parent)


def write_atomic(path: Path, data: str | bytes) -> None:
    """Write `data` to `path`, whole or not at all.

    Raises:
        StorageError: The disk is full; `path` is as it was.
    """
    content = _encoded(data) if isinstance(data, str) else data
    with replacing(path, len(content)) as temporary:
        temporary.write_bytes(content)


def _encoded(text: str) -> bytes:
    r"""In UTF-8; half a surrogate pair, which a file name that is not UTF-8 has, as JSON escapes it: `\udcff`."""
    return text.encode(errors="backslashreplace")


def remove_unfinished(folder: Path, seconds: float = 0.0, of: Collection[str] | None = None) -> None:
    """Remove temporary files that a killed process left in `folder`.

    Args:
        folder: Where they lie.
        seconds: Only those that are older; needed where somebody else may be writing there.
        of: Only those of files with these names; needed where a person has files of their own. None: all.
    """
    for path in folder.glob(".*.tmp"):
        # as `replacing` names them: a dot, the file's name, and letters of chance
        if of is not None and path.name[1:].rsplit(".", 2)[0] not in of:
            continue
        if time.time() - path.stat().st_mtime >= seconds:
            path.unlink(missing_ok=True)


def require_writable(path: Path, flag: str, *, folder: bool = False) -> None:
    """Refuse a place for a result that cannot be written, before the work is done.

    Args:
        path: The file, or the folder, to be made; folders above it may be made, too.
        flag: By which the person named it, for the message.
        folder: Whether it is to be a folder.

    Raises:
        ConfigError: Nothing can be made there, a folder stands in the place of a file, or a file in that of a folder.
    """
    # a person's folder of that name must not be renamed to make room for a file
    if path.exists() and path.is_dir() != folder:
        found, wanted = ("file", "folder") if folder else ("folder", "file")
        raise ConfigError(f"{flag} {path}: is a {found}; name another place for the {wanted}.")
    above = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
    try:
        with tempfile.TemporaryFile(dir=above):
            pass
    except OSError as error:
        raise ConfigError(f"{flag} {path}: cannot be written ({error.strerror}); name another place.") from error


_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")


def write_csv(
    path: Path,
    rows: Iterable[Sequence[str]],
    delimiter: str = ",",
    *,
    guard: bool = True,
    marked: bool = False,
    line_end: str = "\n",
) -> None:
    """Write rows of text, whole or not at all, as a table whose cells no spreadsheet takes for formulas.

    Args:
        path: file to write.
        rows: cells, row by row.
        delimiter: what stands between cells.
        guard: whether cells are guarded as by `guarded_cell`; else they are written as they are.
        marked: whether the file begins with a byte order mark, by which spreadsheets know UTF-8.
        line_end: what ends a row.
    """
    text = io.StringIO()
    quoted = [[guarded_cell(cell) if guard else cell for cell in row] for row in rows]
    # the writer leaves a carriage return bare, which ends a row for whoever reads
    returns = any("\r" in cell for row in quoted for cell in row)
    csv.writer(
        text, delimiter=delimiter, lineterminator=line_end, quoting=csv.QUOTE_ALL if returns else csv.QUOTE_MINIMAL
    ).writerows(quoted)
    write_atomic(path, ("\ufeff" if marked else "") + text.getvalue())


def guarded_cell(cell: str) -> str:
    """A cell with an apostrophe in front, as spreadsheets understand it, where one could take it for a formula.

    So it is with what begins with one of `= + - @`, a tab or the end of a line; `plain_cell` takes it off again.
    """
    return f"'{cell}" if _FORMULA.match(cell) else cell


def plain_cell(cell: str) -> str:
    """A cell of a table without the apostrophe that keeps spreadsheets from taking it for a formula."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _json(path: Path, value: object, indent: int | None = None) -> str:
    """`value` as JSON that any program reads: Python's own would hold NaN and Infinity, which JSON does not have."""
    try:
        return json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise DataError(f"{path}: {_not_finite(value)} is not a finite number, so nothing was written.") from error


def _not_finite(value: object, place: str = "") -> str:
    """Where in a value the first number stands that is not finite; empty where there is none."""
    if isinstance(value, float):
        return "" if math.isfinite(value) else place or "the value"
    inner: Iterable[tuple[object, object]] = ()
    if isinstance(value, Mapping):
        inner = value.items()
    elif isinstance(value, (list, tuple)):
        inner = enumerate(value)
    return next(
        (place_inside for key, item in inner if (place_inside := _not_finite(item, f"{place}.{key}".lstrip(".")))), ""
    )


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented JSON, whole or not at all.

    Raises:
        DataError: It holds a number that JSON does not have.
    """
    write_atomic(path, _json(path, value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: The file is not JSON; names the file and the place.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except NOT_JSON as error:
        raise DataError(f"{path} is not valid JSON ({error}). Remove it or restore it.") from error


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line, whole or not at all.

    Raises:
        DataError: A row holds a number that JSON does not have.
    """
    write_atomic(path, _json_lines(path, rows))


def _json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(_json(path, row) + "\n" for row in rows)


def append_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append rows and fsync, so that what was written survives a kill right after.

    A torn last line that a kill left behind is cut off first: appending after it would damage a good row. One that
    lacks its end alone, as editors leave it, gets it.

    Raises:
        StorageError: The disk is full; the file is as it was.
        DataError: A row holds a number that JSON does not have; the file is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    content = _encoded(_json_lines(path, rows))
    end = None
    try:
        with path.open("ab+") as stream:
            end, before = _after_whole_lines(stream)
            stream.write(before + content)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        if end is not None:
            os.truncate(path, end)
        if (full := no_room(path, error, len(content))) is not None:
            raise full from error
        raise


def _after_whole_lines(stream: IO[bytes]) -> tuple[int, bytes]:
    """Go to the end of a file and cut off a torn last line; where the end is, and what ends the line before it."""
    before = b""
    if stream.seek(0, os.SEEK_END):
        stream.seek(-1, os.SEEK_END)
        # only a torn file is read whole: one that grows by a line at a time would be read over and over
        if stream.read(1) != b"\n":
            stream.seek(0)
            content = stream.read()
            whole = content.rfind(b"\n") + 1
            if _is_object(content[whole:]):
                before = b"\n"
            else:
                stream.truncate(whole)
    return stream.seek(0, os.SEEK_END), before


def _is_object(line: bytes) -> bool:
    """Whether a line is a whole JSON object; no beginning of one is."""
    try:
        return isinstance(json.loads(line), dict)
    except NOT_JSON:
        return False


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, object); a last line that a kill tore, without its newline and no object, is left out.

    Raises:
        DataError: Any other line is not a JSON object; names file and line.
    """
    *lines, last = path.read_bytes().split(b"\n")
    for number, line in enumerate([*lines, last] if _is_object(last) else lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except NOT_JSON as error:
            raise DataError(f"{path}, line {number}: not valid JSON ({error}). Fix or delete that line.") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: expected a JSON object, found {type(row).__name__}.")
        yield number, row


def archive(path: Path) -> Path | None:
    """Archive `path`: rename it to the first free `<name>.old-<n>`; nothing is deleted. None if it does not exist."""
    if not path.exists():
        return None
    number = 1
    while (target := path.with_name(f"{path.name}.old-{number}")).exists():
        number += 1
    path.rename(target)
    return target
