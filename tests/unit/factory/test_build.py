"""From a definition to an agent: the chain, the tools, memory, limits, and what the caller brings."""

from __future__ import annotations

import dataclasses

import pytest
from pydantic import BaseModel

from shared_libs.agents import Limits
from shared_libs.atomic import (
    BaseTool,
    Breaker,
    ConfigError,
    InProcessMemory,
    MisuseError,
    RateLimit,
    Resilience,
    Retry,
    tool,
)
from shared_libs.atomic.database_url import DRIVERS
from shared_libs.atomic.llms import ScriptedLLM
from shared_libs.factory import agent_from_dict, check_file, load_agent
from shared_libs.factory.spec import BreakerSpec, LimitsSpec, PolicySpec, RateLimitSpec, RetrySpec
from tests.support import run
from tests.unit.atomic.llms.dialects import ResponsesDialect
from tests.wire_server import WireServer

LLM = {"provider": "fake", "model": "m"}
KEYED = LLM | {"api_key": "${FAKE_KEY:-}"}

pytestmark = pytest.mark.usefixtures("plugin")


@tool
def add(a: int, b: int) -> int:
    """Add."""
    return a + b


@tool(name="ready")
def other_ready() -> str:
    """Another one."""
    return ""


def build(llm=LLM, **sections):
    return agent_from_dict({"name": "a", "llm": llm} | sections)


def problems_of(*, tools=(), llm=None, **definition):
    with pytest.raises(ConfigError) as caught:
        agent_from_dict({"name": "a"} | definition, tools=tools, llm=llm)
    return caught.value.problems


def test_a_file_becomes_an_agent_that_answers(write):
    path = write("name: a\nllm: {provider: fake, model: m}\ntools: [ready]\n")
    result = run(load_agent(path).async_run("hello?"))
    assert (result.status, result.answer) == ("answered", "fake")


def test_all_sections_arrive():
    agent = agent_from_dict(
        {
            "name": "flights-1.0",
            "description": "any",
            "instructions": "Be brief.",
            "llm": {
                "chain": [
                    LLM | {"price": {"input": 1, "output": 2}, "options": {"temperature": 0}},
                    LLM | {"model": "n"},
                ],
                "strategy": "hedged",
                "hedge_after_s": 1.5,
                "retry": {"attempts": 3, "base_s": 0},
                "breaker": {"failures": 2},
                "rate_limit": {"requests_per_minute": 5},
                "attempt_timeout_s": 20,
            },
            "memory": {"window": 20},
            "limits": {"timeout_s": 9, "reserve_s": 0, "max_tool_calls": None, "max_cost_usd": 0.1},
            "protocol": "text",
        }
    )
    assert (agent.name, agent.instructions) == ("flights-1.0", "Be brief.")
    assert agent.limits == Limits(timeout_s=9, reserve_s=0, max_tool_calls=None, max_cost_usd=0.1)
    assert isinstance(agent.memory, InProcessMemory)
    assert agent.memory.window == 20
    assert (agent.llm.price.input, agent.llm.price.cached_input, agent.llm.options) == (1.0, None, {"temperature": 0})
    assert [model.model for model in agent.llm.fallbacks] == ["n"]
    assert agent.llm.resilience == Resilience(
        strategy="hedged",
        hedge_after_s=1.5,
        retry=Retry(attempts=3, base_s=0),
        breaker=Breaker(failures=2),
        rate_limit=RateLimit(requests_per_minute=5),
        attempt_timeout_s=20,
    )


@pytest.mark.parametrize("llm", [LLM, {"chain": [LLM]}])
def test_a_limit_is_shared_through_the_store_at_its_url(llm):
    limit = build(llm | {"rate_limit": {"requests_per_minute": 5, "store": "sqlite+aiosqlite:///l.db"}}).llm.resilience
    assert repr(limit.rate_limit.store) == "SQLLimitStore('sqlite+aiosqlite:///l.db')"


