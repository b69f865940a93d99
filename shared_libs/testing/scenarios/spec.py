"""The YAML of a scenario as pydantic models: its keys, their types and bounds, and the words an editor shows."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, ValidationInfo, WithJsonSchema, field_validator, model_validator
from pydantic_core import PydanticCustomError

from shared_libs.atomic.events import AgentEvent, ModelAsked
from shared_libs.atomic.json_schema import SchemaCheck
from shared_libs.factory.problems import choices
from shared_libs.factory.spec import Count, Duration, Seconds, Section, Text
from shared_libs.testing.evaluation.questions import EvaluatorSpec, QuestionSpec, with_common_evaluators
from shared_libs.testing.scenarios.port_faults import PortFault

_Whole = Annotated[int, Field(ge=0)]


def _in_a_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


class CallSpec(Section):
    """A call of a tool."""

    tool: Text
    """The tool's name."""
    input: dict[str, Any] | str = Field(default_factory=dict)
    """Its arguments; a text is what a model says that writes no JSON object."""


class UsageSpec(Section):
    """The tokens that a model reports."""

    input_tokens: _Whole = 0
    """Tokens of the request, those read from the cache included."""
    output_tokens: _Whole = 0
    """Tokens of the answer."""
    cached_input_tokens: _Whole = 0
    """Tokens of the request that were read from the cache."""
    cache_creation_input_tokens: _Whole = 0
    """Tokens of the request that were written to the cache."""
    hour_cache_input_tokens: _Whole = 0
    """Of those, the ones that are kept for an hour."""
    reasoning_tokens: _Whole = 0
    """Tokens of the answer that were thinking."""


class TurnSpec(Section):
    """One answer of a model; a text alone is its text."""

    think: str = ""
    """Its reasoning."""
    text: str = ""
    """What it says."""
    calls: list[CallSpec] = Field(default_factory=list)
    """The tools it calls."""
    chunks: list[str | float] = Field(default_factory=list)
    """The text piece by piece, as it is streamed; a number is a pause in seconds. Without, it comes word by word."""
    delay_s: Duration = 0.0
    """Seconds before the answer begins."""
    usage: UsageSpec | None = None
    """The tokens it reports; without, it reports none."""

    @model_validator(mode="before")
    @classmethod
    def _of_text(cls, value: Any) -> Any:
        return {"text": value} if isinstance(value, str) else value


class OutcomeSpec(Section):
    """What a call of a tool ends in; a text alone is its result."""

    result: Any = None
    """What the tool returns: a text as it is, anything else as JSON."""
    error: str | None = None
    """What the tool tells the model was wrong."""
    delay_s: Duration = 0.0
    """Seconds that the call takes."""

    @model_validator(mode="before")
    @classmethod
    def _of_text(cls, value: Any) -> Any:
        return {"result": value} if isinstance(value, str) else value


class FaultSpec(Section):
    """Something that goes wrong: where, what, and at which calls."""

    on: Text
    """model, model NAME, tool, tool NAME, memory, or memory load (store, search, summarise)."""
    fault: Text
    """What goes wrong; docs/scenarios.md has the faults of each port."""
    attempts: Annotated[list[Count], Field(min_length=1)] | str = "every"
    """Which calls of that model, tool or memory, counted from 1: a list, every, or from N."""
    probability: Annotated[float, Field(gt=0, le=1)] = 1.0
    """How likely it is at each of those calls; drawn from the seed."""
    status: Annotated[int, Field(ge=400, le=599)] | None = None
    """The HTTP status that the adapter tells."""
    retry_after_s: Duration | None = None
    """What the provider asks to wait, in seconds."""
    delay_s: Duration | None = None
    """How late, in seconds: the answer, each word of it (drip), or the end of what ignores its cancellation."""
    after_tokens: _Whole | None = None
    """How many words of the answer come before; without, half of them."""
    chars: _Whole | None = None
    """How long a huge or garbled answer is."""
    down_s: Seconds | None = None
    """How long a flapping model is down, in seconds."""
    up_s: Seconds | None = None
    """How long a flapping model is up, in seconds."""
    text: str | None = None
    """What the error says, or the wrong result."""

    @model_validator(mode="after")
    def _holds(self) -> FaultSpec:
        self.fault_of_port()
        return self

    def fault_of_port(self) -> PortFault:
        """Return it as the plan takes it."""
        given = self.given()
        if isinstance(self.attempts, list):
            given["attempts"] = tuple(self.attempts)
        return PortFault(**given)


