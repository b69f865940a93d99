"""What refusals mean and teach, in the words of many servers: the data of tests/wire_words, met without a socket."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from shared_libs.atomic.errors import (
    AuthenticationFailed,
    BadRequest,
    ContentFiltered,
    ContextOverflow,
    MalformedResponse,
    ModelNotFound,
    ProviderUnavailable,
    RateLimited,
)
from shared_libs.atomic.llms.anthropic_llm import AnthropicLLM
from shared_libs.atomic.llms.dialect import Dialect, forget
from shared_libs.atomic.llms.faults import error_event, refusal
from shared_libs.atomic.llms.lessons import learn, learn_how_many
from shared_libs.atomic.llms.ollama_llm import OllamaLLM
from shared_libs.atomic.llms.openai_llm import OpenAILLM
from shared_libs.atomic.llms.openai_request import request_tool
from shared_libs.atomic.llms.structured import OutputSchema
from shared_libs.atomic.llms.tool_schema import longest_description, told_parameters
from shared_libs.atomic.types import ImagePart, Message, TextPart, ToolCall, ToolSpec

FOLDER = Path(__file__).parents[3] / "wire_words"
MEANS = {
    "filter": lambda error: type(error) is ContentFiltered,
    "too-long": lambda error: type(error) is ContextOverflow,
    "money": lambda error: type(error) is RateLimited and not error.retryable,
    "key": lambda error: type(error) is AuthenticationFailed,
    "model": lambda error: type(error) is ModelNotFound,
    "call-not-made": lambda error: type(error) is MalformedResponse and error.retryable,
    "busy": lambda error: type(error) in {RateLimited, ProviderUnavailable} and error.retryable,
    "this-server": lambda error: type(error) is BadRequest and error.another_may_answer,
    "all-would-refuse": lambda error: type(error) is BadRequest and not error.another_may_answer,
}
WEATHER = ToolSpec("get_weather", "d", {"type": "object", "properties": {"city": {"type": "string"}}})
A_CALL = [
    Message("user", "q"),
    Message("assistant", "", tool_calls=(ToolCall("call_1", "get_weather", {"city": "P"}),)),
    Message("tool", "fine", tool_call_id="call_1", name="get_weather"),
]
IMAGE = ImagePart("data:image/png;base64,AA==")
CONVERSATIONS = {
    "hi": [Message("user", "q")],
    "a-system-prompt": [Message("system", "s"), Message("user", "q")],
    "parts": [Message("user", (TextPart("a"), TextPart("b")))],
    "an-old-image": [
        Message("user", (TextPart("a"), IMAGE)),
        Message("assistant", "tree"),
        Message("user", "sure?"),
    ],
    "a-call": A_CALL,
    "a-call-and-a-user": [*A_CALL, Message("user", "now")],
}
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def read(name):
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load((FOLDER / f"{name}.yaml").read_text("utf-8"), loader)


def refused(words):
    status, body = words if isinstance(words, list) else (400, words)
    if isinstance(body, str):
        body = {"error": {"message": body, "type": "invalid_request_error"}}
    raw = (body["as_text"] if isinstance(body, dict) and body.keys() == {"as_text"} else json.dumps(body)).encode()
    where = "http://127.0.0.1:1/v1/chat/completions"
    return error_event(raw, ()) if status == 200 else refusal(status, {}, raw, (), where)


@pytest.mark.promise("wire-read")
def test_the_wait_is_read_from_wherever_it_stands():
    wrong = []
    for row in read("waits"):
        headers = {name.lower(): value for name, value in row.get("headers", {}).items()}
        body = row.get("body", {"error": {"message": row.get("message", "slow down")}})
        told = json.dumps(body).encode()
        error = refusal(row.get("status", 429), {"date": "Fri, 27 Nov 2026 10:00:00 GMT"} | headers, told, (), "u")
        if error.retry_after_s != pytest.approx(row["wait_s"]):
            wrong.append((row, error.retry_after_s))
    assert wrong == []


def lessons():
    rows = read("lessons")
    names = [
        "-".join([*row.get("options", ()), row.get("messages", ""), str(number)]) for number, row in enumerate(rows)
    ]
    return [pytest.param(row, id=name) for row, name in zip(rows, names, strict=True)]


@pytest.mark.promise("wire-read")
@pytest.mark.parametrize("meaning", MEANS)
def test_refusals_of_one_meaning(meaning):
    said = [(words, refused(words)) for words in read("refusals")[meaning]]
    assert len(said) > 10
    assert [(words, repr(error)) for words, error in said if not MEANS[meaning](error)] == []


@pytest.mark.promise("asks-as-told")
@pytest.mark.parametrize("row", lessons())
def test_what_a_refusal_teaches(row):
    heard = taught_how_many if "texts" in row else taught
    assert [(words, told) for words in row["words"] if (told := heard(row, words)) is not None] == []


@pytest.mark.promise("asks-as-told")
def test_which_refusals_say_that_a_model_takes_no_tools():
    request = {"model": "m", "messages": [], "tools": [request_tool(WEATHER)]}
    wrong = []
    for kind, rows in read("tools").items():
        for words in rows:
            error, dialect = refused(words), Dialect("m")
            learn(dialect, request, error, chat=True)
            right = kind == "refuses-tools"
            if (error.of_tools, "no-tools" in dialect.traits, bool(error.learnt)) != (
                right,
                right,
                error.learnt and not right,
            ):
                wrong.append((words, dialect.learnt))
    assert wrong == []


def taught(row, words):
    """What is not as the row says, or None."""
    forget()
    api, made = row.get("api", "chat"), {"base_url": "http://127.0.0.1:1/v1", "api_key": "none"}
    kinds = {"anthropic": AnthropicLLM, "ollama": OllamaLLM}
    llm = kinds[api]("m", **made) if api in kinds else OpenAILLM("m", api=api, **made)
    options = dict(row.get("options", {})) | ({"output_schema": OutputSchema(SCHEMA)} if row.get("schema") else {})
    messages = CONVERSATIONS[row.get("messages", "hi")]
    tools = (WEATHER,) if row.get("tools") else ()
    if "parameters" in row or "description" in row:
        tools = (ToolSpec("t", "d" * row.get("description", 1), row.get("parameters", WEATHER.parameters)),)
    streamed = {} if api in kinds else {"stream": row.get("stream", False)}

    def asked():
        request = llm._request(list(messages), tools, dict(options), **streamed)
        return json.loads(json.dumps(request))

    before, error = asked(), refused(words)
    if api == "ollama":
        learn(llm._dialect, before, error, schema="output_schema" in options)
    else:
        llm._learn_from(error, before, messages, options)
    now = asked()
    if "described" in row:
        return None if longest_description(now) == row["described"] and error.learnt else (now, repr(error))
    if "told" in row:
        told = list(told_parameters(now))
        return None if told == [row["told"]] and error.learnt else (told, repr(error))
    then, gone = row.get("then", {}), set(row.get("gone", ()))
    if not then and not gone:
        return None if now == before and not error.learnt else (now, repr(error))
    right = all(now.get(key) == then[key] for key in then)
    return None if right and not gone & now.keys() and error.learnt else (now, repr(error))


def taught_how_many(row, words):
    """What is not as the row says, or None."""
    dialect = Dialect("m")
    learn_how_many(dialect, row["texts"], refused(words))
    wanted = row.get("then", {}).get("texts_at_once")
    return None if dialect.texts_at_once == wanted else dialect.texts_at_once
