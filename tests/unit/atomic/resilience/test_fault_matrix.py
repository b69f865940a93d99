"""Every fault, in every format, streamed and not, with a fallback and alone, over the real wire."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise, product
from pathlib import Path

import pytest

from bench.fault_matrix import CASES, FALLBACK_FORMAT, FORMATS, run_flapping, run_row
from bench.fault_matrix import QUESTION as FLAPPING_QUESTION
from bench.faults import markdown
from shared_libs.atomic import Resilience
from shared_libs.atomic.llms.dialect import forget
from shared_libs.atomic.types import Price
from shared_libs.testing import Cut, FaultServer, Healthy, PrefillRejected
from tests.support import run, run_virtual

in_every_format = pytest.mark.parametrize("spoken", FORMATS)
streamed_or_not = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
QUESTION = "Say this again, word by word."


@pytest.mark.promise("fault-matrix")
@in_every_format
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.slug)
def test_what_comes_of_a_fault(case, spoken):
    for stream, alone in product((True, False), repeat=2):
        forget()
        row = (run if case.real_clock else run_virtual)(run_row(case, spoken, stream=stream, alone=alone))
        want = case.want(spoken, stream=stream, alone=alone)
        told = (row.result, row.asked, row.rule)
        assert told == (want.result, (want.primary, want.fallback), want.rule), (stream, alone)
        assert row.wire == row.asked, (stream, alone)
        if want.result == "answer":
            assert row.outcome.text == case.text, (stream, alone)
            assert row.heard == (case.text if stream else ""), alone
        else:
            assert all(cause.provider for cause in row.outcome.causes), (stream, alone)
            assert len(row.outcome.causes) == want.primary + want.fallback, (stream, alone)


def test_the_page_has_the_table_that_is_tested():
    page = Path(__file__).parents[4] / "docs" / "faults.md"
    assert markdown() in page.read_text(), "python -m bench.faults --markdown"


def chain(server, spoken, **arguments):
    theirs = FALLBACK_FORMAT[spoken]
    price = Price(input=1_000_000, output=2_000_000)
    other = FORMATS[theirs]("fallback", api_key="k", base_url=server.url(theirs), price=price)
    return FORMATS[spoken]("primary", api_key="k", base_url=server.url(spoken), fallbacks=[other], **arguments)


@pytest.mark.promise("fault-matrix")
@streamed_or_not
@in_every_format
def test_a_flapping_primary_is_left_alone_probed_once_and_returned_to(spoken, stream):
    series = run_virtual(run_flapping(spoken, stream=stream))
    assert {answer.text for answer in series.answers} == {FLAPPING_QUESTION}
    assert len(series.answers) == 300
    ledger = Counter(row.model for answer in series.answers for row in answer.attempts)
    assert ledger == Counter(request.model for request in series.requests)
    asked = Counter(round(request.at_s) for request in series.requests if request.model.startswith("primary"))
    probed = [second for second, state in series.moved if state == "half_open"]
    assert len(probed) >= 6
    assert {asked[second] for second in probed} == {1}  # of three calls at once
    assert (series.moved[0], series.moved[-1][1]) == ((0, "open"), "closed")
    for (_, state), (_, later) in pairwise(series.moved):
        assert later in {"open": {"half_open"}, "half_open": {"open", "closed"}, "closed": {"open"}}[state]
    assert set(asked.values()) == {1, 3}  # while the circuit is open nobody asks
    assert all(asked[second] == 3 for second in range(66, 100))
    assert {answer.requested_model[:7] for answer in series.answers[3 * 66 :]} == {"primary"}


@pytest.mark.promise("fault-matrix")
@streamed_or_not
@in_every_format
def test_only_the_answer_is_billed(spoken, stream):
    """The primary breaks off with nearly everything told, its usage included where the format tells it first."""

    async def main():
        async with FaultServer({"primary": Cut(after_bytes=1000), "fallback": Healthy()}) as server:
            price = Price(input=7_000_000, output=7_000_000)
            llm = chain(server, spoken, resilience=Resilience(retry={"attempts": 2}), price=price)
            async with llm:
                return await llm.async_chat(QUESTION * 40, on_chunk=(lambda _: None) if stream else None)

    response = run_virtual(main())
    words = len((QUESTION * 40).split())
    assert (response.usage.input_tokens, response.usage.output_tokens) == (words, words)
    assert response.cost_usd == pytest.approx(3 * words)
    *failed, answered = response.attempts
    assert answered.usage == response.usage
    told = spoken == "anthropic" and stream  # what a failed attempt had told stays in its row
    assert [row.usage is not None for row in failed] == [told, told]


@pytest.mark.promise("fault-matrix")
@in_every_format
def test_no_prefill_is_sent_to_a_fallback_that_rejects_it(spoken):
    async def main():
        async with (
            FaultServer({"primary": Cut(), "fallback": PrefillRejected()}) as server,
            chain(server, spoken) as llm,
        ):
            chunks = []
            response = await llm.async_chat(QUESTION, on_chunk=chunks.append)
            return response, chunks, server.seen("fallback")

    response, chunks, (seen,) = run_virtual(main())
    assert seen.body["messages"][-1]["role"] == "user"
    restarted = [chunk.kind for chunk in chunks].index("restarted")
    assert restarted > 0
    assert response.text == QUESTION
