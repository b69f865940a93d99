"""
Structured output: an answer that fits a JSON Schema, a pydantic model, a dataclass or a TypedDict.

A provider with a mode of its own gets the schema as the option `output_schema`; the others are told in words. Either
way the answer is checked, and a wrong one is sent back once with what is wrong about it.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import inspect
import json
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Generic

import msgspec
from typing_extensions import TypeVar, is_typeddict

from shared_libs.atomic.errors import DeadlineExceeded, MisuseError, RunInterrupted
from shared_libs.atomic.json_schema import MAX_PROBLEMS, SchemaCheck, placed, top_of, unfenced
from shared_libs.atomic.rescue import call_here
from shared_libs.atomic.supervise import said_by
from shared_libs.atomic.types import Message

INSTRUCTION = "Answer with one JSON value and nothing else. It must be valid against this JSON Schema:\n{schema}"
BESIDE_TOOLS = (
    "When you know the final answer, write it as one JSON value and nothing else; calls of tools are no part of it. "
    "It must be valid against this JSON Schema:\n{schema}"
)
REPAIR = "That is not valid: {problem}\nAnswer again with the corrected JSON value alone."
REPAIR_AGAINST = f"{REPAIR[:-1]}, valid against:\n{{schema}}"

MAX_LOOKS = 100
"""At how many brackets of an answer a value is looked for."""

MAX_CUT = 256 * 1024
"""The longest answer of which the beginning is read where it is cut off."""

T = TypeVar("T", default=Any)

Wanted = type[T] | Mapping[str, Any]
"""What an answer may be asked for as: a pydantic model, a dataclass, a TypedDict; or a JSON Schema."""

Found = list[tuple[Sequence[Any], str]]
"""Problems, each with its place."""

_OPENS = re.compile(r"[\[{]")
_CUT_NUMBER = re.compile(r"(?<![-+.\deE])[-+.\deE]+\Z")
_THOUGHTS = [
    (re.compile(f"</{word}>", re.IGNORECASE), re.compile(f"<{word}>.*?</{word}>", re.DOTALL | re.IGNORECASE))
    for word in ("think", "thinking", "thought", "reasoning")
]
"""Reasoning as models write it into their text: its end, and the whole."""

_BEGUN_BEFORE = re.compile(r"(?!<(?:think(?:ing)?|thought|reasoning)>).*?</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
"""Reasoning whose beginning is missing."""


class InvalidOutput(Exception):
    """An answer does not fit the schema; the text says why."""


class Output(typing.NamedTuple):
    """An answer that fits: as the caller's own type, and as plain data."""

    value: Any
    data: Any


