"""
Structured output: an answer that fits a JSON Schema, or a pydantic model.

A provider with a mode of its own gets the schema as the option `output_schema`; the others are told in words. Either
way the answer is checked, and a wrong one is sent back once with what is wrong about it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.json_schema import MAX_PROBLEMS, SchemaCheck, placed, unfenced
from shared_libs.atomic.types import Message

INSTRUCTION = "Answer with one JSON value and nothing else. It must be valid against this JSON Schema:\n{schema}"
REPAIR = "That is not valid: {problem}\nAnswer again with the corrected JSON value alone, valid against:\n{schema}"


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
        if inspect.isclass(wanted) and hasattr(wanted, "model_json_schema"):
            self._model = wanted
            self.schema: dict[str, Any] = wanted.model_json_schema()
            name = wanted.__name__
        elif isinstance(wanted, Mapping):
            self.schema = dict(wanted)
            name = str(self.schema.get("title", ""))
        else:
            raise MisuseError(f"output_schema is a pydantic model or a JSON Schema as a dict, not {wanted!r}")
        self._check = SchemaCheck(self.schema, "output_schema")
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

        Raises:
            InvalidOutput: it is no JSON, or does not fit.

        """
        body = unfenced(text)
        try:
            value = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
            raise InvalidOutput(f"it is not JSON ({error})") from None
        if self._model is not None:
            return self._parse_model(body, value)
        if wrong := self._check.problems(value):
            raise InvalidOutput(wrong)
        return value

    def _parse_model(self, body: str, value: Any) -> Any:
        from pydantic import ValidationError

        if too_much := self._check.too_much(value):
            raise InvalidOutput(too_much)
        try:
            return self._model.model_validate_json(body)
        except ValidationError as error:
            found = [(problem["loc"], problem["msg"]) for problem in error.errors(include_url=False)]
            raise InvalidOutput(placed(found[:MAX_PROBLEMS])) from None
