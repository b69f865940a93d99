"""
Structured output: an answer that fits a JSON Schema, or a pydantic model.

A provider with a mode of its own gets the schema as the option `output_schema`; the others are told in words. Either
way the answer is checked, and a wrong one is sent back once with what is wrong about it.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.json_schema import SchemaCheck, placed, unfenced
from shared_libs.atomic.types import Message

INSTRUCTION = "Answer with one JSON value and nothing else. It must be valid against this JSON Schema:\n{schema}"
REPAIR = "That is not valid: {problem}\nAnswer again with the corrected JSON value alone, valid against:\n{schema}"

MAX_LOOKS = 100
"""At how many brackets of an answer a value is looked for."""

_OPENS = re.compile(r"[\[{]")
_THOUGHT = re.compile(r"<(think|thinking|thought|reasoning)>.*?</\1>|\A.*?</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
"""Reasoning as models write it into their text; its beginning may be missing."""


class InvalidOutput(Exception):
    """An answer does not fit the schema; the text says why."""


class OutputSchema:
    """
    What an answer has to fit: a JSON Schema (`schema`, named `name`), from a dict or from a pydantic model.

    Raises:
        MisuseError: it is neither.

    """

    def __init__(self, wanted: type | Mapping[str, Any]) -> None:
        self._model: Any = None
        self._check: SchemaCheck
        if inspect.isclass(wanted) and hasattr(wanted, "model_json_schema"):
            self._model = wanted
            self.schema: dict[str, Any] = wanted.model_json_schema()
            name = wanted.__name__
        elif isinstance(wanted, Mapping):
            self.schema = dict(wanted)
            name = str(self.schema.get("title", ""))
            self._check = SchemaCheck(self.schema, "output_schema")
        else:
            raise MisuseError(f"output_schema is a pydantic model or a JSON Schema as a dict, not {wanted!r}")
        # OpenAI takes no other name: letters, digits, _ and -, at most 64; a generic model's has brackets
        self.name = re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:64] or "output"

    def instruct(self, messages: list[Message]) -> list[Message]:
        """The conversation with the schema told in words."""
        told = INSTRUCTION.format(schema=msgspec.json.encode(self.schema).decode())
        return [*messages, Message("user", told)]

    def repair(self, answer: Message, problem: str) -> list[Message]:
        """A wrong answer, sent back with what is wrong about it."""
        schema = msgspec.json.encode(self.schema).decode()
        return [answer, Message("user", REPAIR.format(problem=problem, schema=schema))]

    def parse(self, text: str) -> Any:
        """
        Read an answer: an instance of the model, or the decoded JSON.

        Reasoning in tags is none of it, and words around the value are not held against it where they hold one value
        that fits, and not two different ones.

        Raises:
            InvalidOutput: it is no JSON, or does not fit.

        """
        said = text if _OPENS.match(text.lstrip()) else _THOUGHT.sub("", text)
        try:
            return self._parse_value(unfenced(said))
        except InvalidOutput as error:
            problem = error
        fitting = []
        for body in _values_in(said):
            with contextlib.suppress(InvalidOutput):
                value = self._parse_value(body)
                fitting += [] if value in fitting else [value]
        if len(fitting) != 1:
            raise problem
        return fitting[0]

    def _parse_value(self, body: str) -> Any:
        if self._model is not None:
            return self._parse_model(body)
        try:
            value = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
            raise InvalidOutput(f"it is not JSON ({error})") from None
        if wrong := self._check.problems(value):
            raise InvalidOutput(wrong)
        return value

    def _parse_model(self, body: str) -> Any:
        from pydantic import ValidationError

        try:
            return self._model.model_validate_json(body)
        except ValidationError as error:
            found = [(problem["loc"], problem["msg"]) for problem in error.errors(include_url=False)]
            raise InvalidOutput(placed(found)) from None


def _values_in(text: str) -> Iterator[str]:
    """The JSON objects and lists that stand in a text, but those inside each other."""
    decoder, at = json.JSONDecoder(), 0
    for _ in range(MAX_LOOKS):
        found = _OPENS.search(text, at)
        if found is None:
            return
        at = found.start()
        try:
            _, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            at += 1
            continue
        yield text[at:end]
        at = end
