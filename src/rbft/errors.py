"""The errors a person can cause or meet; each message names the place, what is wrong and what to do."""

from __future__ import annotations

import unicodedata
import warnings

# Zero-width joiners belong to the spelling of names in some scripts; other format characters hide or reorder text.
_HARMLESS = "\n\t\u200c\u200d"


def printable(text: str) -> str:
    r"""`text` with the characters written out (`\x1b`) that would drive a terminal or disguise what stands there.

    File names, labels and what a model wrote reach messages; they are data of others.
    """
    return "".join(
        repr(char)[1:-1] if unicodedata.category(char) in ("Cc", "Cf", "Cs") and char not in _HARMLESS else char
        for char in text
    )


class RBFTError(Exception):
    """A failure with a message for the person who runs the command (exit code 1)."""

    exit_code = 1

    def __str__(self) -> str:
        return printable(super().__str__())


class ConfigError(RBFTError):
    """An experiment file, key or flag is wrong (exit code 2)."""

    exit_code = 2


class DataError(RBFTError):
    """The data set as a whole cannot give a trustworthy result (missing root, empty class, leak, ...)."""


class VideoError(DataError):
    """One video cannot be read, or must not be.

    Args:
        path: The file, as the person named it.
        reason: What is wrong with it, as a clause ("is empty (0 bytes)").
    """

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = str(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        """Errors cross from decoding processes by pickling, which would call with the message alone."""
        return type(self), (self.path, self.reason)


class ModelError(RBFTError):
    """The model folder or id cannot be used (no video input, missing files, ...)."""


class StageError(RBFTError):
    """A stage cannot start from what the run folder holds."""


class PassingError(RBFTError):
    """A failure that may not come again, such as a process that was killed (exit code 75, as of sysexits.h)."""

    exit_code = 75


class StorageError(RBFTError, OSError):
    """A disk has no room left for what is to be written; what was there before is whole.

    Args:
        message: Path, need and free room.
        number: The system's error number.
    """

    def __init__(self, message: str, number: int | None = None) -> None:
        super().__init__(message)
        # distinguishes it from other failures of a disk where files are optional
        self.errno = number


class Interrupted(RBFTError):
    """The person or the scheduler asked to stop, and everything needed to go on is saved.

    Args:
        signum: The signal received; the exit code is 128 + signum (130 for Ctrl-C, 143 for SIGTERM).
        message: How to continue.
    """

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + signum


class RBFTWarning(UserWarning):
    """A caution for the person who runs the command; what goes on all the same."""

    def __str__(self) -> str:
        return printable(super().__str__())


def warn(message: str) -> None:
    """Give an `RBFTWarning`.

    Args:
        message: what is the matter, and what to do.
    """
    warnings.warn(message, RBFTWarning, stacklevel=3)
