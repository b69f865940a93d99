"""A vendor's SDK client as the wire."""

from __future__ import annotations

import anthropic
import openai
import pytest

from shared_libs.atomic import LLMError, MisuseError, Resilience
from shared_libs.atomic.errors import (
    AuthenticationFailed,
    LLMConnectionError,
    MalformedResponse,
    RateLimited,
    StreamInterrupted,
)
from shared_libs.atomic.llms.anthropic_llm import AnthropicLLM
from shared_libs.atomic.llms.openai_llm import OpenAILLM
from shared_libs.atomic.types import ToolCall
from tests.support import run
from tests.unit.atomic.llms.dialects import KEY, AnthropicDialect, OpenAIDialect
from tests.wire_server import WireServer, reply

ONCE = Resilience(retry={"attempts": 1})
CALLS = [("call_a", "look", {"q": "é"})]
CLIENTS = [(OpenAIDialect(), openai.AsyncOpenAI, "/v1"), (AnthropicDialect(), anthropic.AsyncAnthropic, "")]


@pytest.mark.parametrize(("speaks", "client_of", "prefix"), CLIENTS, ids=["openai", "anthropic"])
def test_the_sdks_client_carries_everything(speaks, client_of, prefix):
    plays = [
        speaks.whole("Hello."),
        speaks.stream(["Hm."], CALLS),
        speaks.whole("Hello."),
        reply({"error": {"message": f"bad {KEY}"}}, 401),
        reply({}, 429, Retry_After="7"),
        speaks.cut_off("Half").unfinished("close"),
        reply(b"<title>Login</title>", kind="text/html"),
        reply({}).cut(0),
    ]

    async def main():
        async with WireServer(plays) as server, client_of(api_key=KEY, base_url=_address(server, prefix)) as client:
            llm = speaks.provider("m", client=client, resilience=ONCE)
            assert (await llm.async_generate("Hi")).text == "Hello."
            assert (await llm.async_chat("Hi", on_chunk=lambda _: None)).tool_calls == (ToolCall(*CALLS[0]),)
            assert (await llm.async_chat("Hi", on_chunk=lambda _: None)).text == "Hello."
            errors = []
            for streamed in (False, False, True, True, False):
                with pytest.raises(LLMError) as caught:
                    await llm.async_chat("Hi", on_chunk=(lambda _: None) if streamed else None)
                errors.append(caught.value)
            await llm.aclose()
            assert [seen.path for seen in server.requests] == [speaks.path] * len(plays)
            assert all(KEY in str(seen.headers) for seen in server.requests)
            assert all(0 < float(seen.headers["x-request-timeout"]) <= 29 for seen in server.requests)
            return errors

    refused, limited, cut, page, gone = run(main())
    assert isinstance(refused, AuthenticationFailed)
    assert "bad [key]" in str(refused)
    assert (type(limited), limited.retry_after_s) == (RateLimited, 7.0)
    assert isinstance(cut, StreamInterrupted)
    assert isinstance(page, MalformedResponse)
    assert isinstance(gone, LLMConnectionError)


def test_embeddings_go_through_it_too():
    async def main():
        plays = [reply({"data": [{"index": 0, "embedding": [1.0, 2.0]}]})]
        async with WireServer(plays) as server, openai.AsyncOpenAI(api_key=KEY, base_url=server.url) as client:
            return await OpenAILLM("m", client=client, resilience=ONCE).async_embed(["a"])

    assert run(main()).tolist() == [[1, 2]]


def _address(server, prefix):
    return f"http://127.0.0.1:{server.port}{prefix}"


@pytest.mark.parametrize(
    ("llm", "client_of", "address"),
    [
        (OpenAILLM, openai.AsyncOpenAI, "https://api.openai.com/v1"),
        (AnthropicLLM, anthropic.AsyncAnthropic, "https://api.anthropic.com"),
    ],
)
def test_a_client_has_its_own_key_and_address(llm, client_of, address):
    client = client_of(api_key=KEY)
    with pytest.raises(MisuseError, match="either client"):
        llm("m", client=client, base_url="http://127.0.0.1/v1")
    assert llm("m", client=client).base_url == address


async def token():
    return "t"


async def other_token():
    return "t"


AZURE = {"azure_endpoint": "http://127.0.0.1:1", "api_version": "1"}


@pytest.mark.parametrize(
    ("client_of", "one", "other"),
    [
        (openai.AsyncOpenAI, {"api_key": "one"}, {"api_key": "other"}),
        (openai.AsyncOpenAI, {"api_key": KEY, "organization": "one"}, {"api_key": KEY, "organization": "other"}),
        (openai.AsyncOpenAI, {"api_key": KEY, "project": "one"}, {"api_key": KEY, "project": "other"}),
        (
            openai.AsyncOpenAI,
            {"api_key": KEY, "default_headers": {"x-tenant": "one"}},
            {"api_key": KEY, "default_headers": {"x-tenant": "other"}},
        ),
        (
            openai.AsyncOpenAI,
            {"api_key": KEY, "default_query": {"team": "one"}},
            {"api_key": KEY, "default_query": {"team": "other"}},
        ),
        (openai.AsyncAzureOpenAI, AZURE | {"api_key": "one"}, AZURE | {"api_key": "other"}),
        (
            openai.AsyncAzureOpenAI,
            AZURE | {"azure_ad_token_provider": token},
            AZURE | {"azure_ad_token_provider": other_token},
        ),
        (anthropic.AsyncAnthropic, {"api_key": "one"}, {"api_key": "other"}),
        (anthropic.AsyncAnthropic, {"auth_token": "one"}, {"auth_token": "other"}),
    ],
)
def test_what_is_known_of_a_model_is_known_to_one_customer(client_of, one, other):
    """The quota of one, used up, must not close the model to another."""
    llm = AnthropicLLM if client_of is anthropic.AsyncAnthropic else OpenAILLM
    mine, same, theirs = (llm("m", client=client_of(**given)) for given in (one, one, other))
    assert mine.health is same.health
    assert mine.health is not theirs.health
