"""No secret stands in a cassette, wherever it was planted; and what is hidden does not keep a run from replaying."""

from __future__ import annotations

import json
import socket

import pytest

from shared_libs.agents import ReActAgent
from shared_libs.atomic import LLMError, Resilience, tool
from shared_libs.atomic.addresses import without_addresses
from shared_libs.atomic.errors import AuthenticationFailed
from shared_libs.atomic.llms import OpenAILLM, ScriptedLLM
from shared_libs.atomic.llms.scripted_llm import Turn
from shared_libs.atomic.types import LLMResponse, Message, Thinking, ToolSpec
from shared_libs.testing.cassettes import Player, Recorder, Secrets, text_of, variables_used
from shared_libs.testing.cassettes.file import cassette_of
from tests.support import run_virtual

SHAPED = "sk-proj-" + "a1B2" * 8
NAMED = "correct-horse-battery"
FROM_ENVIRONMENT = "zq7-warehouse-9"
TELLING = "no-known-shape-77"


@pytest.fixture
def planted(monkeypatch):
    monkeypatch.setenv("WAREHOUSE_LOGIN", FROM_ENVIRONMENT)
    monkeypatch.setenv("BILLING_SECRET", TELLING)
    monkeypatch.setenv("SHORT", "on")
    return Secrets(["WAREHOUSE_LOGIN", "SHORT"])


@tool
async def fetch(url: str) -> str:
    """Fetch a page."""
    return f"{url}\nAuthorization: Bearer {SHAPED}\n{{'password': '{NAMED}'}} for {FROM_ENVIRONMENT}, turn it on"


@pytest.mark.promise("cassette-secrets")
def test_planted_secrets_reach_no_cassette_and_the_run_replays(planted):
    call = ("fetch", {"url": f"https://me:{NAMED}@example.org/{FROM_ENVIRONMENT}", "api_key": NAMED})
    turns = [
        Turn(text=f"I use {SHAPED}.", calls=[call], chunk_delay_s=0.1),
        LLMResponse(text=f"It says {FROM_ENVIRONMENT} and {TELLING}.", thinking=(Thinking(f"Hm {SHAPED}"),)),
    ]
    instructions = f"The login is {FROM_ENVIRONMENT}; api_key={NAMED!r}. Turn it on."
    recorder = Recorder(planted)

    async def ask(llm):
        # the schema has no api_key: the model reads so, and the cassette shows it
        agent = ReActAgent(llm=llm, tools=[fetch], instructions=instructions)
        options = {"extra_headers": {"Authorization": f"Bearer {SHAPED}"}}
        agent.llm.options.update(options)
        return await agent.async_run(f"Use the token: {SHAPED}")

    real = run_virtual(ask(recorder.chain(ScriptedLLM(turns))))
    text = text_of(recorder.cassette())
    assert not [secret for secret in (SHAPED, NAMED, FROM_ENVIRONMENT, TELLING, "sk-proj") if secret in text]
    assert "Turn it on" in text
    assert "${WAREHOUSE_LOGIN}" in text
    assert "${BILLING_SECRET}" in text

    player = Player(cassette_of(text), planted)
    again = run_virtual(ask(player.chain(ScriptedLLM([]))))
    assert player.differences() == []
    assert again.answer == real.answer == f"It says {FROM_ENVIRONMENT} and {TELLING}."
    assert FROM_ENVIRONMENT in again.steps[0].actions[0].input["url"]


@pytest.mark.promise("cassette-secrets")
@pytest.mark.parametrize("streamed", [True, False])
def test_secrets_of_errors_and_pieces_of_streams(planted, streamed):
    recorder = Recorder(planted)
    turns = [AuthenticationFailed(f"the key {SHAPED} is wrong"), Turn(text=f"a {SHAPED[:9]}{SHAPED[9:]} b"), "x"]
    llm = recorder.chain(ScriptedLLM(turns))
    for _ in turns:
        try:
            run_virtual(llm.async_chat("Q", on_chunk=(lambda _: None) if streamed else None))
        except LLMError:
            continue
    text = text_of(recorder.cassette())
    assert "sk-proj" not in text
    assert "a [redacted] b" in text
    assert "the key [redacted] is wrong" in text


