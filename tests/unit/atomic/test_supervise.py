"""Awaiting what may not return: every way a body, its time and its caller can end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import sys

import anyio
import pytest

from shared_libs.atomic.alarm import Expiry
from shared_libs.atomic.errors import DeadlineExceeded, LLMError
from shared_libs.atomic.events import Abandoned
from shared_libs.atomic.supervise import GRACE_S, BodyCancelled, BodyExited, settle
from tests.support import run_virtual
from tests.unit.atomic.supervising import Ledger, absorb, now, sleep


async def fail(error):
    await asyncio.sleep(0)
    raise error


@pytest.mark.parametrize("seconds", [0, 0.5])
def test_a_result_in_time_is_returned(seconds):
    async def main():
        ledger = Ledger()
        return await ledger.supervise(sleep(seconds)), now(), ledger.rows

    assert run_virtual(main()) == ("done", seconds, [])


@pytest.mark.parametrize("error", [ValueError("no"), TimeoutError("mine"), DeadlineExceeded("inner")])
def test_an_error_is_raised_as_it_is(error):
    async def main():
        with pytest.raises(type(error)) as caught:
            await Ledger().supervise(fail(error))
        assert caught.value is error

    run_virtual(main())


@pytest.mark.promise("time-total")
def test_a_body_that_obeys_ends_at_its_time():
    async def main():
        ledger = Ledger()
        with pytest.raises(DeadlineExceeded, match="too late") as caught:
            await ledger.supervise(sleep())
        return caught.value.still_running, now(), ledger.rows

    assert run_virtual(main()) == (False, 1.0, [])


@pytest.mark.promise("time-total")
def test_a_time_already_over_ends_at_once():
    async def main():
        await asyncio.sleep(5)
        with pytest.raises(DeadlineExceeded):
            await Ledger().supervise(sleep(), -3)
        return now()

    assert run_virtual(main()) == 5


def test_a_moved_expiry_holds_and_tells_its_own_reason():
    class Moving(Expiry):
        @property
        def why(self) -> str:
            return "first" if self.at == 1.0 else "second"

    async def main():
        expiry = Moving(1.0, "")

        async def body():
            await asyncio.sleep(0.9)
            expiry.at = 3.0
            await asyncio.sleep(math.inf)

        with pytest.raises(DeadlineExceeded, match="second"):
            await Ledger().supervise(body(), expiry)
        return now()

    assert run_virtual(main()) == 3


def test_an_endless_time_needs_no_timer():
    async def main():
        return await Ledger().supervise(sleep(9999), Expiry(math.inf, ""))

    assert run_virtual(main()) == "done"


@pytest.mark.promise("time-total", "time-orphans")
def test_a_body_that_absorbs_its_cancellation_is_left_behind_and_booked_until_it_ends():
    async def main():
        ledger, ended = Ledger(), []
        with pytest.raises(DeadlineExceeded) as caught:
            await ledger.supervise(absorb(6, ended))
        left_at = now()
        ((name, call_id, began_at, is_running),) = ledger.rows
        running = is_running()
        (event,) = ledger.events
        assert isinstance(event, Abandoned)
        await asyncio.sleep(10)
        return caught.value.still_running, left_at, (event.what, name, call_id, began_at), running, is_running(), ended

    still_running, left_at, row, running, later, ended = run_virtual(main())
    assert (still_running, row, running, later, ended) == (True, ("tool", "t", "c", 0), True, False, [6])
    assert left_at == pytest.approx(1 + GRACE_S)


def test_a_result_in_the_grace_still_counts():
    async def main():
        return await Ledger().supervise(absorb(1 + GRACE_S / 2))

    assert run_virtual(main()) == "late"


def test_an_error_while_cleaning_up_is_the_time_being_over():
    async def main():
        async def body():
            try:
                await asyncio.sleep(math.inf)
            finally:
                raise OSError("cleanup")

        ledger = Ledger()
        with pytest.raises(DeadlineExceeded) as caught:
            await ledger.supervise(body())
        return caught.value.still_running, ledger.rows

    assert run_virtual(main()) == (False, [])


def test_a_body_that_cancels_itself_is_no_cancellation_of_the_caller():
    async def main():
        async def body():
            raise asyncio.CancelledError

        with pytest.raises(BodyCancelled):
            await Ledger().supervise(body())
        with pytest.raises(BodyCancelled):
            await Ledger().supervise(cancel_own_task())
        return asyncio.current_task().cancelling()

    async def cancel_own_task():
        asyncio.current_task().cancel()
        await asyncio.sleep(1)

    assert run_virtual(main()) == 0


@pytest.mark.promise("cancel-wins")
def test_a_cancellation_from_outside_reaches_the_body_first():
    async def main():
        ledger, seen = Ledger(), []

        async def body():
            try:
                await asyncio.sleep(math.inf)
            except asyncio.CancelledError:
                seen.append(now())
                raise

        task = asyncio.create_task(ledger.supervise(body(), 10))
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return seen, now(), ledger.rows

    assert run_virtual(main()) == ([0.5], 0.5, [])


@pytest.mark.promise("cancel-wins")
@pytest.mark.parametrize("body_ends", ["returns", "raises"])
def test_a_cancellation_from_outside_wins_over_whatever_the_body_ends_in(body_ends):
    async def main():
        async def body():
            try:
                await asyncio.sleep(math.inf)
            except asyncio.CancelledError:
                if body_ends == "returns":
                    return "anyway"
                raise ValueError("cleanup") from None

        ledger = Ledger()
        task = asyncio.create_task(ledger.supervise(body(), 10))
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        del task
        gc.collect()
        return ledger.complaints

    assert run_virtual(main()) == []


@pytest.mark.promise("cancel-wins", "time-orphans")
@pytest.mark.parametrize("second_after", [None, GRACE_S / 4])
@pytest.mark.parametrize(("seconds", "grace_s"), [(10, GRACE_S), (0.5, GRACE_S / 2)])
def test_a_cancellation_waits_the_grace_at_most_and_books_what_goes_on(seconds, grace_s, second_after):
    """`seconds` 10: it comes while the body has time; 0.5: half through its grace. A second one changes nothing."""

    async def main():
        ledger = Ledger()
        task = asyncio.create_task(ledger.supervise(absorb(6), seconds))
        await asyncio.sleep(0.5 + GRACE_S / 2)
        began = now()
        task.cancel()
        if second_after is not None:
            asyncio.get_running_loop().call_later(second_after, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        return now() - began, [row[:2] for row in ledger.rows]

    took, rows = run_virtual(main())
    assert took == pytest.approx(grace_s)
    assert rows == [("t", "c")]


def test_a_body_is_cancelled_only_once():
    """A driver that is closing its connection when a second cancellation comes leaves it half closed."""
    came = []

    async def body():
        try:
            await sleep()
        except asyncio.CancelledError:
            came.append(now())
            try:
                await asyncio.sleep(3)
            except asyncio.CancelledError:
                came.append(now())

    async def main():
        task = asyncio.create_task(Ledger().supervise(body(), 0.5))
        await asyncio.sleep(0.5 + GRACE_S / 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(5)

    run_virtual(main())
    assert came == [0.5]


async def close_slowly(closed):
    """Obey a cancellation, and need some turns of the loop to clean up, as a driver that closes its connection does."""
    try:
        await sleep()
    finally:
        for _ in range(5):
            await asyncio.sleep(0)
        closed.append(True)


@pytest.mark.promise("cancel-wins", "time-orphans")
@pytest.mark.parametrize("scope", ["asyncio.timeout", "move_on_after", "fail_after", "task group"])
def test_what_obeys_has_its_grace_under_every_kind_of_scope(scope):
    """The scopes of anyio, and so of Starlette, FastAPI and MCP, cancel again on every turn of the loop."""

    async def main():
        ledger, closed = Ledger(), []

        async def call():
            await ledger.supervise(close_slowly(closed), 10)

        if scope == "asyncio.timeout":
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await call()
        elif scope == "move_on_after":
            with anyio.move_on_after(0.5):
                await call()
        elif scope == "fail_after":
            with contextlib.suppress(TimeoutError), anyio.fail_after(0.5):
                await call()
        else:
            async with anyio.create_task_group() as group:
                group.start_soon(call)
                await anyio.sleep(0.5)
                group.cancel_scope.cancel()
        alive = asyncio.all_tasks() - {asyncio.current_task()}
        return closed, alive, ledger.rows, asyncio.current_task().cancelling()

    assert asyncio.run(main()) == ([True], set(), [], 0)


@pytest.mark.promise("cancel-wins", "time-orphans")
def test_what_absorbs_is_left_after_the_grace_though_it_is_cancelled_on_every_turn():
    async def main():
        ledger = Ledger()
        began = now()
        with anyio.move_on_after(0.05):
            await ledger.supervise(absorb(0.5), 10)
        took = now() - began
        await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()})
        return took < 0.4, [row[:2] for row in ledger.rows]

    assert asyncio.run(main()) == (True, [("t", "c")])


async def nested(depth):
    await (asyncio.create_task(nested(depth - 1)) if depth else asyncio.sleep(60))


def test_what_obeys_has_its_turns_though_the_process_was_held_up_for_longer_than_the_grace():
    async def main():
        tasks = [asyncio.create_task(body) for body in (nested(0), nested(3), absorb(60))]
        await asyncio.sleep(1)
        for task in tasks:
            task.cancel()
        await settle(tasks, 0)  # it is over before anybody could look
        return [task.done() for task in tasks], now()

    assert run_virtual(main()) == ([True, True, False], 1)


def test_a_body_that_exits_does_not_end_the_process():
    async def body():
        await asyncio.sleep(0)
        raise SystemExit(3)

    async def main():
        with pytest.raises(BodyExited, match="SystemExit: 3"):
            await Ledger().supervise(body())

    run_virtual(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks begin at once from 3.12 on")
def test_a_body_that_never_waits_costs_no_turn_of_the_loop():
    async def main():
        turns = []
        asyncio.get_running_loop().call_soon(turns.append, 1)
        return await Ledger().supervise(at_once()), [*turns]

    async def at_once():
        return "done"

    assert run_virtual(main()) == ("done", [])


@pytest.mark.promise("time-total")
def test_a_moment_moved_earlier_holds_too():
    async def main():
        expiry = Expiry(10.0, "too late")

        async def body():
            await asyncio.sleep(0.5)
            expiry.move(1.0)
            await asyncio.sleep(math.inf)

        with pytest.raises(DeadlineExceeded):
            await Ledger().supervise(body(), expiry)
        return now()

    assert run_virtual(main()) == 1.0


def test_an_error_that_comes_too_late_is_never_complained_about():
    async def main():
        async def body():
            await absorb(3)
            raise ValueError("late")

        ledger = Ledger()
        with pytest.raises(DeadlineExceeded):
            await ledger.supervise(body())
        await asyncio.sleep(10)
        ledger.rows.clear()
        gc.collect()
        return ledger.complaints

    assert run_virtual(main()) == []


@pytest.mark.parametrize("fails", [ValueError("no"), LLMError("no")])
def test_a_failure_leaves_no_cycle_for_the_collector(fails):
    """A full collection stops every run of the process: what fails often must not call for one."""

    async def body():
        raise type(fails)("no")

    async def main():
        ledger = Ledger()

        async def once():
            with contextlib.suppress(ValueError, LLMError):
                await ledger.supervise(body())

        async def left():
            gc.disable()
            try:
                gc.collect(1)  # the youngest are those of `once` alone, and the many others need not be looked at
                await once()
                return gc.collect(0)
            finally:
                gc.enable()

        await once()
        return min([await left() for _ in range(3)])  # a thread of another test may leave something, once

    assert run_virtual(main()) == 0
