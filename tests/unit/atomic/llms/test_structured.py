"""Structured output: told in words where the provider has no mode for it, checked, repaired once."""

from __future__ import annotations

import pydantic
import pytest

from shared_libs.atomic import MisuseError
from shared_libs.atomic.errors import MalformedResponse
from shared_libs.atomic.llms import ScriptedLLM
from tests.support import run


class City(pydantic.BaseModel):
    name: str
    people: int


SCHEMA = {"type": "object", "properties": {"people": {"type": "integer"}}, "required": ["people"]}


@pytest.mark.promise("output-fits")
@pytest.mark.parametrize(
    "text", ['{"name": "Bonn", "people": 3}', 'Sure:\n```json\n{"name": "Bonn", "people": 3}\n```']
)
def test_an_answer_is_read_as_the_model_asked_for(text):
    llm = ScriptedLLM([text])
    response = run(llm.async_generate("A city?", output_schema=City))
    assert response.parsed == City(name="Bonn", people=3)
    assert '"people"' in llm.requests[0][-1].text


@pytest.mark.promise("output-fits")
@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("Bonn", "it is not JSON"),
        ('{"people": "many"}', "people: 'many' is not of type 'integer'"),
        ("{}", "'people' is a required property"),
    ],
)
def test_a_wrong_answer_is_sent_back_once_with_what_is_wrong(wrong, why):
    llm = ScriptedLLM([wrong, '{"people": 3}'])
    response = run(llm.async_generate("How many?", output_schema=SCHEMA))
    assert response.parsed == {"people": 3}
    assert len(response.attempts) == 2
    sent_back = next(message.text for message in llm.requests[1] if message.text.startswith("That is not valid"))
    assert why in sent_back
    assert '"people"' in sent_back


@pytest.mark.promise("output-fits")
def test_an_answer_wrong_twice_is_an_error():
    with pytest.raises(MalformedResponse, match="does not fit its schema, twice: people: Input should be") as caught:
        run(ScriptedLLM(['{"name": "x", "people": "y"}'] * 2).async_generate("?", output_schema=City))
    assert len(caught.value.attempts) == 2


def test_a_stream_that_is_repaired_says_so():
    chunks = []
    response = run(ScriptedLLM(["no", '{"people": 3}']).async_chat("?", on_chunk=chunks.append, output_schema=SCHEMA))
    assert [chunk.kind for chunk in chunks] == ["text", "restarted", "text", "text"]
    assert response.parsed == {"people": 3}


@pytest.mark.parametrize("wanted", ["text", int, {"type": "nonsense"}])
def test_what_is_no_schema_is_misuse(wanted):
    with pytest.raises(MisuseError, match="output_schema"):
        run(ScriptedLLM([]).async_generate("?", output_schema=wanted))


@pytest.mark.promise("output-fits")
@pytest.mark.parametrize(
    "text",
    [
        '<think>hm {"people": 1}</think>\n{"people": 5}',
        'hm {"people": 1} or so</think>{"people": 5}',
        'Here it is: {"people": 5}',
        '{"people": 5}\n\nAnything else?',
        'I see [1] that {"x": 1} is not it: {"people": 5}',
        'Twice: {"people": 5} and {"people": 5}',
        '<thinking>{</thinking>```json\n{"people": 5}\n```',
    ],
)
def test_words_around_the_value_are_not_held_against_it(text):
    assert run(ScriptedLLM([text]).async_generate("?", output_schema=SCHEMA)).parsed == {"people": 5}


def test_a_value_may_hold_what_looks_like_reasoning():
    said = '{"note": "a<think>b</think>c"}'
    assert run(ScriptedLLM([said]).async_generate("?", output_schema={"type": "object"})).parsed == {
        "note": "a<think>b</think>c"
    }


@pytest.mark.promise("output-fits")
@pytest.mark.parametrize(
    "text", ['Either {"people": 5} or {"people": 6}.', "<think>" + '{"people": 5}', '{"people": "5"}', "[[[[" * 10_000]
)
def test_nothing_is_guessed_of_several_values(text):
    llm = ScriptedLLM([text, '{"people": 7}'])
    parsed = run(llm.async_generate("?", output_schema=SCHEMA)).parsed
    assert parsed == ({"people": 5} if text.startswith("<think>") else {"people": 7})
