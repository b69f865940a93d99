"""
Scenarios drawn at random over an agent's definition: what its models say, what its tools return, what goes wrong.

A drawn scenario is plain data in the form of a scenario file, and nothing but the seed and its number decides it. Tools
are scripted, all but the agents among them: so a run is the same each time, and takes milliseconds.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shared_libs.atomic.llms.base import BaseLLMWrapper
from shared_libs.atomic.memory.base import BaseMemory
from shared_libs.atomic.tools.base import BaseTool
from shared_libs.atomic.tools.toolset import Toolset
from shared_libs.factory.build import load_agent
from shared_libs.factory.ports import Ports
from shared_libs.testing.scenarios.port_faults import KINDS, OPERATIONS, Port
from shared_libs.tools.agent import AgentTool

Json = dict[str, Any]

CLEAR_S = 200.0
"""When the weather clears, in seconds: every run that was drawn is over by then."""

FAIR_S = 300.0
"""When the run in fair weather begins, in seconds: every breaker has had its time by then."""

PORTS: tuple[Port, ...] = ("model", "model", "model", "tool", "tool", "memory")
"""Where faults are drawn; models fail most often."""

LONGEST_S = 60.0
"""The longest run that is drawn, in seconds."""


class Survey(Ports):
    """What an agent and those that it calls consist of: the names of their models, the schemas of their tools."""

    needs_keys = False

    def __init__(self, definition: str | Path) -> None:
        self.models: dict[str, list[str]] = {}
        self.tools: dict[str, dict[str, Json]] = {}
        self.scripted: list[str] = []
        agent = load_agent(definition, ports=self, on_note=lambda _: None)
        self.name = agent.name
        self.calls_agents = len(self.models) > 1

    def model(self, llm: BaseLLMWrapper, agent: str) -> BaseLLMWrapper:
        """Note a model."""
        self.models.setdefault(agent, []).append(f"{llm.provider}/{llm.model}")
        return llm

    def tool(self, tool: BaseTool | Toolset, agent: str) -> BaseTool | Toolset:
        """Note a tool; of a source, which is not asked here, a tool that takes anything."""
        schemas = self.tools.setdefault(agent, {})
        if isinstance(tool, Toolset):
            schemas[f"{tool.name}_tool"] = {"type": "object", "properties": {"value": {"type": "string"}}}
            self.scripted.append(f"{tool.name}_tool")
            return tool
        schemas[tool.name] = dict(tool.spec.parameters)
        if not isinstance(tool, AgentTool) and tool.name not in self.scripted:
            self.scripted.append(tool.name)
        return tool

    def memory(self, memory: BaseMemory, agent: str) -> BaseMemory:
        """Leave a memory as it is."""
        return memory


class Drawing:
    """
    Draws the scenario of a number.

    Args:
        definition: the agent.
        seed: decides everything, together with the number.

    """

    def __init__(self, definition: str | Path, seed: int) -> None:
        self.definition = Path(definition)
        self.seed = seed
        self.survey = Survey(definition)

    def scenario(self, number: int) -> Json:
        """Return a scenario as plain data; the path of its agent is the definition's."""
        dice = random.Random(f"{self.seed}/{number}")  # noqa: S311 - no secret
        return _Hand(self.survey, dice).scenario() | {
            "scenario": f"simulated run {number} of seed {self.seed}",
            "agent": str(self.definition),
            "seed": number,
        }