def test_a_limit_that_cannot_be_shared_is_told_with_its_place():
    def told(**limit):
        with pytest.raises(ConfigError) as caught:
            build(LLM | {"rate_limit": limit})
        return caught.value.problems

    place = "llm.rate_limit.store: "
    assert told(requests_per_minute=5, store="redis://me:secret@x") == (
        f"{place}no limit is kept at such an address; allowed: {', '.join(sorted(f'{name}:' for name in DRIVERS))}",
    )
    assert told(concurrency=5, store="sqlite+aiosqlite:///l.db") == (
        f"{place}there is nothing to share; give requests_per_minute or tokens_per_minute as well",
    )
    assert told(requests_per_minute=5, store=3) == (f"{place}expected text, got the number 3",)
    assert told(requests_per_minute=0, store="sqlite+aiosqlite:///l.db") == (
        "llm.rate_limit.requests_per_minute: expected a number from 1, got the number 0",
    )


def test_one_model_may_stand_in_the_section_itself():
    agent = build(LLM | {"strategy": "race", "options": {"top_p": 1}})
    assert (agent.llm.model, agent.llm.resilience.strategy, agent.llm.options) == ("m", "race", {"top_p": 1})
    assert build().llm.resilience is None


@pytest.mark.promise("provider-ids")
def test_a_model_behind_the_responses_api_keeps_its_reasoning_from_turn_to_turn_and_run_to_run(tmp_path):
    speaks = ResponsesDialect()
    plays = [
        speaks.stream([], [("call_a", "calculator", {"expression": "17 * 23"})], "I should compute it."),
        speaks.stream(["It is 391."]),
        speaks.stream(["As I said."]),
    ]

    async def main():
        async with WireServer(plays) as server:
            llm = {"provider": "openai", "model": "m", "api": "responses", "api_key": "k", "base_url": server.url}
            memory = {"url": f"sqlite+aiosqlite:///{tmp_path}/sessions.db"}
            for question in ("What is 17 * 23?", "Sure?"):
                agent = build(llm, tools=["calculator"], memory=memory)
                events = [event async for event in agent.async_stream(question, session_id="s")]
                await agent.aclose()
            return events[-1].result.answer, [seen.body["input"] for seen in server.requests]

    answer, requests = run(main())
    assert answer == "As I said."
    for sent in requests[1:]:
        at = [item.get("type") for item in sent].index("reasoning")
        assert sent[at] == {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "I should compute it."}],
            "encrypted_content": "sealed",
        }
        assert [item["type"] for item in sent[at + 1 : at + 3]] == ["function_call", "function_call_output"]


def test_an_api_that_is_none_is_told_with_the_nearest():
    with pytest.raises(ConfigError) as caught:
        build({"provider": "openai", "model": "m", "api": "respones"})
    (problem,) = caught.value.problems
    assert problem.endswith("llm.api: 'respones' is not known; allowed: chat, responses; did you mean 'responses'?")


def test_a_memory_of_an_installed_package_gets_the_url_and_the_window():
    memory = build(memory={"url": "shelf:x", "window": 2}).memory
    assert (memory.url, memory.window) == ("shelf:x", 2)
    assert problems_of(llm=None, memory={"url": "memory:x"})[-1] == "memory.url: memory: takes nothing behind the colon"