class OutputSchema(Generic[T]):
    """
    What an answer has to fit: a JSON Schema (`schema`, named `name`), from a dict or from a type with fields.

    Raises:
        MisuseError: it is neither, or the type has no JSON Schema.

    """

    def __init__(self, wanted: Wanted[T]) -> None:
        self._adapter: Any = None
        self._blocked = ""
        if isinstance(wanted, Mapping):
            self.schema: dict[str, Any] = dict(wanted)
            name = str(self.schema.get("title", ""))
        elif _has_fields(typing.get_origin(wanted) or wanted):
            from pydantic import TypeAdapter
            from pydantic.errors import PydanticUserError

            try:
                self._adapter = TypeAdapter(wanted)
                self.schema = self._adapter.json_schema()
            except (PydanticUserError, NameError) as error:
                why = " ".join(str(error).split("For further information")[0].split())
                raise MisuseError(f"output_schema {wanted.__name__} has no JSON Schema: {why}") from error
            name = wanted.__name__
        else:
            raise MisuseError(
                "output_schema is a pydantic model (pydantic.RootModel[…] for a list, a union, a number or a text), "
                f"a dataclass, a TypedDict, or a JSON Schema as a dict, not {wanted!r:.100}"
            )
        self._check = SchemaCheck(self.schema, "output_schema", own=self._adapter is None)
        # OpenAI takes no other name: letters, digits, _ and -, at most 64; a generic model's has brackets
        self.name = re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:64] or "output"

    @classmethod
    def of(cls, wanted: OutputSchema[T] | Wanted[T]) -> OutputSchema[T]:
        """Take a schema, as one whose validators nobody has had to interrupt yet; or make one of what is wanted."""
        return copy.copy(wanted) if isinstance(wanted, OutputSchema) else cls(wanted)

    @property
    def text(self) -> str:
        """The schema as JSON."""
        return msgspec.json.encode(self.schema).decode()

    def instruct(self, messages: list[Message], *, beside_tools: bool = False) -> list[Message]:
        """The conversation with the schema told in words; beside tools, as part of the instructions."""
        if not beside_tools:
            return [*messages, Message("user", INSTRUCTION.format(schema=self.text))]
        told = BESIDE_TOOLS.format(schema=self.text)
        if messages and messages[0].role == "system":
            return [Message("system", f"{messages[0].text}\n\n{told}"), *messages[1:]]
        return [Message("system", told), *messages]

    def repair(self, answer: Message, problem: str) -> list[Message]:
        """A wrong answer, sent back with what is wrong about it."""
        return [answer, Message("user", REPAIR_AGAINST.format(problem=problem, schema=self.text))]

    def parse(self, text: str) -> Any:
        """Read an answer, as `read` does: an instance of the type, or the decoded JSON."""
        return self.read(text).value

    def read(self, text: str) -> Output:
        """
        Read an answer.

        Reasoning in tags is none of it, and words around the value are not held against it where they hold one value
        that fits, and not two different ones. One of the words of an `enum` needs no quotes.

        Raises:
            InvalidOutput: it is no JSON, or does not fit.

        """
        said = _without_thought(text)
        body = unfenced(said)
        try:
            return self._read_value(body)
        except InvalidOutput as error:
            problem = error
        if body in top_of(self.schema)[0].get("enum", ()):
            return self._read_value(json.dumps(body))
        fitting: list[Output] = []
        for body in _values_in(said):
            with contextlib.suppress(InvalidOutput):
                found = self._read_value(body)
                fitting += [] if found in fitting else [found]
        if len(fitting) != 1:
            raise problem
        return fitting[0]

    def fitting_part(self, text: str) -> tuple[Any, str]:
        """
        Return what of an answer fits that does not fit as a whole, as plain data, and what the rest lacks.

        The part is None where nothing fits.

        Those are the members of its object, or the items of its list, that have no problem. An answer that is cut off
        is read up to there; of a number at its end nobody knows whether it is whole.
        """
        value, (whole, declared) = _begun(_without_thought(text)), top_of(self.schema)
        kinds = whole.get("type", ["object", "array"])
        if self._adapter is None and not {"anyOf", "oneOf"}.isdisjoint(whole):
            return None, ""  # which of them was meant, and so which members fit, nobody knows
        if isinstance(value, dict) and "object" in kinds:
            value = {key: item for key, item in value.items() if key in declared or not declared}
        elif not isinstance(value, list) or "array" not in kinds:
            return None, ""
        while value and not self._check.too_much(value):
            found = self._validated(json.dumps(value), value)[1]
            places = range(len(value)) if isinstance(value, list) else value
            # pydantic puts the name of a union's member before the place
            wrong = {next((step for step in path if step in places), None) for path, _ in found}
            # a checker tells so many problems at once; what is missing has its place in the value, or outside of it
            fits = _without(value, wrong)
            if len(fits) == len(value):
                return value, placed(found)
            value = fits
        return None, ""

    def _read_value(self, body: str) -> Output:
        try:
            value = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
            raise InvalidOutput(f"it is not JSON ({error})") from None
        made, found = self._validated(body, value)
        if found:
            raise InvalidOutput(placed(found[:MAX_PROBLEMS]) + ("; and more" if len(found) >= MAX_PROBLEMS else ""))
        return Output(made, value if self._adapter is None else self._as_data(made, value))

    def _validated(self, body: str | bytes, value: Any) -> tuple[Any, Found]:
        """The value as the caller's type has it, and what is wrong with it."""
        if self._adapter is None:
            return value, self._check.found(value)
        from pydantic import ValidationError

        if too_much := self._check.too_much(value):
            return None, [((), too_much)]
        if self._blocked:
            return None, [((), self._blocked)]
        try:
            return call_here(self._adapter.validate_json, body), []
        except ValidationError as error:
            return None, [(problem["loc"], problem["msg"]) for problem in error.errors(include_url=False)]
        except DeadlineExceeded as error:
            self._blocked = f"its validator was interrupted: {error}"
            return None, [((), self._blocked)]
        except (KeyboardInterrupt, RunInterrupted):
            raise
        except BaseException as error:  # noqa: BLE001 - a validator is foreign code; nothing is awaited in it, so that a
            return None, [((), said_by(error))]  # cancellation it raises is its own, too

    def _as_data(self, made: Any, value: Any) -> Any:
        """What was made, as JSON: as its type writes it; as the model did where the type does not read that again."""
        try:
            written = call_here(partial(self._adapter.dump_json, made, by_alias=True))
        except (KeyboardInterrupt, RunInterrupted):
            raise
        except BaseException:  # noqa: BLE001 - a serializer or a computed field is foreign code
            return value
        return value if self._validated(written, value)[1] else msgspec.json.decode(written)


def _has_fields(wanted: Any) -> bool:
    return inspect.isclass(wanted) and (
        hasattr(wanted, "model_json_schema") or dataclasses.is_dataclass(wanted) or is_typeddict(wanted)
    )


def _without(value: Any, wrong: set[Any]) -> Any:
    if isinstance(value, list):
        return [item for index, item in enumerate(value) if index not in wrong]
    return {key: item for key, item in value.items() if key not in wrong}


def _without_thought(text: str) -> str:
    if _OPENS.match(text.lstrip()):
        return text
    if (begun := _BEGUN_BEFORE.match(text)) is not None:
        text = text[begun.end() :]
    for end, whole in _THOUGHTS:
        if ends := [found.end() for found in end.finditer(text)]:  # behind them nothing has an end to be looked for
            text = whole.sub("", text[: ends[-1]]) + text[ends[-1] :]
    return text


def _begun(text: str) -> Any:
    """The JSON that a text has begun with, as far as it goes; None where there is none."""
    from pydantic_core import from_json

    found = _OPENS.search(text)
    if found is None or len(text) > MAX_CUT:
        return None
    body = text[found.start() :]
    with contextlib.suppress(ValueError, RecursionError):
        return json.JSONDecoder().raw_decode(body)[0]
    try:
        return from_json(_CUT_NUMBER.sub("", body), allow_partial=True)
    except ValueError:
        return None


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
