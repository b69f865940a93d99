"""What is left running when a call is given up: booked, counted, and told until it ends."""

from __future__ import annotations

import asyncio
import threading

import pytest

from shared_libs.atomic.alarm import Expiry
from shared_libs.atomic.errors import DeadlineExceeded
from shared_libs.atomic.events import Abandoned, AbandonedEnded
from shared_libs.atomic.supervise import MAX_LEFT_RUNNING, LeftRunning, supervise
from tests.support import run_virtual
from tests.unit.atomic.supervising import Ledger, absorb, now, sleep


class Elsewhere:
    """Work that a test calls running or over."""

    def __init__(self, is_running):
        self._is_running = is_running

    @property
    def running(self):
        return self._is_running()

    def withdraw(self):
        pass

    def when_over(self, then):
        self.tell = then

    def belong_to(self, call):
        pass


@pytest.mark.promise("time-orphans")
def test_work_that_goes_on_outside_the_task_is_booked():
    async def main():
        ledger, running = Ledger(), [True]
        with pytest.raises(DeadlineExceeded) as caught:
            await ledger.supervise(sleep(), elsewhere=Elsewhere(lambda: running[0]))
        before = ledger.rows[0][3]()
        running[0] = False
        return caught.value.still_running, before, ledger.rows[0][3]()

    assert run_virtual(main()) == (True, True, False)


@pytest.mark.promise("time-orphans")
@pytest.mark.parametrize("outside", [False, True])
def test_what_was_left_running_is_told_and_counted_until_it_ends(outside):
    async def main():
        ledger, left, running = Ledger(), LeftRunning(), [outside]
        work = Elsewhere(lambda: running[0])
        with pytest.raises(DeadlineExceeded):
            await ledger.supervise(absorb(6), 1, left_running=left, elsewhere=work)
        counted = [len(left)]
        await asyncio.sleep(7)
        counted.append(len(left))
        running[0] = False
        work.tell()
        return counted, len(left), [(type(event), event.call_id) for event in ledger.events], ledger.events[-1].late_s

    counted, at_last, events, late_s = run_virtual(main())
    assert (counted, at_last) == ([1, int(outside)], 0)
    assert events == [(Abandoned, "c"), (AbandonedEnded, "c")]
    assert late_s == pytest.approx(8 if outside else 6, abs=2.1)


def test_what_is_left_running_outside_a_run_is_a_warning(caplog):
    async def main():
        with pytest.raises(DeadlineExceeded):
            await supervise(absorb(3), Expiry(now() + 1, "late"), what="memory", name="shelf")
        await asyncio.sleep(5)

    with caplog.at_level("INFO"):
        run_virtual(main())
    warned, ended = (record for record in caplog.records if record.name.startswith("shared_libs"))
    assert (warned.levelname, ended.levelname) == ("WARNING", "INFO")
    assert warned.getMessage() == "memory shelf ignored its cancellation and was left running"
    assert ended.getMessage().startswith("memory shelf ended")


@pytest.mark.promise("time-orphans")
def test_work_outside_the_task_is_booked_when_the_caller_is_cancelled():
    async def main():
        ledger = Ledger()
        release = threading.Event()
        task = asyncio.create_task(ledger.supervise(sleep(), 10, elsewhere=Elsewhere(lambda: not release.is_set())))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return len(ledger.rows)

    assert run_virtual(main()) == 1


@pytest.mark.promise("time-orphans")
def test_what_was_left_on_a_loop_that_is_closed_counts_no_more():
    left, loop = LeftRunning(), asyncio.new_event_loop()

    async def given_up():
        with pytest.raises(DeadlineExceeded):
            await supervise(absorb(100), Expiry(now() + 0.02, "late"), what="tool", name="t", left_running=left)

    async def many():
        await asyncio.gather(*(given_up() for _ in range(MAX_LEFT_RUNNING)))

    loop.run_until_complete(many())
    assert left.full
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False
    loop.close()
    assert not left.full
