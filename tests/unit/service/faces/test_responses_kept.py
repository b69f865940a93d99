"""Responses that are had again: after a restart, by other servers of the service, and by a request that comes twice."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

import pytest
from openai import BadRequestError, NotFoundError

from shared_libs.atomic.deadline import Deadline
from shared_libs.service.database import ServiceDatabase
from shared_libs.service.faces.responses_events import ResponseEvents
from shared_libs.service.faces.responses_kept import KeptResponse, KeptResponses
from shared_libs.service.faces.responses_shelf import ResponseShelf
from shared_libs.service.faces.wanted import Said
from shared_libs.service.problems import Problem
from shared_libs.testing import Healthy, Silence, SlowFirstToken
from tests.service import serving
from tests.support import run, run_virtual
from tests.unit.durable.cast import until
from tests.unit.service.faces.ground import Ground, ground
from tests.unit.service.faces.test_responses import ECHO, TOOL, check_grammar, events_of

STORES = ["sqlite", pytest.param("postgres", marks=pytest.mark.xdist_group("postgres"))]


@pytest.fixture(params=STORES)
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'responses.db'}"
    return f"postgresql://owner@{request.getfixturevalue('postgres')}"


@pytest.mark.promise("face-responses-kept")
def test_a_response_outlives_the_server_that_made_it(tmp_path):
    async def main():
        async with ground(tmp_path, {"m": [Healthy("Hi Ann.")]}, bot={}) as at, at.openai() as client:
            first = await client.responses.create(model="bot", input="I am Ann.", instructions="One.", tools=[TOOL])
            events = await events_of(await client.responses.retrieve(first.id, stream=True))
        async with ground(tmp_path, {"m": [Healthy("Ann."), Healthy("Yes.")]}, bot={}) as at, at.openai() as client:
            assert await client.responses.retrieve(first.id) == first
            assert await events_of(await client.responses.retrieve(first.id, stream=True)) == events
            tail = await client.responses.retrieve(first.id, stream=True, starting_after=3)
            assert await events_of(tail) == events[4:]
            items = await client.responses.input_items.list(first.id)
            assert [item.content[0].text for item in items.data] == ["I am Ann."]
            second = await client.responses.create(model="bot", input="Who am I?", previous_response_id=first.id)
            sent = at.upstream.requests[-1].body["messages"]
            assert [one["content"] for one in sent if one["role"] != "system"] == ["I am Ann.", "Hi Ann.", "Who am I?"]
            await client.responses.delete(first.id)
            with pytest.raises(NotFoundError):
                await client.responses.retrieve(first.id)
        async with ground(tmp_path, {"m": Healthy()}, bot={}) as at, at.openai() as client:
            assert (await client.responses.retrieve(second.id)).output_text == "Ann."
            with pytest.raises(NotFoundError):
                await client.responses.retrieve(first.id)

    run(main())


@pytest.mark.promise("face-responses-kept")
def test_another_server_sees_a_response_of_the_background_and_its_end(tmp_path):
    async def main():
        async with (
            ground(tmp_path, {"m": Silence()}, bot={}) as at,
            serving(tmp_path) as served,
            at.openai() as here,
            Ground(served, at.upstream).openai() as there,
        ):
            made = await here.responses.create(model="bot", input="hello", background=True)

            async def look():
                with suppress(NotFoundError):  # who answers waits a quarter of a second for the shelf, and no longer
                    return (await there.responses.retrieve(made.id)).status

            assert await until(look) == "in_progress"
            for refused in (
                there.responses.cancel(made.id),
                there.responses.delete(made.id),
                there.responses.retrieve(made.id, stream=True),
                there.responses.create(model="bot", input="x", previous_response_id=made.id),
            ):
                with pytest.raises(BadRequestError):
                    await refused
            await here.responses.cancel(made.id)
            await until(look, wanted=lambda status: status == "cancelled")

    run(main())


@pytest.mark.promise("face-responses-kept")
def test_on_the_shelf_teams_are_apart_what_is_old_goes_and_what_was_lost_has_failed(url):
    async def main():
        database = ServiceDatabase(url)
        mine = KeptResponses(ResponseShelf(database, 60.0))
        lost, whole, old = (KeptResponse(ResponseEvents(f"resp_{n:032x}", "bot", ECHO), [], []) for n in range(3))
        for kept in (lost, whole, old):
            kept.made.begin()
            mine.keep("ours", kept)
        whole.made.take(Said("Hi."))
        whole.made.cancel()
        await KeptResponses(ResponseShelf(database, -1.0)).shelve("ours", old)  # which it does not have
        await ResponseShelf(database, -1.0).put({("ours", old.made.id): b"{}"})
        await mine.shelve("ours", lost, lasts_s=-1.0)
        await mine.shelve("ours", whole)
        other = KeptResponses(ResponseShelf(database, 60.0))
        assert await other.find("theirs", whole.made.id) is None
        assert await other.find("ours", old.made.id) is None
        assert await other.find("ours", "resp_1' OR 1=1") is None
        found = await other.find("ours", whole.made.id)
        assert (found.made.events, found.elsewhere) == (whole.made.events, False)
        failed = await other.find("ours", lost.made.id)
        assert (failed.made.status, failed.elsewhere) == ("failed", False)
        check_grammar(failed.made.events)
        await mine.forget("ours", whole)
        assert await other.find("ours", whole.made.id) is None
        await mine.drain(Deadline.after(1.0))
        await database.aclose()

    run(main())


@pytest.mark.promise("face-responses-kept")
def test_a_shelf_that_does_not_answer_costs_no_response(tmp_path, caplog):
    async def main():
        async with ground(tmp_path, {"m": Healthy("Hi.")}, bot={}) as at, at.openai() as client:
            nowhere = ResponseShelf(ServiceDatabase("sqlite:////nowhere/at/all.db"), 60.0)
            at.service.responses = KeptResponses(nowhere)
            made = await client.responses.create(model="bot", input="hello")
            assert (await client.responses.retrieve(made.id)).output_text == "Hi."
            status, headers, told = await at.send("GET", f"/v1/responses/resp_{0:032x}")
            assert (status, told["error"]["code"]) == (503, "store_unavailable")
            assert headers["retry-after"]

    with caplog.at_level(logging.WARNING, "shared_libs.service"):
        run(main())
    assert "had again in this process only" in caplog.text


class Failing(ResponseShelf):
    """A shelf that does not answer until it is told to."""

    answers = False
    transactions = 0

    async def put(self, bodies):
        self.transactions += 1
        if not self.answers:
            raise Problem("store_unavailable", "no")
        await super().put(bodies)


@pytest.mark.promise("face-responses-kept")
def test_what_a_shelf_did_not_take_it_takes_when_it_answers_again(tmp_path):
    async def main():
        database = ServiceDatabase(f"sqlite:///{tmp_path / 'responses.db'}")
        shelf = Failing(database, 60.0)
        kept, began_at = KeptResponses(shelf), asyncio.get_running_loop().time()
        made = [KeptResponse(ResponseEvents(f"resp_{n:032x}", "bot", ECHO), [], []) for n in range(20)]
        for one in made:
            one.made.begin()
            one.made.cancel()
            kept.keep("ours", one)
            await kept.shelve("ours", one)
        assert asyncio.get_running_loop().time() - began_at < 1.0  # the first waits for it, and no other
        shelf.answers = True
        await kept.shelve("ours", made[0])
        await kept._writer._writing
        other = KeptResponses(ResponseShelf(database, 60.0))
        assert [(await other.find("ours", one.made.id)).made.status for one in made] == ["cancelled"] * 20
        assert shelf.transactions < 6
        await kept.drain(Deadline.after(1.0))
        await database.aclose()

    run_virtual(main())


@pytest.mark.promise("face-patience")
@pytest.mark.parametrize("more", [{}, {"stream": True}, {"background": True}])
def test_a_request_for_a_response_that_comes_again_gets_the_one_it_began(tmp_path, more):
    async def main():
        async with ground(tmp_path, {"m": SlowFirstToken(0.2)}, bot={}) as at:

            async def ask(**headers):
                said = "\n".join(await at.lines("/v1/responses", {"model": "bot", "input": "x"} | more, **headers))
                return said.partition('"id":"resp_')[2][:32]

            for headers in ({"idempotency-key": "k"}, {"x-stainless-retry-count": "1"}):
                before = len(at.upstream.requests)
                told = await asyncio.gather(*(ask(**headers) for _ in range(3)))
                told.append(await ask(**headers))
                assert len(set(told)) == 1
                assert told[0]
                assert len(at.upstream.requests) <= before + 1
            with_another_body = await at.status(
                "/v1/responses", {"model": "bot", "input": "y"}, **{"idempotency-key": "k"}
            )
            assert with_another_body == 400

    run(main())


def test_what_is_refused_is_forgotten(tmp_path):
    async def main():
        async with ground(tmp_path, {"m": [Healthy("Hi.")]}, bot={}) as at:
            body, key = {"model": "bot", "input": "x", "previous_response_id": "resp_0"}, {"idempotency-key": "k"}
            assert [await at.status("/v1/responses", body, **key) for _ in range(2)] == [404, 404]
            del body["previous_response_id"]
            assert await at.status("/v1/responses", body, **key) == 200

    run(main())


def test_a_problem_of_the_shelf_names_no_password():
    async def main():
        shelf = ResponseShelf(ServiceDatabase("postgresql://u:secret@127.0.0.1:1/db"), None)
        with pytest.raises(Problem) as told:
            await shelf.get("t", "resp_1")
        assert "secret" not in str(told.value)

    run(main())
