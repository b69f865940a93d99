"""Limits and budgets: exact over processes, given back by who is killed, and what an outage of their ledger costs."""

from __future__ import annotations

import asyncio
import re
import sys

import pytest

from shared_libs.service.callers import Caller
from shared_libs.service.database import ServiceDatabase
from shared_libs.service.leases import OFTEN, LeasedLedger
from shared_libs.service.ledger import MICRO, Account, Hold, LedgerError, OverLimit
from shared_libs.service.ledger_sql import SQLLedger
from shared_libs.service.limits import ALLOWANCE, RETRIES_S, CallerLimits, Estimate
from shared_libs.service.problems import Problem
from shared_libs.service.settings import TeamLimits
from tests.support import run, run_virtual

BUDGET = Account("team:ops:usd:total", "usd", MICRO, "total")
CENT = MICRO // 100
SPENDERS = """
import asyncio, multiprocessing, sys
from shared_libs.service.database import ServiceDatabase
from shared_libs.service.ledger import Account, OverLimit
from shared_libs.service.ledger_sql import SQLLedger
from shared_libs.service.leases import LeasedLedger

URL, NAME = sys.argv[1:]
ACCOUNT = Account(NAME, "usd", 1_000_000, "total")
FORK = multiprocessing.get_context("fork")  # what is imported here is there at once

async def spend(tell, hangs):
    ledger, done = LeasedLedger(SQLLedger(ServiceDatabase(URL)), lease_s=0.5), 0
    while True:
        try:
            hold = await ledger.reserve([(ACCOUNT, 10_000)], lasts_s=0.1 if hangs else 600.0)
        except OverLimit as error:
            if error.spent == ACCOUNT.limit:
                break
            await asyncio.sleep(0.05)  # it is reserved by another
            continue
        if hangs and done == 3:
            tell.put("holds")
            await asyncio.sleep(600)
        await ledger.settle(hold, {NAME: 10_000})
        done += 1
    tell.put(done)
    await ledger.aclose()

def process(tell, hangs=False):
    one = FORK.Process(target=lambda: asyncio.run(spend(tell, hangs)))
    one.start()
    return one

first = FORK.Queue()
killed = process(first, hangs=True)
assert first.get() == "holds"
killed.kill()
killed.join()
told = FORK.Queue()
others = [process(told) for _ in range(3)]
print(sum(told.get() for _ in others))
for other in others:
    other.join()
"""