class TestKeys:
    def chain(self, *links):
        notes = []
        agent = agent_from_dict({"name": "a", "llm": {"chain": list(links)}}, on_note=notes.append)
        return [agent.llm.model, *(model.model for model in agent.llm.fallbacks)], notes

    def test_a_model_without_its_key_is_left_out_while_another_remains(self, monkeypatch):
        note = "fake is left out: its key is empty; set FAKE_KEY"
        assert self.chain(KEYED, LLM | {"model": "n"}) == (["n"], [note])
        monkeypatch.setenv("FAKE_KEY", "k")
        assert self.chain(KEYED, LLM | {"model": "n"}) == (["m", "n"], [])

    def test_a_server_elsewhere_may_need_no_key(self, monkeypatch):
        other = LLM | {"model": "n"}
        assert self.chain(KEYED | {"base_url": "http://127.0.0.1:1/v1"}, other) == (["m", "n"], [])
        assert self.chain(KEYED | {"base_url": "https://fake"}, other)[0] == ["n"]
        monkeypatch.setenv("FAKE_URL", "http://127.0.0.1:1/v1")
        assert self.chain(KEYED | {"base_url": ""}, other)[0] == ["m", "n"]

    def test_the_rehearsal_is_used_only_when_nothing_else_is(self, monkeypatch):
        rehearsal = {"provider": "standin"}
        assert self.chain(KEYED, rehearsal)[0] == ["standin"]
        assert self.chain(rehearsal, KEYED, LLM | {"model": "n"})[0] == ["n"]
        monkeypatch.setenv("FAKE_KEY", "k")
        assert self.chain(KEYED, rehearsal) == (["m"], [])

    def test_without_any_usable_model_the_keys_to_set_are_named(self, write):
        link = "{provider: fake, model: m, api_key: '${FAKE_KEY:-}'}"
        path = write(f"name: a\nllm:\n  chain:\n    - {link}\n    - {{provider: fake, model: m, api_key: ''}}\n")
        assert check_file(path) == []
        with pytest.raises(ConfigError) as caught:
            load_agent(path)
        assert caught.value.problems == (
            "agent.yaml:4:43: llm.chain[0].api_key: no model is usable: its key is empty; set FAKE_KEY",
            "agent.yaml:5:43: llm.chain[1].api_key: no model is usable: its key is empty; give one or remove `api_key`",
        )

    def test_a_model_that_takes_no_fallbacks_stands_last(self, plugin):
        module = plugin / "weather_plugin.py"
        module.write_text(module.read_text().replace("rehearsal = True", "rehearsal = False"))
        chain = [{"provider": "standin"}, LLM]
        assert problems_of(llm=None) == ("llm: is missing; give `chain`, or `provider` and `model`",)
        with pytest.raises(ConfigError) as caught:
            agent_from_dict({"name": "a", "llm": {"chain": chain}})
        assert caught.value.problems == ("llm.chain[0]: standin takes no fallbacks; put it last",)


class TestWhatTheCallerBrings:
    def test_tools_that_are_not_named_are_added_behind(self):
        agent = agent_from_dict({"name": "a", "llm": LLM, "tools": ["ready"]}, tools=[add])
        assert [own.name for own in agent.tools] == ["ready", "add"]

    def test_a_tool_can_be_named_to_stand_first(self):
        agent = agent_from_dict({"name": "a", "llm": LLM, "tools": [{"use": "add"}, "ready"]}, tools=[add])
        assert [own.name for own in agent.tools] == ["add", "ready"]
        assert agent.tools[0] is add

    def test_a_tool_of_the_caller_takes_no_options(self):
        definition = {"llm": LLM, "tools": [{"use": "add", "timeout_s": 3}]}
        with pytest.raises(ConfigError) as caught:
            agent_from_dict({"name": "a"} | definition, tools=[add])
        assert caught.value.problems == ("tools[0].timeout_s: a tool passed by the caller takes no options here",)

    def test_two_tools_of_one_name_are_refused(self):
        clash = "tools[0]: a tool named 'ready' is also passed by the caller; rename one of them"
        with pytest.raises(ConfigError) as caught:
            agent_from_dict({"name": "a", "llm": LLM, "tools": ["ready"]}, tools=[other_ready])
        assert caught.value.problems == (clash,)
        with pytest.raises(ConfigError, match="two of the passed tools are called 'add'"):
            agent_from_dict({"name": "a", "llm": LLM}, tools=[add, add])
        with pytest.raises(ConfigError, match=r"a second tool named 'add' \(see tools\[0\]\)"):
            agent_from_dict({"name": "a", "llm": LLM, "tools": ["add", "add"]}, tools=[add])

    def test_a_function_is_no_tool(self):
        with pytest.raises(MisuseError, match="decorate a function with @tool"):
            agent_from_dict({"name": "a", "llm": LLM}, tools=[len])

    def test_a_model_replaces_the_chain_whose_variables_need_not_be_set(self, write):
        mine = ScriptedLLM(["mine"])
        path = write("name: a\nllm: {provider: fake, model: m, api_key: '${NOT_SET}', base_url: refused}\n")
        assert load_agent(path, llm=mine).llm is mine
        assert agent_from_dict({"name": "a"}, llm=mine).llm is mine
        with pytest.raises(ConfigError, match="unknown key"):
            agent_from_dict({"name": "a", "llm": LLM | {"x": 1}}, llm=mine)

    def test_observers_see_the_run(self):
        events = []
        agent = agent_from_dict({"name": "a", "llm": LLM}, observers=[events.append])
        run(agent.async_run("hello?"))
        assert type(events[-1]).__name__ == "RunFinished"


