"""Who may use the model: one at a time, a few waiting, the rest asked to come back."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

T = TypeVar("T")
_RETRY_SECONDS = 5
_RECEIVED_AT_ONCE = 4  # for each place in the line: what they send lies on the disk


class BusyError(Exception):
    """There is no room for one more.

    Args:
        retry_after: Seconds after which it is worth asking again.
        message: message for a person.
    """

    def __init__(self, retry_after: int, message: str) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Turns:
    """Gives out the model. Everything is called from one event loop, except `close`.

    Args:
        waiting: number of requests that may wait after the current one.
    """

    def __init__(self, waiting: int) -> None:
        self._room = waiting + 1
        self._held = 0
        self._in_work = self._closed = False
        self._line: deque[asyncio.Future[None]] = deque()
        self._receiving: set[asyncio.Timeout] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._seconds = 1.0
        # a thread of its own: the loop answers others meanwhile, and the model is never used twice at once
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")

    @property
    def held(self) -> int:
        """Requests in work or waiting."""
        return self._held

    @property
    def closed(self) -> bool:
        """Whether it was asked to stop."""
        return self._closed

    @property
    def in_work(self) -> bool:
        """Whether the model is at work."""
        return self._in_work

    @asynccontextmanager
    async def receiving(self, seconds: float) -> AsyncIterator[None]:
        """Inside of the block a request is received, which takes no place in the line.

        Args:
            seconds: That it may take.

        Raises:
            BusyError: The line is full as it begins, too many others are being received, or the server is stopping.
            TimeoutError: It is not whole in time.
        """
        self._require_room()
        if len(self._receiving) >= _RECEIVED_AT_ONCE * self._room:
            raise BusyError(_RETRY_SECONDS, f"{len(self._receiving)} videos are being sent; try again in a while.")
        self._loop = asyncio.get_running_loop()
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                self._receiving.add(limit)
                yield
        except TimeoutError:
            self._refuse_if_closed()
            raise
        finally:
            self._receiving.discard(limit)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place in the line, held while the request waits and is worked on.

        Raises:
            BusyError: The line is full, or the server is stopping.
        """
        self._require_room()
        self._loop = asyncio.get_running_loop()
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
        await self._turn()
        try:
            self._refuse_if_closed()
            start = time.monotonic()
            # shielded: a request that is torn down must not leave the thread at work behind a free model
            running = asyncio.ensure_future(asyncio.get_running_loop().run_in_executor(self._thread, work))
            try:
                return await asyncio.shield(running)
            finally:
                await asyncio.wait([running])
                self._seconds = 0.7 * self._seconds + 0.3 * (time.monotonic() - start)
        finally:
            self._pass_on()

    async def _turn(self) -> None:
        if not self._in_work:
            self._in_work = True
            return
        turn = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was given the turn at the moment it was torn down
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        while self._line:
            if not (turn := self._line.popleft()).done():
                turn.set_result(None)
                return
        self._in_work = False

    def close(self) -> None:
        """Let the one in work finish and tell all others at once; safe to call from a signal handler."""
        self._closed = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._notify)

    def _notify(self) -> None:
        """Wake those that wait and those that are being received."""
        for turn in self._line:
            if not turn.done():
                turn.set_exception(_stopping())
        assert self._loop is not None
        for limit in self._receiving:
            limit.reschedule(self._loop.time())

    def _require_room(self) -> None:
        self._refuse_if_closed()
        if self._held >= self._room:
            seconds = max(1, math.ceil(self._seconds * self._held))
            raise BusyError(seconds, f"{self._held} videos are in work or waiting; try again in {seconds} s.")

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise _stopping()


def _stopping() -> BusyError:
    return BusyError(_RETRY_SECONDS, "the server is stopping.")
