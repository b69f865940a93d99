"""Admission on virtual time: what is too much is refused, what is admitted comes in time, no key waits for another."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from itertools import cycle

import pytest

from shared_libs.atomic.deadline import Deadline
from shared_libs.atomic.errors import ProviderUnavailable
from shared_libs.atomic.types import Usage
from shared_libs.service.admission import Admission, Demand
from shared_libs.service.callers import Caller
from shared_libs.service.fair_queue import INTERVAL_S, TARGET_S, FairQueue, Waiter
from shared_libs.service.problems import Problem
from tests.support import run_virtual

SLOTS = 4
SERVICE_S = 1.0
PATIENCE_S = 10.0
SECONDS = 120.0


class Outcome(Counter):
    """What became of a load: counts by key, waits of the admitted, and the work that came in time."""

    def __init__(self):
        super().__init__()
        self.waits = []
        self.useful_s = 0.0


async def load(enter, outcome, *, key="a", per_s, seed=0, spread=0.5):
    """Send requests at random moments, each with a service time of its own, and wait for the last."""
    draw, loop, tasks = random.Random(seed), asyncio.get_running_loop(), []
    end = loop.time() + SECONDS

    async def one(service_s):
        came_at = loop.time()
        deadline = came_at + PATIENCE_S
        try:
            async with enter(key, Deadline(deadline)):
                began_at = loop.time()
                outcome.waits.append((came_at, key, began_at - came_at))
                # it is cut off at its deadline, as a run is; what it was queued for it has lost
                await asyncio.sleep(min(service_s, max(0.0, deadline - began_at)))
                in_time = began_at + service_s <= deadline
                outcome[key, "in time" if in_time else "late"] += 1
                outcome[key, "late by queueing"] += not in_time and came_at + service_s <= deadline
                outcome.useful_s += service_s if in_time else 0.0
        except Problem as problem:
            outcome[key, problem.code] += 1
        except TimeoutError:
            outcome[key, "gave up"] += 1

    while loop.time() < end:
        await asyncio.sleep(draw.expovariate(per_s))
        tasks.append(asyncio.create_task(one(draw.lognormvariate(-spread * spread / 2, spread) * SERVICE_S)))
    await asyncio.gather(*tasks)


def fair(admission, need_s=None):
    def enter(key, deadline):
        demand = Demand(caller=Caller(key_id=key), target="m", deadline=deadline, tokens=100, need_s=need_s)
        return admission.enter(demand)

    return enter


class Fifo:
    """What most servers do: a semaphore, and clients that wait until their time is over."""

    def __init__(self):
        self.turns = asyncio.Semaphore(SLOTS)

    def __call__(self, key, deadline):
        turns = self.turns

        class Turn:
            async def __aenter__(self):
                async with asyncio.timeout_at(deadline.at):
                    await turns.acquire()

            async def __aexit__(self, *_):
                turns.release()

        return Turn()


def share(outcome):
    return outcome.useful_s / (SLOTS * SECONDS)


@pytest.mark.promise("admit-overload")
def test_twice_the_capacity_costs_little_of_it_and_nobody_is_late_by_queueing():
    async def main():
        ours, fifo = Outcome(), Outcome()
        admission = Admission(most=SLOTS)
        await load(fair(admission), ours, per_s=2 * SLOTS / SERVICE_S)
        await load(Fifo(), fifo, per_s=2 * SLOTS / SERVICE_S)
        return ours, fifo, admission.told()["m"]

    ours, fifo, told = run_virtual(main())
    # until then it does not show that it is too much
    waits = sorted(wait for came_at, _, wait in ours.waits if came_at > 2 * INTERVAL_S)
    assert share(ours) >= 0.9
    assert ours["a", "late by queueing"] <= 0.01 * ours["a", "in time"]
    assert waits[int(0.99 * len(waits))] <= TARGET_S + SERVICE_S
    assert fifo["a", "late by queueing"] > 100
    assert share(fifo) < share(ours)
    assert (told["slots"], told["taken"], told["waiting"]) == (SLOTS, 0, 0)
    assert list(told["refused"]) == ["overloaded"]


@pytest.mark.promise("admit-fair")
def test_a_key_with_a_hundred_times_the_load_costs_another_at_most_one_service_time():
    async def main():
        ours, fifo = Outcome(), Outcome()
        for enter, outcome in ((fair(Admission(most=SLOTS)), ours), (Fifo(), fifo)):
            await asyncio.gather(
                load(enter, outcome, key="heavy", per_s=20.0, spread=0.0),
                load(enter, outcome, key="light", per_s=0.2, seed=1, spread=0.0),
            )
        return ours, fifo

    ours, fifo = run_virtual(main())
    light, late = ([wait for _, key, wait in one.waits if key == "light"] for one in (ours, fifo))
    assert ours["light", "in time"] == sum(count for (key, _), count in ours.items() if key == "light")
    assert max(light) <= SERVICE_S + 1e-9
    assert not late or max(late) > 5 * SERVICE_S


@pytest.mark.promise("admit-overload")
def test_below_its_capacity_everybody_is_served():
    async def main():
        ours = Outcome()
        await load(fair(Admission(most=SLOTS)), ours, per_s=0.7 * SLOTS / SERVICE_S)
        return ours

    ours = run_virtual(main())
    assert ours["a", "in time"] >= 0.995 * sum(ours.values())


@pytest.mark.promise("admit-feasible")
def test_what_cannot_come_in_time_is_refused_at_once_and_told_when_it_may():
    async def main():
        admission, loop = Admission(most=1), asyncio.get_running_loop()
        enter = fair(admission)
        for _ in range(20):
            async with enter("a", Deadline.after(60)):
                await asyncio.sleep(2)
        told = []
        async with enter("a", Deadline.after(60)):
            for seconds in (1.0, 2.5):
                came_at = loop.time()
                try:
                    async with enter("b", Deadline.after(seconds)):
                        pass
                except Problem as problem:
                    told.append((loop.time() - came_at, problem.code, problem.retry_after_s, problem.headers(seconds)))
        return told

    never, later = run_virtual(main())
    assert (never[:3], dict(never[3])["x-should-retry"]) == ((0.0, "deadline_unreachable", None), "true")
    assert later[:2] == (0.0, "deadline_unreachable")
    assert 0 < later[2] <= 2.5
    assert dict(later[3])["retry-after-ms"] == str(-int(-later[2] * 1000 // 1))


@pytest.mark.promise("admit-slots")
def test_a_provider_that_is_full_has_fewer_slots_until_it_takes_more():
    async def main():
        admission = Admission(most=10)
        enter = fair(admission, need_s=0.0)

        statuses = cycle((429, 503, 529))

        async def one(*, full):
            try:
                async with enter("a", Deadline.after(60)):
                    await asyncio.sleep(1)
                    if full:
                        raise ProviderUnavailable("full", status_code=next(statuses))
            except ProviderUnavailable:
                pass

        await asyncio.gather(*(one(full=True) for _ in range(10)))
        at_once = admission.told()["m"]["slots"]
        for _ in range(6):
            await one(full=True)
        least = admission.told()["m"]["slots"]
        for _ in range(60):
            await one(full=False)
        return at_once, least, admission.told()["m"]["slots"]

    at_once, least, back = run_virtual(main())
    assert at_once == 7  # ten refusals of one moment are one piece of news
    assert least == 1
    assert back >= 9


@pytest.mark.promise("admit-slots")
def test_whoever_leaves_the_queue_takes_no_slot_and_a_failure_gives_its_back():
    async def main():
        admission = Admission(most=1)
        enter = fair(admission, need_s=0.0)
        entered = []

        async def one(name):
            async with enter("a", Deadline.after(60)):
                entered.append(name)
                await asyncio.sleep(1)
                raise ValueError

        tasks = [asyncio.create_task(one(n)) for n in range(4)]
        await asyncio.sleep(0.5)
        tasks[1].cancel()
        await asyncio.sleep(0.5)  # the slot is given to the third in the moment it leaves
        tasks[2].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return entered, admission.told()["m"]

    entered, told = run_virtual(main())
    assert entered in ([0, 3], [0, 2, 3])
    assert (told["slots"], told["taken"], told["waiting"]) == (1, 0, 0)


def test_one_key_may_not_have_more_under_way_than_it_may():
    async def main():
        admission = Admission()
        caller = Caller(key_id="a", concurrency=2)

        async def one():
            demand = Demand(caller=caller, target="m", deadline=Deadline.after(60))
            async with admission.enter(demand) as grant:
                await asyncio.sleep(1)
                grant.settle(Usage(1, 1), None)

        first = await asyncio.gather(*(one() for _ in range(3)), return_exceptions=True)
        return first, await one()

    first, _ = run_virtual(main())
    assert [type(told).__name__ for told in first] == ["NoneType", "NoneType", "Problem"]
    assert first[2].code == "rate_limited"


def test_the_important_comes_first_and_the_sheddable_goes_first():
    async def main():
        admission = Admission(most=1)
        order = []

        async def one(name, priority, highest="critical"):
            caller = Caller(key_id="a", priority=highest)
            deadline = Deadline.after(600)
            demand = Demand(caller=caller, target="m", deadline=deadline, need_s=0.0, priority=priority)
            async with admission.enter(demand):
                order.append(name)
                await asyncio.sleep(1)

        names = [("first", "default"), ("shed", "sheddable"), ("plain", "default"), ("urgent", "critical")]
        await asyncio.gather(*(one(*name) for name in names), one("pretends", "critical", "default"))
        return order

    assert run_virtual(main()) == ["first", "urgent", "plain", "pretends", "shed"]


@pytest.mark.promise("admit-fair")
def test_turns_follow_the_weights_and_the_cost():
    queue = FairQueue()
    for number in range(300):
        for key, weight, cost in (("one", 1.0, 1.0), ("two", 2.0, 1.0), ("dear", 1.0, 4.0)):
            queue.add(Waiter(key, weight=weight, cost=cost, since=float(number) / 1000, until=1e9))
    served = Counter(queue.pop(1.0).key for _ in range(200))
    assert 1.7 <= served["two"] / served["one"] <= 2.3
    assert 3.0 <= served["one"] / served["dear"] <= 5.0
    while queue.pop(1.0) is not None:
        pass
    assert len(queue) == 0
    assert not queue._flows


@pytest.mark.promise("admit-overload")
def test_the_oldest_comes_first_until_a_key_has_too_much_and_the_newest_then():
    queue, waits = FairQueue(), [Waiter("a", weight=1.0, cost=1.0, since=float(at), until=1e9) for at in range(12)]
    for waiter in waits[:10]:
        queue.add(waiter)
    # the oldest has waited too long at the second look, and not yet for INTERVAL_S
    assert [queue.pop(at, 2.0).since for at in (1.0, 5.0)] == [0.0, 1.0]
    for waiter in waits[10:]:
        queue.add(waiter)
    assert [queue.pop(1.0 + INTERVAL_S + at, 2.0).since for at in (5.0, 5.1)] == [11.0, 10.0]
    assert [each.since for each in queue.late("a", 12.0, 6.0)] == [2.0, 3.0, 4.0, 5.0]


def test_those_who_have_gone_leave_nothing_behind():
    queue = FairQueue()
    for number in range(10_000):
        waiter = Waiter("a", weight=1.0, cost=1.0, since=float(number), until=1e9)
        queue.add(waiter)
        queue.remove(waiter)
        queue.remove(waiter)
    assert (len(queue), queue.pop(1e5)) == (0, None)
    assert sum(map(len, FairQueue()._flows.values() or [[]])) == 0