@pytest.mark.parametrize(
    ("section", "policy"),
    [
        (LimitsSpec, Limits),
        (RetrySpec, Retry),
        (BreakerSpec, Breaker),
        (RateLimitSpec, RateLimit),
        (PolicySpec, Resilience),
    ],
)
def test_sections_have_the_keys_and_defaults_of_what_they_become(section, policy):
    made = policy()
    assert set(section.model_fields) == {field.name for field in dataclasses.fields(policy)}
    for key, info in section.model_fields.items():
        assert plain(info.default) == plain(getattr(made, key)), key


def plain(value):
    if isinstance(value, BaseModel):
        return value.model_dump()
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value


def test_a_tool_of_a_definition_may_run_in_a_process():
    options = {"isolation": "process", "memory_limit_mb": 300, "cpu_limit_s": 2}
    agent = build(tools=[{"use": "calculator", **options}])

    async def main():
        async with agent:
            return await agent.tools[0].async_run({"expression": "6 * 7"})

    result = run(main())
    assert (result.content, result.is_error) == ("42", False)
    assert agent.tools[0]._placement.workers is not None


def test_a_tool_that_cannot_run_in_a_process_is_told_with_its_place(tmp_path):
    for entry, why in (
        ({"use": "files", "root": str(tmp_path), "isolation": "process"}, "makes the tool again in another process"),
        ({"use": "calculator", "memory_limit_mb": 3}, "need isolation 'process'"),
    ):
        with pytest.raises(ConfigError, match=why) as caught:
            build(tools=[entry])
        assert "tools[0]" in str(caught.value)


def test_a_tool_without_a_name_is_told_where_it_stands():
    class Nameless(BaseTool):
        def execute(self) -> str:
            return ""

    with pytest.raises(MisuseError, match="Nameless has no name"):
        agent_from_dict({"name": "a", "llm": LLM}, tools=[Nameless()])


def test_a_memory_gets_its_embedder_and_its_summariser(tmp_path):
    url = f"sqlite+aiosqlite:///{tmp_path}/s.db"
    small = {"provider": "openai", "model": "small", "base_url": "http://127.0.0.1:1/v1"}
    compact = {"max_tokens": 500, "keep": 3}
    memory = build(memory={"url": url, "embedder": small, "compact": compact, "on_outage": "queue"}).memory
    assert memory._meaning.embedder.model == "small"
    assert memory.compaction.llm.model == LLM["model"]
    assert (memory.compaction.max_tokens, memory.compaction.keep) == (500, 3)
    assert build(memory={"compact": {"llm": small}}).memory.compaction.llm.model == "small"
    rehearsal = {"provider": "rehearsal", "script": "hello"}
    assert build(llm=rehearsal, memory={"compact": compact}).memory.compaction is None


def test_an_embedder_without_its_key_is_left_out_with_a_note():
    notes = []
    section = {"url": "sqlite+aiosqlite:///s.db", "embedder": {"provider": "openai", "model": "m", "api_key": ""}}
    memory = agent_from_dict({"name": "a", "llm": LLM, "memory": section}, on_note=notes.append).memory
    assert memory._meaning is None
    assert notes == ["memory.embedder is left out: its key is empty; give one or remove `api_key`"]


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"on_outage": "queue"}, "memory.on_outage: memory: takes no on_outage; remove it"),
        (
            {"url": "sqlite+aiosqlite:///s.db", "embedder": {"provider": "rerank", "model": "m"}},
            "memory.embedder: rerank has no embeddings; name a model that has",
        ),
        ({"compact": {"keep": 0}}, "memory.compact.keep: expected a number from 1, got the number 0"),
        (
            {"compact": {"kep": 1}},
            "memory.compact.kep: unknown key; allowed: keep, llm, max_tokens, timeout_s; did you",
        ),
        ({"on_outage": "drop"}, "memory.on_outage: 'drop' is not known; allowed: error, queue"),
        ({"embedder": {"provider": "opnai", "model": "m"}}, "memory.embedder.provider: 'opnai' is no provider;"),
    ],
)
def test_what_is_wrong_with_a_memory_is_told_at_its_place(section, problem):
    assert any(line.startswith(problem) for line in problems_of(memory=section)), problems_of(memory=section)
