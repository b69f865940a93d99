"""The YAML of a question and of what judges its answer; evaluators are made, and tried, while the file is read."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from pydantic import Field, model_validator

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.evaluators import (
    BaseEvaluator,
    Contains,
    ExactMatch,
    JSONSchemaMatch,
    NumericMatch,
    ToolTrajectory,
)
from shared_libs.atomic.results import AgentResult
from shared_libs.factory.problems import choices
from shared_libs.factory.spec import Duration, Seconds, Section, Text

_OPTIONS = {
    "exact": ("ignore_case",),
    "contains": ("ignore_case",),
    "json_schema": ("schema",),
    "numeric": ("relative", "absolute"),
    "tools": ("order",),
    "judge": ("llm", "criteria", "pass_at", "timeout_s"),
}
_KINDS: dict[str, type[BaseEvaluator]] = {
    "exact": ExactMatch,
    "contains": Contains,
    "json_schema": JSONSchemaMatch,
    "numeric": NumericMatch,
    "tools": ToolTrajectory,
}


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """
    What judges an answer, and what it compares it with.

    `name` is what the scores of all questions are averaged under.
    """

    name: str
    evaluator: BaseEvaluator
    expected: Any = None


class EvaluatorSpec(Section):
    """What judges an answer; a text alone is its name."""

    use: Literal["exact", "contains", "json_schema", "numeric", "tools", "judge"]
    """Which evaluator; docs/evaluators.md describes them."""
    expected: Any = None
    """What a good answer is compared with; by default what the question expects."""
    ignore_case: bool | None = None
    """exact, contains: whether "Yes" is "yes"."""
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    """json_schema: the JSON Schema that the answer fits."""
    relative: Duration | None = None
    """numeric: how far off the number may be, as a part of it."""
    absolute: Duration | None = None
    """numeric: how far off the number may be at least."""
    order: Literal["exact", "in_order", "any_order"] | None = None
    """tools: these calls and no others, these with others between, or these in any order."""
    llm: dict[str, Any] | None = None
    """judge: the model that judges, as in a definition; best another one than the one that answers."""
    criteria: Text | None = None
    """judge: what makes a good answer."""
    pass_at: Annotated[float, Field(ge=0, le=1)] | None = None
    """judge: the score from which an answer passes."""
    timeout_s: Seconds | None = None
    """judge: seconds that a judgement may take."""

    @model_validator(mode="before")
    @classmethod
    def _of_text(cls, value: Any) -> Any:
        return {"use": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _options_fit(self) -> EvaluatorSpec:
        for name in self.options():
            if name not in _OPTIONS[self.use]:
                raise MisuseError(f"{name}: {self.use} has no such option; {choices(name, _OPTIONS[self.use])}")
        if self.use == "judge" and not (self.llm and self.criteria):
            raise MisuseError("judge needs `llm`, the model that judges, and `criteria`, what makes a good answer")
        return self

    def options(self) -> dict[str, Any]:
        """Return the options that were given, as the evaluator's constructor takes them."""
        given = self.model_dump(exclude_none=True, by_alias=True)
        return {name: value for name, value in given.items() if name not in ("use", "expected")}

    def check(self, expected: Any) -> Check:
        """
        Make the evaluator, unless a model judges; `expected` is what the question expects.

        Raises:
            MisuseError: what is expected is nothing that this evaluator compares with.

        """
        return Check(
            name=self.use,
            evaluator=_KINDS[self.use](**self.options()),
            expected=expected if self.expected is None else self.expected,
        )


_NOBODY = AgentResult(run_id="", status="answered", stop_reason="final_answer", answer="")


class QuestionSpec(Section):
    """One of several questions; a text alone is what is asked."""

    question: Text
    """What is asked."""
    expected: Any = None
    """What a good answer is compared with."""
    evaluators: list[EvaluatorSpec] = Field(default_factory=list)
    """What judges the answer; by default the scenario's evaluators."""
    models: dict[str, Any] = Field(default_factory=dict)
    """What models say to this question, laid over the scenario's `models`."""
    cassette: Text | None = None
    """A file with what the models were recorded to say to this question, beside the scenario."""

    @model_validator(mode="before")
    @classmethod
    def _of_text(cls, value: Any) -> Any:
        return {"question": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _can_be_judged(self) -> QuestionSpec:
        if self.expected is not None and not self.evaluators:
            raise MisuseError("nothing compares with what is expected; add `evaluators`, such as [exact]")
        for spec in self.evaluators:
            if spec.use != "judge":
                check = spec.check(self.expected)
                check.evaluator.evaluate("", check.expected, _NOBODY)
        return self


def with_common_evaluators(data: Any) -> Any:
    """Give the questions that name no evaluators those of their scenario."""
    if not isinstance(data, dict) or not data.get("evaluators") or not isinstance(data.get("questions"), list):
        return data
    asked = [{"question": one} if isinstance(one, str) else one for one in data["questions"]]
    common = {"evaluators": data["evaluators"]}
    return data | {"questions": [common | one if isinstance(one, dict) else one for one in asked]}
