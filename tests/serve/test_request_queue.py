"""One video at a time, a bounded line, and a stop that lets the one in work finish."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable

import pytest

from rbft.serve.request_queue import BusyError, Turns


def run(body: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(body(), 20))  # type: ignore[arg-type]


def test_one_at_a_time_in_one_thread_and_in_order() -> None:
    async def body() -> None:
        turns, at_work, seen, threads = Turns(9), threading.Semaphore(1), [], set()

        def work(number: int) -> int:
            assert at_work.acquire(blocking=False), "two at once"
            time.sleep(0.01)
            threads.add(threading.get_ident())
            seen.append(number)
            at_work.release()
            return number

        async def ask(number: int) -> int:
            async with turns.place():
                return await turns.use(lambda: work(number))

        assert await asyncio.gather(*map(ask, range(10))) == list(range(10))
        assert (seen, len(threads), turns.held) == (list(range(10)), 1, 0)

    run(body)


def test_a_full_line_says_when_to_come_back() -> None:
    async def body() -> None:
        turns, gate = Turns(1), threading.Event()

        async def ask() -> None:
            async with turns.place():
                await turns.use(lambda: gate.wait(10))

        asked = [asyncio.create_task(ask()) for _ in range(2)]
        await asyncio.sleep(0.05)
        with pytest.raises(BusyError, match="2 videos are in work or waiting") as refused:
            await ask()
        assert refused.value.retry_after >= 1
        gate.set()
        await asyncio.gather(*asked)
        await ask()  # there is room again

    run(body)


def test_a_failure_gives_the_turn_on() -> None:
    async def body() -> None:
        turns = Turns(0)

        def fail() -> None:
            raise ValueError("this one only")

        for _ in range(3):
            with pytest.raises(ValueError, match="this one only"):
                async with turns.place():
                    await turns.use(fail)
        async with turns.place():
            assert await turns.use(lambda: 7) == 7

    run(body)


def test_closing_lets_the_one_in_work_finish_and_refuses_the_rest() -> None:
    async def body() -> None:
        turns, began, gate = Turns(5), threading.Event(), threading.Event()

        def work() -> str:
            began.set()
            gate.wait(10)
            return "answered"

        async def ask() -> str:
            async with turns.place():
                return await turns.use(work)

        first, second = asyncio.create_task(ask()), asyncio.create_task(ask())
        await asyncio.to_thread(began.wait, 10)
        turns.close()
        with pytest.raises(BusyError, match="stopping"):
            await ask()
        with pytest.raises(BusyError, match="stopping"):
            await asyncio.wait_for(second, 2)  # told at once, not after the one in work
        assert turns.in_work
        gate.set()
        assert await first == "answered"
        assert not turns.in_work

    run(body)


def test_who_is_being_received_holds_no_place_and_is_told_of_a_stop() -> None:
    async def body() -> None:
        turns, forever = Turns(0), asyncio.Event()

        async def send() -> None:
            async with turns.receiving(60):
                await forever.wait()

        sending = [asyncio.create_task(send()) for _ in range(4)]
        await asyncio.sleep(0.05)
        async with turns.place():
            assert await turns.use(lambda: 7) == 7
        with pytest.raises(BusyError, match="4 videos are being sent"):
            await send()
        turns.close()
        for task in sending:
            with pytest.raises(BusyError, match="stopping"):
                await asyncio.wait_for(task, 2)

    run(body)


def test_an_upload_has_a_deadline() -> None:
    async def body() -> None:
        with pytest.raises(TimeoutError):
            async with Turns(0).receiving(0.05):
                await asyncio.sleep(10)

    run(body)


def test_a_request_that_is_torn_down_as_its_turn_comes_gives_it_on() -> None:
    async def body() -> None:
        turns, gate = Turns(5), threading.Event()

        async def ask(job: Callable[[], object]) -> object:
            async with turns.place():
                return await turns.use(job)

        first = asyncio.create_task(ask(lambda: gate.wait(10)))
        await asyncio.sleep(0.05)
        second, third = asyncio.create_task(ask(lambda: 2)), asyncio.create_task(ask(lambda: 3))
        await asyncio.sleep(0.05)
        gate.set()
        await first
        second.cancel()  # it was woken, and has not run yet
        assert await third == 3
        assert await ask(lambda: 4) == 4

    run(body)


def test_a_request_that_is_torn_down_keeps_its_turn_until_the_work_is_done() -> None:
    async def body() -> None:
        turns, began, gate, running = Turns(5), threading.Event(), threading.Event(), []

        def work() -> None:
            running.append(1)
            began.set()
            gate.wait(10)
            running.pop()

        async def ask(job: Callable[[], object]) -> object:
            async with turns.place():
                return await turns.use(job)

        first = asyncio.create_task(ask(work))
        await asyncio.to_thread(began.wait, 10)
        first.cancel()
        second = asyncio.create_task(ask(lambda: len(running)))
        await asyncio.sleep(0.05)
        assert not first.done(), "its video must stay until the model has let go of it"
        assert not second.done()
        gate.set()
        assert await second == 0
        with pytest.raises(asyncio.CancelledError):
            await first

    run(body)
