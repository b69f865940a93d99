"""Evaluators that compute their judgement: the same answer is judged the same, at no cost."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.evaluators.base import BaseEvaluator, Evaluation
from shared_libs.atomic.json_schema import SchemaCheck, unfenced
from shared_libs.atomic.results import Action, AgentResult

_NUMBER = re.compile(r"(?<![\w.])[-+\u2212]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][-+]?\d+)?(?=\D|$)")


class ExactMatch(BaseEvaluator):
    """
    The answer is the expected text, but for white space around it.

    Args:
        ignore_case: whether "Yes" is "yes".

    """

    name = "exact_match"

    def __init__(self, *, ignore_case: bool = False) -> None:
        self.ignore_case = ignore_case

    def evaluate(self, answer: str, expected: Any = None, result: AgentResult | None = None) -> Evaluation:
        """Compare with `expected`: a text, or a list of texts of which one is enough."""
        wanted = _texts(self.name, expected)
        same = {_plain(text, ignore_case=self.ignore_case) for text in wanted}
        passed = _plain(answer, ignore_case=self.ignore_case) in same
        return Evaluation(float(passed), passed, "" if passed else f"expected {' or '.join(map(repr, wanted))}")


class Contains(BaseEvaluator):
    """
    The answer holds every expected text. The score is the share it holds.

    Args:
        ignore_case: whether "Yes" is "yes".

    """

    name = "contains"

    def __init__(self, *, ignore_case: bool = True) -> None:
        self.ignore_case = ignore_case

    def evaluate(self, answer: str, expected: Any = None, result: AgentResult | None = None) -> Evaluation:
        """Look for `expected`: a text, or a list of texts."""
        wanted = _texts(self.name, expected)
        if not all(map(str.strip, wanted)):
            raise MisuseError(f"{self.name} needs words to look for, not {expected!r}: every answer holds nothing")
        said = _plain(answer, ignore_case=self.ignore_case)
        missing = [text for text in wanted if _plain(text, ignore_case=self.ignore_case) not in said]
        reason = f"missing: {', '.join(map(repr, missing))}" if missing else ""
        return Evaluation(1 - len(missing) / len(wanted), not missing, reason)


class JSONSchemaMatch(BaseEvaluator):
    """
    The answer is JSON that is valid against a JSON Schema; a code fence around it does not matter.

    Args:
        schema: the schema; without one it is what is expected.

    Raises:
        MisuseError: it is no JSON Schema.

    """

    name = "json_schema_match"

    def __init__(self, schema: Mapping[str, Any] | None = None) -> None:
        self._check = None if schema is None else SchemaCheck(dict(schema), "schema", own=True)

    def evaluate(self, answer: str, expected: Any = None, result: AgentResult | None = None) -> Evaluation:
        """Check against the schema, or against the one in `expected`."""
        check = self._check
        if check is None:
            if not isinstance(expected, Mapping):
                raise MisuseError(f"{self.name} needs a schema, or a JSON Schema as `expected`, not {expected!r}")
            check = SchemaCheck(dict(expected), "expected", own=True)
        try:
            value = msgspec.json.decode(unfenced(answer))
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
            return Evaluation(0.0, passed=False, reason=f"the answer is not JSON: {error}")
        problems = check.problems(value)
        return Evaluation(float(not problems), not problems, problems)


class NumericMatch(BaseEvaluator):
    """
    A number in the answer is the expected one, within a tolerance. Thousands separators are commas.

    Args:
        relative: how far it may be off, as a part of the expected number.
        absolute: how far it may be off at least.

    """

    name = "numeric_match"

    def __init__(self, *, relative: float = 1e-6, absolute: float = 0.0) -> None:
        if not (0 <= relative < math.inf and 0 <= absolute < math.inf):
            raise MisuseError(f"relative and absolute are numbers from 0, not {relative!r} and {absolute!r}")
        self.relative = relative
        self.absolute = absolute

    def evaluate(self, answer: str, expected: Any = None, result: AgentResult | None = None) -> Evaluation:
        """Look for `expected`, a number."""
        if isinstance(expected, bool) or not isinstance(expected, int | float) or not math.isfinite(expected):
            raise MisuseError(f"{self.name} needs a finite number as `expected`, not {expected!r}")
        allowed = max(self.relative * abs(expected), self.absolute)
        found = numbers_in(answer)
        if any(abs(number - expected) <= allowed for number in found):
            return Evaluation(1.0, passed=True)
        said = ", ".join(f"{number:g}" for number in found) or "no number"
        return Evaluation(0.0, passed=False, reason=f"expected {expected:g} within {allowed:g}, found {said}")


class ToolTrajectory(BaseEvaluator):
    """
    The run called the expected tools. The score is the share of the expected calls that were made.

    Args:
        order: "exact": these calls and no others, in this order; "in_order": these, with others between them allowed;
            "any_order": these, wherever they stand.

    """

    name = "tool_trajectory"

    def __init__(self, *, order: Literal["exact", "in_order", "any_order"] = "in_order") -> None:
        if order not in ("exact", "in_order", "any_order"):
            raise MisuseError(f"order is 'exact', 'in_order' or 'any_order', not {order!r}")
        self.order = order

    def evaluate(self, answer: str, expected: Any = None, result: AgentResult | None = None) -> Evaluation:
        """
        Compare the calls of `result` with `expected`.

        `expected` is a list of tool names, or of `{"tool": name, "input": {...}}`, where the call may have further
        arguments.
        """
        if result is None:
            raise MisuseError(f"{self.name} judges a run: pass it as `result`")
        wanted = _calls(self.name, expected)
        made = [action for step in result.steps for action in step.actions]
        count = self._matched(wanted, made)
        passed = count == len(wanted) and (self.order != "exact" or len(made) == len(wanted))
        if passed:
            return Evaluation(1.0, passed=True)
        names = f"expected {_listed(name for name, _ in wanted)}, called {_listed(action.tool for action in made)}"
        return Evaluation(count / len(wanted) if wanted else 0.0, passed=False, reason=f"{names} ({self.order})")

    def _matched(self, wanted: Sequence[tuple[str, Any]], made: Sequence[Action]) -> int:
        if self.order == "exact":
            return sum(_fits(call, action) for call, action in zip(wanted, made, strict=False))
        if self.order == "in_order":
            left = iter(made)  # a call that was passed over cannot be matched later
            return sum(any(_fits(call, action) for action in left) for call in wanted)
        rest, count = list(made), 0
        # the choosiest first, so that one without arguments does not take the call another one needs
        for call in sorted(wanted, key=lambda call: -len(call[1])):
            match = next((index for index, action in enumerate(rest) if _fits(call, action)), None)
            if match is not None:
                del rest[match]
                count += 1
        return count


def numbers_in(text: str) -> list[float]:
    """Return the numbers in a text, in their order."""
    found = (match.group().replace(",", "").replace("\u2212", "-") for match in _NUMBER.finditer(text))
    return [float(number) for number in found if any(char.isdigit() for char in number)]


def _texts(name: str, expected: Any) -> list[str]:
    wanted = [expected] if isinstance(expected, str) else expected
    if not isinstance(wanted, list | tuple) or not wanted or not all(isinstance(text, str) for text in wanted):
        raise MisuseError(f"{name} needs a text or a list of texts as `expected`, not {expected!r}")
    return list(wanted)


def _plain(text: str, *, ignore_case: bool) -> str:
    text = unicodedata.normalize("NFC", text.strip())  # an accent of its own is shown as one with its letter
    return text.casefold() if ignore_case else text


def _calls(name: str, expected: Any) -> list[tuple[str, Mapping[str, Any]]]:
    calls = []
    for call in expected if isinstance(expected, list | tuple) else [None]:
        tool = call.get("tool") if isinstance(call, Mapping) else call
        arguments = call.get("input", {}) if isinstance(call, Mapping) else {}
        if not isinstance(tool, str) or not isinstance(arguments, Mapping):
            raise MisuseError(f'{name} needs a list of tools or of {{"tool", "input"}} as `expected`, not {expected!r}')
        calls.append((tool, arguments))
    return calls


def _fits(call: tuple[str, Mapping[str, Any]], action: Action) -> bool:
    tool, arguments = call
    if action.tool != tool:
        return False
    given = action.input
    return not arguments or (
        isinstance(given, dict) and all(key in given and given[key] == value for key, value in arguments.items())
    )


def _listed(names: Any) -> str:
    return ", ".join(names) or "nothing"
