"""What an agent's parts may be given as, and what is printed of them."""

from __future__ import annotations

import pydantic
import pytest

from shared_libs.agents import ReActAgent
from shared_libs.atomic import BaseTool, InProcessMemory, MisuseError, Resilience
from shared_libs.atomic.llms import AnthropicLLM, OllamaLLM, OpenAILLM, ScriptedLLM
from shared_libs.limits import SQLLimitStore
from shared_libs.memory import SQLMemory
from tests.unit.agents.cast import add


@pytest.mark.promise("by-name")
@pytest.mark.parametrize(
    ("name", "kind", "model"),
    [
        ("openai/gpt-5.4-mini", OpenAILLM, "gpt-5.4-mini"),
        ("openai/org/some-model", OpenAILLM, "org/some-model"),
        ("anthropic/claude-sonnet-5", AnthropicLLM, "claude-sonnet-5"),
        ("ollama/llama3.2:1b", OllamaLLM, "llama3.2:1b"),
    ],
)
def test_a_model_may_be_told_by_its_name(name, kind, model):
    llm = ReActAgent(name).llm
    assert (type(llm), llm.model) == (kind, model)
    [fallback] = OpenAILLM("x", api_key="k", fallbacks=[name]).fallbacks
    assert (type(fallback), fallback.model) == (kind, model)


@pytest.mark.promise("by-name")
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("gpt-5.4-mini", "did you mean 'openai/gpt-5.4-mini'"),
        ("opnai/gpt-5.4-mini", "did you mean 'openai/gpt-5.4-mini'"),
        ("antropic/claude", "did you mean 'anthropic/claude'"),
        ("openai", 'write "openai/MODEL"'),
        ("openai/", 'write "openai/MODEL"'),
        ("", "is no name of a model"),
    ],
)
def test_what_is_no_name_of_a_model_says_what_one_is(name, why):
    with pytest.raises(MisuseError, match=why):
        ReActAgent(llm=name)
    with pytest.raises(MisuseError, match=why):
        ScriptedLLM([], fallbacks=[name])


@pytest.mark.promise("dicts")
def test_policies_may_be_dicts_wherever_they_stand():
    llm = OpenAILLM("m", api_key="k", resilience={"retry": {"attempts": 2}, "strategy": "race"})
    assert llm.resilience == Resilience(retry={"attempts": 2}, strategy="race")
    assert ReActAgent(llm, limits={"timeout_s": 5}).limits.timeout_s == 5


@pytest.mark.promise("dicts")
@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"resilience": {"retries": 3}}, "allowed is a Resilience or a dict of retry, breaker"),
        ({"resilience": {"retry": {"atempts": 3}}}, "allowed is a Retry or a dict of attempts"),
        ({"resilience": 3}, "allowed is a Resilience"),
        ({"fallbacks": "openai/gpt"}, r"write fallbacks=\[…\]"),
        ({"fallbacks": OpenAILLM("x", api_key="k")}, r"write fallbacks=\[…\]"),
        ({"fallbacks": [OpenAILLM]}, "a fallback is a model"),
    ],
)
def test_what_is_no_policy_is_refused_at_once(given, why):
    with pytest.raises(MisuseError, match=why):
        OpenAILLM("m", **given)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"model": None}, "needs the name of a model, not None"),
        ({"model": b"m"}, "needs the name of a model, not b'm'"),
        ({"model": "m", "api_key": b"k"}, "api_key is a text, not a bytes"),
        ({"model": "m", "api_key": "$OPENAI_API_KEY"}, r"pass os.environ\['OPENAI_API_KEY'\]"),
        ({"model": "m", "api_key": "${KEY}"}, r"pass os.environ\['KEY'\]"),
    ],
)
def test_what_is_no_name_and_no_key_is_refused_at_once(given, why):
    with pytest.raises(MisuseError, match=why):
        OpenAILLM(**given)


def test_an_agent_has_a_name():
    with pytest.raises(MisuseError, match="name is a text that is not empty"):
        ReActAgent(ScriptedLLM([]), name=None)


class City(pydantic.BaseModel):
    name: str


class Own(BaseTool):
    name = "own"
    description = "x"

    def __init__(self, password: str) -> None:
        self.password = password

    async def execute(self) -> str:
        return ""


@pytest.mark.promise("shown")
def test_what_is_printed_says_what_it_is_and_no_secret():
    url = "postgresql://me:hunter2@db/factory?sslpassword=hunter2"
    llm = OpenAILLM(
        "gpt",
        api_key="hunter2",
        base_url="http://127.0.0.1:1/v1",
        options={"extra_headers": {"X-Key": "hunter2"}},
        fallbacks=["anthropic/claude-sonnet-5"],
        resilience={"rate_limit": {"requests_per_minute": 5, "store": SQLLimitStore(url)}},
    )
    built = ReActAgent(llm, [add, Own("hunter2")], memory=SQLMemory(url), name="flights", output_schema=City)
    assert repr(built) == (
        "ReActAgent('flights', llm=OpenAILLM('gpt', base_url='http://127.0.0.1:1/v1', "
        "fallbacks=[AnthropicLLM('claude-sonnet-5')]), tools=[add, own], "
        "memory=SQLMemory('postgresql+asyncpg://me:***@db/factory'), output_schema=City)"
    )
    assert repr(built.tools) == "(FunctionTool('add', a, b), Own('own'))"
    assert repr(InProcessMemory()) == "InProcessMemory('in-process')"
    for part in (built, llm, llm.resilience, built.memory, built.limits, *built.tools):
        assert "hunter2" not in f"{part!r} {part}"