@pytest.mark.promise("cassette-secrets")
def test_a_schema_keeps_its_shape_and_loses_its_secrets(planted):
    parameters = {
        "type": "object",
        "properties": {
            "api_key": {"type": "string", "default": NAMED, "description": "What opens it."},
            "where": {"enum": ["a", SHAPED], "default": {"host": FROM_ENVIRONMENT}},
        },
        "required": ["api_key"],
    }
    recorder = Recorder(planted)
    spec = ToolSpec("open", f"Opens it with {SHAPED}.", parameters)
    run_virtual(recorder.chain(ScriptedLLM(["A"])).async_chat([Message("user", "Q")], [spec]))
    (entry,) = cassette_of(text_of(recorder.cassette())).entries
    told = entry.asked.tools["open"].parameters["properties"]
    assert told["api_key"] == {"type": "string", "default": "[redacted]", "description": "What opens it."}
    assert told["where"] == {"enum": ["a", "[redacted]"], "default": {"host": "${WAREHOUSE_LOGIN}"}}
    assert SHAPED not in json.dumps(told)


def test_a_short_value_is_hidden_only_as_a_word(monkeypatch):
    monkeypatch.setenv("CITY", "Rome")
    secrets = Secrets(["CITY"])
    assert secrets.hidden_text("Rome, Romeo and Jerome") == "${CITY}, Romeo and Jerome"
    assert secrets.shown({"a": ["in ${CITY}", 1]}) == {"a": ["in Rome", 1]}


def test_the_variables_of_a_definition_are_those_of_its_agents_too(tmp_path):
    (tmp_path / "inner.yaml").write_text(
        "name: inner\nllm: {api_key: '${INNER_KEY}'}\ntools: [{use: agent, path: me.yaml}]"
    )
    (tmp_path / "me.yaml").write_text("tools: [{use: agent, path: inner.yaml}]")
    definition = {"llm": {"chain": [{"api_key": "${KEY:-}"}]}, "tools": [{"use": "agent", "path": "inner.yaml"}]}
    assert variables_used(definition, tmp_path) == {"KEY", "INNER_KEY"}


@pytest.mark.promise("cassette-secrets")
@pytest.mark.parametrize(
    ("told", "shown"),
    [
        (
            "no answer from http://127.0.0.1:37781/v1/chat: cannot connect (Connection refused)",
            "no answer from http://<address>/v1/chat: cannot connect (Connection refused)",
        ),
        ("no answer from models.corp.internal: reset", "no answer from <address>: reset"),
        ("the name Models.Corp.Internal cannot be resolved (?)", "the name <address> cannot be resolved (?)"),
        ("Connect call failed ('10.1.2.3', 8443)", "Connect call failed ('<address>', 8443)"),
        (
            "no answer from http://gpu-7:80/v1: the name gpu-7 fails",
            "no answer from http://<address>/v1: the name <address> fails",
        ),
        ("moved to https://other.corp.internal:8443/v1?x=1", "moved to https://<address>/v1?x=1"),
        ("[fe80::1]:8080 and 10.0.0.9:11434.", "<address> and <address>."),
        ("models.corp.internal:443 ssl:default", "<address> ssl:default"),
        ("no token for 0.5 s; 3 of 1,000 left; version 1.2.3", "no token for 0.5 s; 3 of 1,000 left; version 1.2.3"),
        ("[1] is no [a:b]; models.corp.internalised", "[1] is no [a:b]; models.corp.internalised"),
    ],
)
def test_where_an_attempt_failed_is_not_told(told, shown):
    assert without_addresses(told, "https://models.corp.internal/v1") == shown


@pytest.mark.promise("cassette-secrets")
@pytest.mark.parametrize("streamed", [True, False])
def test_a_server_that_is_not_there_leaves_no_address(streamed):
    recorder = Recorder()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    llm = OpenAILLM(
        "m", base_url=f"http://127.0.0.1:{port}/v1", api_key="k", resilience=Resilience(retry={"attempts": 1})
    )

    async def ask(model):
        async with model:
            with pytest.raises(LLMError) as told:
                await model.async_chat("Hello?", on_chunk=print if streamed else None)
            return str(told.value)

    real = run_virtual(ask(recorder.chain(llm)))
    text = text_of(recorder.cassette())
    assert str(port) in real
    assert "127.0.0.1" not in text
    assert str(port) not in text
    again = run_virtual(ask(Player(cassette_of(text)).chain(llm)))
    assert again == real.replace(f"127.0.0.1:{port}", "<address>")
