"""Where a scenario is played: every port of an agent taken by a player, and the account of what was not as written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shared_libs.atomic.llms.base import BaseLLMWrapper
from shared_libs.atomic.memory.base import BaseMemory
from shared_libs.atomic.resilience.health import ModelHealth
from shared_libs.atomic.tools.base import BaseTool
from shared_libs.atomic.tools.toolset import Toolset
from shared_libs.factory.ports import Ports
from shared_libs.testing.cassettes import Player, Recorder
from shared_libs.testing.scenarios.model_player import Chances, PlayedLLM, PlayedMemory
from shared_libs.testing.scenarios.port_faults import FaultPlan
from shared_libs.testing.scenarios.tool_player import PlayedToolset, played_tool
from shared_libs.testing.scenarios.turns import Outcome, Script, Turn


class Stage(Ports):
    """
    Takes the ports of one agent, and of those that it calls, for one scenario.

    What the process knows of a model (breaker, latency, limits) begins anew here; all that use it here share it.

    Args:
        models: what models say, by `provider/model`, `model` or `*`; before an `agent@`, of that agent only.
        tools: what calls of a tool end in, by its name; the others are called for real.
        plan: what goes wrong.
        tape: says what models without a script were recorded to say, or records it.
        strict: whether the scripts are followed to the letter, and every fault has to meet a call.

    """

    def __init__(
        self,
        models: Mapping[str, Sequence[Turn] | Turn] | None = None,
        tools: Mapping[str, Sequence[Outcome] | Outcome] | None = None,
        plan: FaultPlan | None = None,
        tape: Player | Recorder | None = None,
        *,
        strict: bool = True,
    ) -> None:
        self.needs_keys = isinstance(tape, Recorder)
        self.chances = Chances(plan or FaultPlan())
        self._strict = strict
        self._models = {name: Script(name, turns, strict=strict) for name, turns in (models or {}).items()}
        self._tools = {name: Script(name, outcomes, strict=strict) for name, outcomes in (tools or {}).items()}
        self._tape = tape
        self._offered: set[str] = set()
        self._toolsets = 0
        self._health: dict[tuple[str, str, str], ModelHealth] = {}
        self.memories: list[PlayedMemory] = []

    def model(self, llm: BaseLLMWrapper, agent: str) -> BaseLLMWrapper:
        """Play a link of a chain; a rehearsal speaks for itself, unless there is a script or a cassette of it."""
        script = self._script(f"{llm.provider}/{llm.model}", llm.model, agent)
        taped = isinstance(self._tape, Player) and self._tape.knows(f"{llm.provider}/{llm.model}")
        if llm.rehearsal and script is None and not taped:
            self.chances.unheard.add(f"{llm.provider}/{llm.model}")
            return llm
        player: BaseLLMWrapper = PlayedLLM(llm, script, self.chances)
        if script is None and self._tape is not None:
            player = self._tape.link(llm)
            self.chances.unheard.add(f"{llm.provider}/{llm.model}")
        address = (llm.provider, str(getattr(llm, "base_url", "")), llm.model)
        player.health = self._health.setdefault(address, player.health)
        return player

    def tool(self, tool: BaseTool | Toolset, agent: str) -> BaseTool | Toolset:
        """Play a tool, or those of a source."""
        if isinstance(tool, Toolset):
            self._toolsets += 1
            return PlayedToolset(tool, self.chances, self._nobodys)
        self._offered.add(tool.name)
        return played_tool(tool, self._tools.get(tool.name), self.chances)

    def memory(self, memory: BaseMemory, agent: str) -> BaseMemory:
        """Put the memory under the plan."""
        self.memories.append(PlayedMemory(memory, self.chances))
        return self.memories[-1]

    def finish(self) -> list[str]:
        """End what still waits, and say what was not as written."""
        self.chances.end()
        return [*self.astray(), *self.left_over()]

    def astray(self) -> list[str]:
        """Say what was asked for and is not in the scripts."""
        found = self._tape.differences() if isinstance(self._tape, Player) else []
        found += dict.fromkeys(self.chances.problems)
        for script in self._models.values():
            found += script.astray()
        for results in self._tools.values():
            found += results.astray()
        return found

    def left_over(self) -> list[str]:
        """Say what is written and never came: turns, results, tools that nobody has, faults that met no call."""
        found = []
        nobodys = [] if self._toolsets else [script.name for script in self._nobodys()]
        if nobodys:
            offered = ", ".join(sorted(self._offered)) or "none"
            found.append(f"tools: the agent has no {', '.join(nobodys)}; it has: {offered}")
        for script in self._models.values():
            found += script.left_over()
        for name, results in self._tools.items():
            found += [] if name in nobodys else results.left_over()
        unplayed = self.chances.plan.unplayed() if self._strict else []
        return found + [f"fault never met a call: {fault}" for fault in unplayed]

    def _script(self, name: str, model: str, agent: str) -> Script[Turn] | None:
        keys = [name, model, "*"]
        keys = [f"{agent}@{key}" for key in keys] + keys
        return next((self._models[key] for key in keys if key in self._models), None)

    def _nobodys(self) -> list[Script[Outcome]]:
        """Return the scripts of tools that are none of an agent's own: they are of a source that is not asked."""
        return [script for name, script in self._tools.items() if name not in self._offered]
