"""The proxy on the way to a model: who is named where it is in the way, and whether it is asked again."""

from __future__ import annotations

import asyncio

import pytest
from yarl import URL

from shared_libs.atomic import Resilience
from shared_libs.atomic.errors import LLMConnectionError, LLMTimeout
from shared_libs.atomic.llms.openai_llm import OpenAILLM
from shared_libs.atomic.llms.proxy import proxy_for
from tests.support import run, run_virtual
from tests.wire_server import WireServer, reply

ONCE = Resilience(retry={"attempts": 1})
HELLO = {"choices": [{"message": {"role": "assistant", "content": "Hello."}}]}


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def test_the_proxy_of_the_environment_is_used(monkeypatch):
    async def main():
        async with WireServer([reply(HELLO)]) as proxy:
            monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
            async with OpenAILLM("m", base_url="http://far-away.test/v1", resilience=ONCE) as llm:
                await llm.async_generate("Hi")
            return proxy.requests[0].path

    assert run(main()) == "http://far-away.test/v1/chat/completions"


def test_a_proxy_gets_the_password_of_its_address_and_the_server_its_own_key(monkeypatch):
    async def main():
        async with WireServer([reply(HELLO), reply(HELLO)]) as proxy:
            monkeypatch.setenv("http_proxy", f"http://ann:secret@127.0.0.1:{proxy.port}")
            async with OpenAILLM("m", base_url="http://far-away.test/v1", api_key="k", resilience=ONCE) as llm:
                for _ in range(2):
                    await llm.async_generate("Hi")
            return [(seen.headers["proxy-authorization"], seen.headers["authorization"]) for seen in proxy.requests]

    assert run(main()) == [("Basic YW5uOnNlY3JldA==", "Bearer k")] * 2


async def _refused(address):
    async with OpenAILLM("m", base_url=address, resilience=ONCE) as llm:
        with pytest.raises((LLMConnectionError, LLMTimeout)) as caught:
            await llm.async_generate("Hi")
    return str(caught.value.attempts[0].why), caught.value.retryable


@pytest.mark.parametrize(
    ("status", "retryable"), [(403, False), (404, False), (407, False), (429, True), (502, True), (504, True)]
)
def test_what_a_proxy_refuses_is_its_own_word_and_the_password_is_nobodys(monkeypatch, status, retryable):
    async def main():
        async with WireServer([reply(b"<html>no</html>", status)]) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"http://ann:pa55word@127.0.0.1:{proxy.port}")
            why, again = await _refused("https://far-away.test/v1")
            return why.replace(str(proxy.port), "PORT"), again

    why, again = run(main())
    said = (
        "no answer from https://far-away.test/v1/chat/completions through the proxy http://127.0.0.1:PORT (HTTPS_PROXY)"
    )
    assert why.startswith(f"{said}: the proxy refused with HTTP {status}")
    assert ("pa55word" in why, again, "user and a password" in why) == (False, retryable, status == 407)


def test_a_proxy_that_asks_who_one_is_asks_for_no_key_of_the_model(monkeypatch):
    async def main():
        async with WireServer([reply(b"<html>no</html>", 407)]) as proxy:
            monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
            return await _refused("http://far-away.test/v1")

    why, again = run(main())
    assert ("(HTTP_PROXY): the proxy refused with HTTP 407; it wants a user" in why, again) == (True, False)


def test_a_proxy_that_does_not_answer_is_named(monkeypatch):
    async def main():
        async def is_silent(reader, writer):
            await reader.read()
            writer.close()

        server = await asyncio.start_server(is_silent, "127.0.0.1", 0)
        monkeypatch.setenv("ALL_PROXY", f"http://ann:pa55word@127.0.0.1:{server.sockets[0].getsockname()[1]}")
        async with server:
            silent = await _refused("https://far-away.test/v1")
        return silent, await _refused("https://far-away.test/v1")

    (silent, _), (gone, _) = run_virtual(main())
    assert all("through the proxy http://127.0.0.1:" in why and "(ALL_PROXY)" in why for why in (silent, gone))
    assert ("within 5 s" in silent, "Connection refused" in gone, "pa55word" in silent + gone) == (True, True, False)


@pytest.mark.parametrize(
    ("named", "why"),
    [
        (
            "socks5://ann:pa55word@127.0.0.1:1080",
            "the proxy socks5://127.0.0.1:1080 (ALL_PROXY) is a socks5 proxy, ",
        ),
        ("http://ann:pa55word@:bad", "ALL_PROXY is no address of a proxy"),
        ("http://ann:pa55word@", "ALL_PROXY is no address of a proxy"),
    ],
)
def test_what_is_no_proxy_of_ours_is_refused_with_what_it_has_to_be(monkeypatch, named, why):
    monkeypatch.setenv("ALL_PROXY", named)
    said, again = run(_refused("https://far-away.test/v1"))
    assert said.startswith(why)
    assert said.endswith("it has to be such as http://proxy.example.com:3128, or unset, or NO_PROXY names the host")
    assert not again


@pytest.mark.parametrize(
    ("no_proxy", "host", "used"),
    [
        ("", "10.1.2.3", True),
        ("10.0.0.0/8", "10.1.2.3", False),
        ("10.0.0.0/8", "11.1.2.3", True),
        ("x, 10.0.0.1/8 ,y", "10.1.2.3", False),
        ("fd00::/8", "[fd00::1]", False),
        ("10.0.0.0/8", "model.far-away.test", True),
        (".far-away.test", "model.far-away.test", False),
        ("*", "model.far-away.test", False),
        ("", "localhost", False),
        ("", "[::1]", False),
    ],
)
def test_names_and_networks_that_need_no_proxy(monkeypatch, no_proxy, host, used):
    monkeypatch.setenv("http_proxy", "proxy.test:3128")
    monkeypatch.setenv("no_proxy", no_proxy)
    found = proxy_for(URL(f"http://{host}/v1"))
    assert (found is not None) == used
    assert found is None or str(found) == "the proxy http://proxy.test:3128 (HTTP_PROXY)"
