"""Who may use the model: one at a time, a few waiting, the rest asked to come back."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

T = TypeVar("T")


class BusyError(Exception):
    """There is no room for one more.

    Args:
        retry_after: Seconds after which it is worth asking again.
        message: For a person.
    """

    def __init__(self, retry_after: int, message: str) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Turns:
    """Gives out the model. Everything is called from one event loop, except `close`.

    Args:
        waiting: How many may wait behind the one in work.
    """

    def __init__(self, waiting: int) -> None:
        self._room = waiting + 1
        self._held = 0
        self._lock = asyncio.Lock()
        self._closed = False
        self._seconds = 1.0
        # a thread of its own: the loop answers others meanwhile, and the model is never used twice at once
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")

    @property
    def held(self) -> int:
        """Requests in work or waiting."""
        return self._held

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place in the line, held while the request is received, waits and is worked on.

        Raises:
            BusyError: The line is full, or the server is stopping.
        """
        self._refuse_if_closed()
        if self._held >= self._room:
            seconds = max(1, math.ceil(self._seconds * self._held))
            raise BusyError(seconds, f"{self._held} videos are in work or waiting; try again in {seconds} s.")
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    async def use(self, work: Callable[[], T]) -> T:
        """Wait for the model, then run `work` in its thread.

        Raises:
            BusyError: The server was asked to stop before it was this one's turn.
        """
        async with self._lock:
            self._refuse_if_closed()
            start = time.monotonic()
            # shielded: a request that is torn down must not leave the thread at work behind a free lock
            running = asyncio.ensure_future(asyncio.get_running_loop().run_in_executor(self._thread, work))
            try:
                return await asyncio.shield(running)
            finally:
                await asyncio.wait([running])
                self._seconds = 0.7 * self._seconds + 0.3 * (time.monotonic() - start)

    def close(self) -> None:
        """Let the one in work finish and nobody else begin; safe to call from a signal handler."""
        self._closed = True

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise BusyError(5, "the server is stopping.")