@pytest.fixture(params=["sqlite", "postgres"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    return f"postgresql://owner@{request.getfixturevalue('postgres')}"


@pytest.fixture
def account(request):
    """An account of the test alone: a database of PostgreSQL is everybody's."""
    return BUDGET._replace(name=request.node.name)


@pytest.mark.promise("budgets-exact")
def test_what_is_reserved_counts_at_once_and_what_is_settled_counts_once(url, account):
    async def main():
        ledger, other = SQLLedger(ServiceDatabase(url)), SQLLedger(ServiceDatabase(url))
        second = account._replace(name=f"{account.name}/key", limit=2 * MICRO)
        hold = await ledger.reserve([(account, 600_000), (second, 600_000)], 60.0)
        refused = []
        for wanted in ([(account, 600_000)], [(second, 100), (account, 600_000)]):
            try:
                await other.reserve(wanted, 60.0)
            except OverLimit as error:
                refused.append((error.spent, error.held))
        for _ in range(2):  # the first answer was lost on its way
            await other.settle(hold, {account.name: 700_000, second.name: 1})
        await ledger.add({account: 100_000})
        rest = await ledger.reserve([(account, 500_000)], 60.0)  # never more than there is: the only one has room
        try:
            await ledger.reserve([(account, 1)], 60.0)
        except OverLimit as error:
            refused.append((error.spent, error.held))
        await ledger.settle(rest, {})
        free = await ledger.reserve([(second, 1)], 60.0)
        await ledger.aclose()
        await other.aclose()
        return refused, hold, rest, free

    refused, hold, rest, free = run(main())
    assert refused == [(0, 600_000), (0, 600_000), (800_000, 200_000)]
    assert (hold.left[account.name], rest.amounts) == (400_000, {(account.name, "total"): 200_000})
    assert free.left == {f"{account.name}/key": 2 * MICRO - 2}


@pytest.mark.promise("budgets-exact")
def test_four_processes_share_a_budget_of_a_hundred_calls_and_one_that_is_killed_gives_back_what_it_held(url, account):
    async def main():
        spenders = [sys.executable, "-c", SPENDERS, url, account.name]
        process = await asyncio.create_subprocess_exec(*spenders, stdout=asyncio.subprocess.PIPE)
        done = int((await process.communicate())[0])
        ledger = SQLLedger(ServiceDatabase(url))
        with pytest.raises(OverLimit) as refused:
            await ledger.reserve([(account, 1)], 60.0)
        await ledger.aclose()
        return done, refused.value

    done, refused = asyncio.run(main())
    assert done == 97  # the other three the dead one had done
    assert (refused.spent, refused.held) == (MICRO, 0)


class Book:
    """A ledger that fails when it is told to, and refuses nothing."""

    def __init__(self, left):
        self.left, self.fails = left, False
        self.booked, self.added = [], []

    async def reserve(self, wanted, lasts_s):
        if self.fails:
            raise LedgerError("down")
        return Hold("h", {}, {account.name: self.left for account, _ in wanted})

    async def settle(self, hold, used):
        if self.fails:
            raise LedgerError("down")
        self.booked.append(dict(used))

    async def add(self, used):
        if self.fails:
            raise LedgerError("down")
        self.added.append({account.name: amount for account, amount in used.items()})

    async def aclose(self):
        pass


@pytest.mark.promise("budgets-outage")
def test_while_the_ledger_is_away_requests_go_on_from_an_allowance_and_are_booked_when_it_is_back():
    caller = Caller(key_id="k", team="ops", tokens_per_minute=100_000)
    name = "key:k:tokens"

    async def main():
        book = Book(left=100 * ALLOWANCE)
        limits = CallerLimits(book)
        under_way = await limits.reserve(caller, Estimate(10, 0.0), 1.0)
        book.fails = True
        under_way.settle(Estimate(12, 0.0))
        told = []
        for _ in range(4):
            try:
                (await limits.reserve(caller, Estimate(30, 0.0), 1.0)).settle(Estimate(25, 0.0))
                told.append("went on")
            except Problem as problem:
                told.append((problem.kind.status, problem.code, problem.retry_after_s))
        await asyncio.sleep(RETRIES_S[0] / 2)
        book.fails = False
        await limits.reserve(caller, Estimate(30, 0.0), 1.0)
        await limits.aclose()
        return told, book.added, book.booked

    told, added, booked = run_virtual(main())
    assert told == ["went on"] * 3 + [(503, "store_unavailable", 1.0)]
    assert added == [{name: 75}]
    assert booked == [{name: 12}]


@pytest.mark.promise("budgets-exact")
def test_what_a_key_has_under_way_counts_over_servers_and_who_has_its_answer_may_come_again(url, request):
    caller = Caller(key_id=re.sub(r"\W", "", request.node.name)[-60:], concurrency=2)
    one = Estimate(1, 0.0)

    async def main():
        here, there = (CallerLimits(LeasedLedger(SQLLedger(ServiceDatabase(url)))) for _ in range(2))
        held = [await here.reserve(caller, one, 60.0), await there.reserve(caller, one, 60.0)]
        refused = []
        for limits in (here, there):
            with pytest.raises(Problem) as told:
                await limits.reserve(caller, one, 60.0)
            refused.append((told.value.code, told.value.facts))
        held[0].settle(one)
        for _ in range(5):
            again = await here.reserve(caller, one, 60.0)
            again.settle(None)
        held[1].release()
        await there.aclose()
        both = [await here.reserve(caller, one, 60.0) for _ in range(2)]
        for booking in both:
            booking.release()
        standing = await here.standing(caller)
        await here.aclose()
        return refused, standing

    refused, standing = run(main())
    assert refused == [("rate_limited", {"limit": 2, "unit": "requests at the same time"})] * 2
    assert standing == []


@pytest.mark.promise("budgets-refuse")
def test_a_key_and_its_team_are_bound_together_and_a_refusal_says_by_what_and_until_when(account, tmp_path):
    team = account.name

    async def main():
        ledger = SQLLedger(ServiceDatabase(f"sqlite:///{tmp_path / 'ledger.db'}"))
        limits = CallerLimits(ledger, {team: TeamLimits(budget_usd=1.0, budget_window="total")})
        first, second = (Caller(key_id=key, team=team, budget_usd=0.7) for key in "ab")
        free = Caller(key_id="c", team="another")
        bound = [limits.bind(each) for each in (first, free)]
        (await limits.reserve(first, Estimate(1, 0.7), 60.0)).settle(Estimate(1, 0.7))
        held = await limits.reserve(second, Estimate(1, 0.2), 60.0)
        problems = []
        for caller, cost in ((second, 0.2), (first, 0.2)):
            with pytest.raises(Problem) as refused:
                await limits.reserve(caller, Estimate(1, cost), 60.0)
            problems.append(refused.value)
        held.settle(Estimate(1, 0.3))
        async with asyncio.timeout(10):
            while refused.value.facts["reserved"] or refused.value is problems[1]:  # it is booked in a moment
                with pytest.raises(Problem) as refused:
                    await limits.reserve(second, Estimate(1, 0.2), 60.0)
        await limits.aclose()
        return bound, [*problems, refused.value]

    bound, (by_team, by_key, spent) = run(main())
    assert bound == [True, False]
    assert (by_team.code, by_team.facts["spent"], by_team.facts["reserved"]) == ("rate_limited", 0.7, 0.2)
    assert by_team.detail.startswith("the team has a limit of 1.0 US dollars in all: 0.7 are spent")
    assert by_key.detail.startswith("the key has a limit of 0.7 US dollars a month")
    assert by_key.facts["resets_in_s"] > 0
    assert (spent.code, dict(spent.headers())["x-should-retry"]) == ("budget_exhausted", "false")
    assert spent.facts["window"] == "total"


class Counted:
    """A ledger in a database that counts what it is asked, and fails when it is told to: before or behind its work."""

    def __init__(self, ledger):
        self.ledger, self.fails, self.asked = ledger, "", []

    async def reserve(self, wanted, lasts_s):
        self.asked.append("reserve")
        if self.fails:
            raise LedgerError("down")
        return await self.ledger.reserve(wanted, lasts_s)

    async def settle(self, hold, used, rest=None):
        self.asked.append("settle")
        if self.fails == "before":
            raise LedgerError("down")
        await self.ledger.settle(hold, used, rest)
        if self.fails == "behind":
            raise LedgerError("the answer was lost")

    async def add(self, used):
        await self.ledger.add(used)

    async def aclose(self):
        await self.ledger.aclose()


async def used_of(ledger, account):
    """Return what is spent and what is reserved."""
    with pytest.raises(OverLimit) as full:
        await ledger.reserve([(account._replace(limit=0), 1)], 1.0)
    return full.value.spent, full.value.held


@pytest.mark.promise("budgets-leased")
def test_servers_that_lease_pass_no_limit_use_it_up_and_ask_the_database_less_than_once_a_request(url, account):
    key, team = account._replace(name=f"{account.name}/key", limit=10_000), account._replace(limit=1_000)

    async def main():
        under = [Counted(SQLLedger(ServiceDatabase(url))) for _ in range(2)]
        servers = [LeasedLedger(each) for each in under]
        looks, done, refused = [], [0, 0], 0

        async def spend(server):
            nonlocal refused
            while True:
                try:
                    hold = await servers[server].reserve([(key, 20), (team, 20)], 600.0)
                except OverLimit as error:
                    if error.spent == team.limit:
                        return
                    refused += 1  # what is left is reserved by others: how often that is met is the machine's business
                    await asyncio.sleep(0.01)
                    continue
                looks.append(hold.left[team.name])
                await asyncio.sleep(0)
                await servers[server].settle(hold, {key.name: 20, team.name: 20})
                done[server] += 1

        await asyncio.gather(*(spend(number % 2) for number in range(6)))
        for each in servers:
            await each.aclose()
        last = SQLLedger(ServiceDatabase(url))
        used = [await used_of(last, each) for each in (key, team)]
        await last.aclose()
        return done, looks, used, [each.asked.count("reserve") for each in under], refused

    done, looks, used, asked, refused = run(main())
    assert sum(done) == 50
    assert min(looks) == 0
    assert used == [(1_000, 0), (1_000, 0)]
    assert sum(asked) < 50 + 2 * refused  # who is refused asks for a lease, and then for itself alone


@pytest.mark.promise("budgets-leased")
@pytest.mark.parametrize("fails", ["before", "behind"])
def test_a_lease_serves_through_an_outage_and_what_was_used_is_booked_once(account, tmp_path, fails):
    account = account._replace(limit=10_000)

    async def main():
        under = Counted(SQLLedger(ServiceDatabase(f"sqlite:///{tmp_path / 'ledger.db'}")))
        ledger = LeasedLedger(under)
        for _ in range(OFTEN + 1):
            await ledger.settle(await ledger.reserve([(account, 100)], 60.0), {account.name: 90})
        under.fails = fails
        asked = under.asked.count("reserve")
        holds = [await ledger.reserve([(account, 100)], 60.0) for _ in range(2)]
        for _ in range(2):
            for hold in holds:
                with pytest.raises(LedgerError):
                    await ledger.settle(hold, {account.name: 150})
        held = under.asked.count("reserve") - asked
        under.fails = ""
        for hold in [*holds, *holds]:  # whoever settles tries again, and the other one's answer is late
            await ledger.settle(hold, {account.name: 150})
        await ledger.aclose()
        used = await used_of(under.ledger, account)
        await under.aclose()
        return held, used

    assert run(main()) == (0, (90 * (OFTEN + 1) + 300, 0))


@pytest.mark.promise("budgets-leased")
def test_what_is_used_beyond_a_lease_is_booked_and_who_is_cancelled_while_it_is_had_leaves_nothing(account, tmp_path):
    account = account._replace(limit=1_000)

    async def main():
        ledger = SQLLedger(ServiceDatabase(f"sqlite:///{tmp_path / 'ledger.db'}"))
        leased = LeasedLedger(ledger)
        for _ in range(OFTEN + 1):
            await leased.settle(await leased.reserve([(account, 1)], 60.0), {account.name: 50})
        asking = [asyncio.create_task(leased.reserve([(account, 1)], 60.0)) for _ in range(6)]
        await asyncio.sleep(0)
        for each in asking[::2]:
            each.cancel()
        holds = [each for each in await asyncio.gather(*asking, return_exceptions=True) if isinstance(each, Hold)]
        for hold in holds:
            await leased.settle(hold, {account.name: 1})
        await leased.aclose()
        used = await used_of(ledger, account)
        await ledger.aclose()
        return len(holds), used

    count, used = run(main())
    assert used == (50 * (OFTEN + 1) + count, 0)


@pytest.mark.promise("budgets-leased")
def test_what_a_lease_does_not_use_is_given_back_in_time_and_at_once_to_who_is_refused_for_want_of_it(
    account, tmp_path
):
    account = account._replace(limit=2_000)
    asks = account._replace(name="key:other", limit=10_000)

    async def main():
        ledger = SQLLedger(ServiceDatabase(f"sqlite:///{tmp_path / 'ledger.db'}"))
        leased = LeasedLedger(ledger, lease_s=2.5)  # in which a busy machine gets through a few calls
        for _ in range(OFTEN + 1):
            await leased.settle(await leased.reserve([(account, 10)], 60.0), {account.name: 10})
        before = await used_of(ledger, account)
        whole = await leased.reserve([(asks, 1), (account, account.limit - before[0])], 60.0)
        after = await used_of(ledger, account)
        await leased.settle(whole, {})
        for _ in range(OFTEN + 1):
            await leased.settle(await leased.reserve([(account, 10)], 60.0), {account.name: 10})
        again = await used_of(ledger, account)
        async with asyncio.timeout(20):
            while (idle := await used_of(ledger, account))[1]:
                await asyncio.sleep(0.05)
                assert idle[0] == again[0]
        await leased.aclose()
        return before, after, again, idle

    before, after, again, idle = run(main())
    assert before[0] == 10 * (OFTEN + 1)
    assert before[1] > 0
    assert after == (before[0], 2_000 - before[0])
    assert again[1] > 0
    assert idle == (20 * (OFTEN + 1), 0)