class MessageSpec(Section):
    """A message of the history."""

    role: Literal["system", "user", "assistant", "tool"]
    """Who said it."""
    content: str = ""
    """What was said."""
    tool_calls: list[dict[str, Any]] = Field(default_factory=list)
    """The calls of an assistant: id, name, arguments."""
    tool_call_id: str | None = None
    """Which call a tool's message answers."""
    name: str | None = None
    """The tool's name."""
    is_error: bool = False
    """Whether the call failed."""


class SessionSpec(Section):
    """The conversation that the question is part of."""

    id: Text = "scenario"
    """Its name."""
    history: list[MessageSpec] = Field(default_factory=list)
    """What was said before."""


class RangeSpec(Section):
    """A number within bounds, both included; a number alone is exactly that."""

    at_least: float | None = None
    """The lowest value."""
    at_most: float | None = None
    """The highest value."""

    @model_validator(mode="before")
    @classmethod
    def _of_number(cls, value: Any) -> Any:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return {"at_least": value, "at_most": value} if number else value


class NumberSpec(Section):
    """A number that stands in the answer."""

    value: float
    """The number."""
    tolerance: Duration = 0.0
    """How far off it may be."""


class TextSpec(Section):
    """A text; a text alone has to be equal."""

    equals: str | None = None
    """It is exactly this; null: there is none."""
    contains: Annotated[
        list[Text],
        BeforeValidator(_in_a_list),
        WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
    ] = Field(default_factory=list)
    """It holds this, or each of these."""
    matches: Text | None = None
    """A regular expression that is found in it."""

    @model_validator(mode="before")
    @classmethod
    def _of_text(cls, value: Any) -> Any:
        return {"equals": value} if isinstance(value, str) else value

    @field_validator("matches")
    @classmethod
    def _is_an_expression(cls, pattern: str | None) -> str | None:
        import re

        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from None
        return pattern


class AnswerSpec(TextSpec):
    """The answer; a text alone has to be equal."""

    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    """A JSON Schema that it fits, as JSON."""
    number: NumberSpec | None = None
    """A number that stands in it."""

    @field_validator("schema_")
    @classmethod
    def _is_a_schema(cls, schema: dict[str, Any] | None) -> dict[str, Any] | None:
        if schema is not None:
            SchemaCheck(schema, "schema", own=True)
        return schema


class WantedCallSpec(Section):
    """A call of a tool; a text alone is the tool's name."""

    tool: Text
    """The tool's name."""
    input: dict[str, Any] | str | None = None
    """Its arguments; without, any."""

    @model_validator(mode="before")
    @classmethod
    def _of_text(cls, value: Any) -> Any:
        return {"tool": value} if isinstance(value, str) else value


class ToolsSpec(Section):
    """The calls that the agent made."""

    exact: list[WantedCallSpec] | None = None
    """These, in this order, and no other."""
    any_order: list[WantedCallSpec] | None = None
    """These, in any order, and no other."""
    subset: list[WantedCallSpec] | None = None
    """These, in this order, and perhaps others between."""


