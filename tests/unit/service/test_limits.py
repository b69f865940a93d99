"""Limits and budgets: exact over processes, given back by who is killed, and what an outage of their ledger costs."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

from shared_libs.service.callers import Caller
from shared_libs.service.database import ServiceDatabase
from shared_libs.service.key_format import Key
from shared_libs.service.key_rows import KeyRow, now
from shared_libs.service.key_store import key_store
from shared_libs.service.ledger import MICRO, Account, Hold, LedgerError, OverLimit
from shared_libs.service.ledger_sql import SQLLedger
from shared_libs.service.limits import ALLOWANCE, RETRIES_S, CallerLimits, Estimate
from shared_libs.service.problems import Problem
from shared_libs.service.settings import TeamLimits
from shared_libs.testing import FaultServer, Healthy, ServerError
from tests.service import serving, write
from tests.support import run, run_virtual

BUDGET = Account("team:ops:usd:total", "usd", MICRO, "total")
CENT = MICRO // 100
SPENDERS = """
import asyncio, multiprocessing, sys
from shared_libs.service.database import ServiceDatabase
from shared_libs.service.ledger import Account, OverLimit
from shared_libs.service.ledger_sql import SQLLedger

URL, NAME = sys.argv[1:]
ACCOUNT = Account(NAME, "usd", 1_000_000, "total")
FORK = multiprocessing.get_context("fork")  # what is imported here is there at once

async def spend(tell, hangs):
    ledger, done = SQLLedger(ServiceDatabase(URL)), 0
    while True:
        try:
            hold = await ledger.reserve([(ACCOUNT, 10_000)], lasts_s=1.0 if hangs else 600.0)
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


PRICED = """
name: bot
llm:
  chain: [{{provider: openai, model: m, base_url: '{url}', api_key: x, price: {{input: 1000, output: 1000}}}}]
  retry: {{attempts: 1}}
"""


@pytest.mark.promise("budgets-refuse")
def test_a_budget_binds_every_face_and_what_fails_upstream_costs_nothing(tmp_path):
    key = Key.new()
    chat = {"model": "bot/chain", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}

    async def main():
        faults = [ServerError(), *[Healthy("hello you")] * 40]
        async with FaultServer({"m": faults}) as upstream:
            write(tmp_path, bot=PRICED.format(url=upstream.url("openai")))
            row = KeyRow(
                id=key.id, hash=key.hash(""), team="t", budget_usd=0.1, budget_window="total", created_at=now()
            )
            await key_store("keys.yaml", tmp_path).keep(row)
            async with serving(tmp_path, key=str(key)) as served:
                told = []
                async with asyncio.timeout(20):
                    while not told or told[-1][1].get("error", {}).get("code") != "insufficient_quota":
                        async with served.http.post("/v1/chat/completions", json=chat) as answer:
                            told.append((answer.status, json.loads(await answer.read())))
                asked = len(upstream.requests)
                status, headers, problem = await served.run("bot")
                async with served.http.post("/v1/messages", json=chat) as answer:
                    message = answer.status
                return (
                    told,
                    asked,
                    len(upstream.requests),
                    (status, problem["code"], headers["x-should-retry"]),
                    message,
                )

    told, asked, later, by_run, by_message = run(main())
    used = [body["usage"]["total_tokens"] / 1000 for status, body in told if status == 200]
    assert told[0][0] == 503
    assert 0.1 <= sum(used) <= 0.1 + used[0]
    assert asked == later == len(used) + 1
    assert by_run == (429, "budget_exhausted", "false")
    assert by_message == 429