class _Hand:
    """Draws one scenario."""

    def __init__(self, survey: Survey, dice: random.Random) -> None:
        self._survey = survey
        self._dice = dice
        self._words = 0

    def scenario(self) -> Json:
        dice = self._dice
        drawn: Json = {"question": "question 1: how much is it?", "strict": False, "stream": dice.random() < 0.8}
        drawn["override"] = {"limits": self._limits(), "llm": self._policy()}
        if self._likely(0.5):
            drawn["session"] = {"id": "session-1"}
            drawn["override"]["memory"] = {"window": dice.choice([2, 5, 40])}
        if self._likely(0.7):
            drawn["timeout_s"] = self._seconds(0.3, LONGEST_S)
        if self._likely(0.15):
            drawn["cancel_after_s"] = self._seconds(0, 10)
        drawn["models"] = {
            f"{agent}@{name}": self._turns(agent)
            for agent, names in self._survey.models.items()
            for name in dict.fromkeys(names)
        }
        drawn["tools"] = {name: self._outcomes(name) for name in self._survey.scripted}
        drawn["faults"] = [self._fault() for _ in range(dice.choice([0, 1, 1, 2, 2, 3, 4, 6]))]
        drawn["beside"] = self._beside(kept="session" in drawn)
        if self._likely(0.4):
            drawn["clear_after_s"] = CLEAR_S
            fair = {"question": "question 99: and now?", "after_s": FAIR_S, "timeout_s": LONGEST_S}
            drawn["beside"].append(fair)
        return drawn

    def _likely(self, share: float) -> bool:
        return self._dice.random() < share

    def _seconds(self, low: float, high: float) -> float:
        """Draw a time, short ones as often as long ones."""
        share: float = self._dice.random() ** 2
        return round(low + (high - low) * share, 2)

    def _limits(self) -> Json:
        dice = self._dice
        limits: Json = {"timeout_s": self._seconds(5, LONGEST_S), "reserve_s": self._seconds(0, 4)}
        limits["max_steps"] = dice.choice([1, 2, 3, 5, 8])
        if self._likely(0.4):
            limits["max_tool_calls"] = dice.choice([0, 1, 3, 6])
        if self._likely(0.3):
            limits["max_tokens"] = dice.choice([50, 300, 2000])
        if self._likely(0.4):
            limits["max_repeats"] = dice.choice([2, 3])
        return limits

    def _policy(self) -> Json:
        dice = self._dice
        base_s = dice.choice([0.0, 0.5, 1.0])
        policy: Json = {
            "retry": {"attempts": dice.choice([1, 2, 3, 5]), "base_s": base_s, "max_s": dice.choice([2.0, 8.0])},
            "breaker": {"failures": dice.choice([1, 2, 5]), "reset_s": dice.choice([2.0, 10.0, 30.0])},
        }
        if self._likely(0.4):
            policy["strategy"] = dice.choice(["hedged", "race"])
        if self._likely(0.7 if "strategy" in policy else 0.1):
            policy["hedge_after_s"] = dice.choice([0.0, 0.5, 2.0])
        if self._likely(0.5):
            policy |= {"first_token_timeout_s": dice.choice([3.0, 6.0]), "idle_timeout_s": dice.choice([2.0, 5.0])}
            policy["attempt_timeout_s"] = dice.choice([5.0, 8.0, 20.0])  # longer than an answer that is drawn
        return policy

    def _beside(self, *, kept: bool) -> list[Json]:
        runs: list[Json] = []
        together_s = self._seconds(0, 20) if self._likely(0.5) else None
        for number in range(2, 2 + self._dice.choice([0, 0, 0, 1, 2, 4])):
            after_s = self._seconds(0, 20) if together_s is None else together_s
            run: Json = {"question": f"question {number}: how much is it?", "after_s": after_s}
            run["timeout_s"] = self._seconds(0.3, LONGEST_S)
            if self._likely(0.2):
                run["cancel_after_s"] = self._seconds(0, 10)
            if kept:
                run["session"] = self._dice.choice(["session-1", f"session-{number}"])
            runs.append(run)
        return runs

    def _turns(self, agent: str) -> list[Json]:
        dice, tools = self._dice, self._survey.tools.get(agent, {})
        turns: list[Json] = []
        for _ in range(dice.choice([0, 1, 1, 2, 3, 5])):
            if tools and self._likely(0.85):
                calls = [self._call(tools) for _ in range(dice.choice([1, 1, 1, 2, 3]))]
                turns += [self._turn({"calls": calls})] * dice.choice([1, 1, 1, 1, 6])
            else:
                turns.append(self._turn({"text": dice.choice(["", self._said()])}))
        if self._likely(0.2):
            turns += turns[-dice.choice([2, 3]) :] * 4
        return [*turns, self._turn({"text": self._said()})]

    def _turn(self, turn: Json) -> Json:
        dice = self._dice
        if self._likely(0.3):
            turn["think"] = self._said()
        if self._likely(0.2) and turn.get("text"):
            pause_s = self._seconds(0, 0.2)
            turn["chunks"] = [piece for word in turn.pop("text").split(" ") for piece in (f"{word} ", pause_s)]
        if self._likely(0.3):
            turn["delay_s"] = self._seconds(0, 2)
        if self._likely(0.8):
            turn["usage"] = {"input_tokens": dice.randrange(1, 300), "output_tokens": dice.randrange(1, 100)}
        return turn

    def _said(self) -> str:
        """Return words that nobody else says."""
        self._words += 1
        return f"this is what was said at {self._words}, in a few words"

    def _call(self, tools: Mapping[str, Json]) -> Json:
        name = self._dice.choice(sorted(tools))
        wrong = self._dice.random()
        if wrong < 0.05:
            return {"tool": f"{name}s", "input": {}}
        if wrong < 0.1:
            return {"tool": name, "input": '{"broken": '}
        given = self._value(tools[name])
        if wrong < 0.2:
            given = self._dice.choice([{}, {**given, "unknown": 1}, {key: [] for key in given}])
        return {"tool": name, "input": given}

    def _value(self, schema: Mapping[str, Any]) -> Any:
        """Draw a value that fits a JSON Schema, as far as those of tools go."""
        dice = self._dice
        if options := schema.get("enum"):
            return dice.choice(options)
        if kinds := schema.get("anyOf") or schema.get("oneOf"):
            return self._value(dice.choice(kinds))
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = dice.choice(kind)
        if kind == "object":
            required = schema.get("required", ())
            inside = schema.get("properties", {}).items()
            return {key: self._value(part) for key, part in inside if key in required or self._likely(0.5)}
        if kind == "array":
            count = dice.randrange(schema.get("minItems", 0), schema.get("minItems", 0) + 3)
            return [self._value(schema.get("items", {})) for _ in range(count)]
        if kind in ("integer", "number"):
            return dice.randrange(int(schema.get("minimum", 0)), int(schema.get("maximum", 1000)) + 1)
        return {"boolean": self._likely(0.5), "null": None}.get(kind or "", f"words {dice.randrange(1000)}")

    def _outcomes(self, name: str) -> list[Json]:
        dice = self._dice
        outcomes: list[Json] = []
        for _ in range(dice.choice([1, 2, 4])):
            outcome: Json = {"error": self._said()} if self._likely(0.15) else {"result": f"{name}: {self._said()}"}
            if self._likely(0.3):
                outcome["delay_s"] = self._seconds(0, 5)
            outcomes += [outcome] * dice.choice([1, 1, 6])
        return outcomes

    def _fault(self) -> Json:
        dice = self._dice
        port: Port = dice.choice(PORTS)
        kinds = {kind: given for kind, given in KINDS[port].items() if kind != "block"}
        kind = dice.choice(sorted(kinds))
        fault: Json = {"on": self._place(port), "fault": kind}
        for parameter in kinds[kind]:
            if self._likely(0.6) or kind == "drip":
                fault[parameter] = self._parameter(kind, parameter)
        count = dice.randrange(1, 5)
        fault["attempts"] = dice.choice(["every", f"from {count}", sorted(dice.sample(range(1, 8), min(count, 3)))])
        if self._likely(0.4):
            fault["probability"] = dice.choice([0.2, 0.5, 0.8])
        return fault

    def _place(self, port: str) -> str:
        names: Sequence[str] = OPERATIONS
        if port == "model":
            names = sorted({name for models in self._survey.models.values() for name in models})
        elif port == "tool":
            names = self._survey.scripted
        return port if not names or self._likely(0.5) else f"{port} {self._dice.choice(names)}"

    def _parameter(self, kind: str, name: str) -> Any:
        dice = self._dice
        match name:
            case "status":
                return dice.choice([500, 502, 503, 529])
            case "retry_after_s":
                return self._seconds(0, 40)
            case "delay_s":
                return self._seconds(0, 0.5 if kind == "drip" else 20)
            case "after_tokens":
                return dice.randrange(8)
            case "chars":
                return dice.choice([10, 33_000])
            case "down_s" | "up_s":
                return self._seconds(0.5, 10)
            case _:
                return self._said()