Happening = dict[str, Any]
_Happenings = Annotated[
    list[Happening],
    BeforeValidator(lambda told: [{"type": one} if isinstance(one, str) else one for one in told]),
    WithJsonSchema({"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "object"}]}}),
]


def _check_event(told: Happening) -> None:
    """Refuse an event that can never happen: a type or a field that no event has."""
    numbered = [kind for kind in get_args(AgentEvent) if kind is not ModelAsked]
    kinds = {kind.__struct_config__.tag: kind.__struct_fields__ for kind in numbered}
    kind = told.get("type")
    if kind not in kinds:
        raise ValueError(f"no event is of type {kind!r}; {choices(kind, map(str, kinds))}")
    for name in told.keys() - {"type", *kinds[kind]}:
        raise ValueError(f"{kind} has no field {name!r}; {choices(name, kinds[kind])}")


class ExpectSpec(Section):
    """What has to come of it; what is not named may be anything."""

    status: Literal["answered", "partial", "failed", "cancelled", "paused"] | None = None
    """How the run ended."""
    stop_reason: (
        Literal["final_answer", "deadline", "max_steps", "budget", "loop", "error", "cancelled", "approval"] | None
    ) = None
    """Why the run ended."""
    answer: AnswerSpec | None = None
    """What it answered."""
    output: Any = None
    """What the answer is by its output_schema, as far as it is told; null: no answer fits."""
    error: TextSpec | None = None
    """What it says went wrong."""
    tools: ToolsSpec | None = None
    """Which tools it called."""
    attempts: dict[str, RangeSpec] | None = None
    """How many requests each model got, by `provider/model` or `model`; models that are not named got none."""
    elapsed_s: RangeSpec | None = None
    """How long the run took by its clock, in seconds."""
    cost_usd: RangeSpec | None = None
    """What it cost in US dollars; null: that is not known."""
    tokens: RangeSpec | None = None
    """How many tokens it used."""
    steps: RangeSpec | None = None
    """How many turns with tool calls there were."""
    events: _Happenings = Field(default_factory=list)
    """Events that happened in this order, perhaps others between; each by some of its fields, or its type alone."""
    never: _Happenings = Field(default_factory=list)
    """Events that did not happen; `{tool: NAME}` is a call of it, `{answer_contains: TEXT}` a part of the answer."""
    still_running: list[Text] | None = None
    """What was left behind because it ignored its cancellation: the tools' names."""

    @field_validator("events", "never")
    @classmethod
    def _can_happen(cls, told: list[Happening]) -> list[Happening]:
        for one in told:
            if not {"tool", "answer_contains"} & one.keys() or "type" in one:
                _check_event(one)
        return told


class BesideSpec(Section):
    """A further run on the same agent."""

    question: Text
    """What is asked."""
    after_s: Duration = 0.0
    """Seconds after the first run's beginning."""
    timeout_s: Seconds | None = None
    """Seconds the run may take; by default the definition's."""
    cancel_after_s: Duration | None = None
    """Seconds after which the caller cancels it."""
    session: Text | None = None
    """The name of its conversation."""


class ScenarioSpec(Section):
    """A scenario: an agent, what its models say, what goes wrong, and what has to come of it."""

    scenario: Text
    """What it shows, in a sentence."""
    agent: str | dict[str, Any]
    """The agent: the path of its definition, relative to this file, or the definition itself."""
    override: dict[str, Any] = Field(default_factory=dict)
    """Laid over the definition, key by key; lists are replaced."""
    questions: list[QuestionSpec] = Field(default_factory=list)
    """Several questions instead of one, each asked by itself and judged by evaluators; docs/evaluation.md."""
    question: Annotated[str, Field(validate_default=True)] = ""
    """What is asked; or give `questions`."""
    evaluators: list[EvaluatorSpec] = Field(default_factory=list)
    """What judges the answers to the questions that name no evaluators."""
    timeout_s: Seconds | None = None
    """Seconds the run may take; by default the definition's."""
    stream: bool = True
    """Whether the models are asked for streams."""
    session: SessionSpec | None = None
    """The conversation that the question is part of."""
    models: dict[str, Annotated[list[TurnSpec], BeforeValidator(_in_a_list)]] = Field(default_factory=dict)
    """What models say: by provider/model, model or *; before that, AGENT@ for one agent. A list is followed turn by
    turn; a single turn comes every time."""
    tools: dict[str, Annotated[list[OutcomeSpec], BeforeValidator(_in_a_list)]] = Field(default_factory=dict)
    """What calls of a tool end in, by its name; the others are called for real. A single result comes every time."""
    faults: list[FaultSpec] = Field(default_factory=list)
    """What goes wrong."""
    cassette: Text | None = None
    """What the models without a script were recorded to say: a file, relative to this one."""
    clear_after_s: Seconds | None = None
    """Seconds after which nothing goes wrong any more."""
    strict: bool = True
    """Whether the scripts are followed to the letter, and every fault has to meet a call; else a script's last turn
    comes again."""
    cancel_after_s: Duration | None = None
    """Seconds after which the caller cancels the run."""
    beside: list[BesideSpec] = Field(default_factory=list)
    """Further runs on the same agent."""
    clock: Literal["virtual", "real"] = "virtual"
    """virtual: waits cost no time; real: they do."""
    seed: int = 0
    """Decides what is left to chance: faults with a probability, and the jitter of retries."""
    matrix: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(default_factory=dict)
    """Values to play it with, each with each; `${{name}}` stands for one of them."""
    expect: ExpectSpec = ExpectSpec()
    """What has to come of it."""

    @model_validator(mode="before")
    @classmethod
    def _share_evaluators(cls, value: Any) -> Any:
        return with_common_evaluators(value)

    @field_validator("question")
    @classmethod
    def _asks(cls, question: str, info: ValidationInfo) -> str:
        several = info.data.get("questions")
        if several is None:  # which are wrong, and told
            return question
        if question and several:
            raise ValueError("a scenario has either a `question` or `questions`")
        if not question.strip() and not several:
            raise PydanticCustomError("missing", "is missing")
        return question
