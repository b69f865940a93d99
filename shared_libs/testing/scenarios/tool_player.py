"""What takes the place of a tool at its port: the tool itself with its declarations, its calls met by the plan."""

from __future__ import annotations

import asyncio
import copy
import inspect
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from shared_libs.atomic.errors import ToolError
from shared_libs.atomic.scope import current_scope
from shared_libs.atomic.supervise import NO_FAILURES
from shared_libs.atomic.threads import Job, Threads
from shared_libs.atomic.tools.base import BaseTool
from shared_libs.atomic.tools.placement import Placement
from shared_libs.atomic.tools.toolset import Toolset
from shared_libs.atomic.types import ToolResult
from shared_libs.testing.clock import VirtualLoop, real_time
from shared_libs.testing.scenarios.model_player import Chances
from shared_libs.testing.scenarios.port_faults import Panic, PortFault
from shared_libs.testing.scenarios.turns import Outcome, Script
from shared_libs.tools.agent import AgentTool

_DELAY_S = 1.0
_STUBBORN_S = 60.0
_GARBAGE = "\x00\x1b[2J\ufffd\u202e{\"rows\": [[1, 'x'"


def played_tool(tool: BaseTool, script: Script[Outcome] | None, chances: Chances) -> BaseTool:
    """
    Return a tool that is the same but for its calls: each meets the plan first, then the script or the tool itself.

    The tool itself works in real time, whatever the clock; an agent that is a tool does not, for its models are played.
    """
    _ = tool.spec  # the schema is that of the real `execute`
    twin = copy.copy(tool)
    real = _bound(tool, twin)
    in_thread = tool.isolation == "thread" or (tool.isolation is None and not inspect.iscoroutinefunction(real))
    if in_thread and script is None:
        chances.real.add(tool.name)  # what it returns is not seen here
        twin.execute = real
        twin._placement = Placement("thread", threads=_PlayedThreads(tool.name, chances))  # noqa: SLF001
        return twin
    works_outside = not isinstance(tool, AgentTool)

    async def outcome_of(arguments: dict[str, Any]) -> Any:
        fault = chances.plan.next("tool", tool.name)
        if fault is not None:
            await _meet(fault, chances, tool.name)
        if fault is not None and (wrong := _wrong(fault)) is not None:
            return wrong
        if script is not None:
            return await _scripted(script)
        with real_time() if works_outside else nullcontext():
            outcome = real(**arguments)
            return await outcome if inspect.isawaitable(outcome) else outcome

    async def execute(**arguments: Any) -> Any:
        scope = current_scope()
        call = scope.run_id, scope.call_id
        try:
            outcome = chances.returned[call] = await outcome_of(arguments)
        except NO_FAILURES:
            raise
        except BaseException as error:
            chances.raised[call] = str(error)
            raise
        return outcome

    twin.execute = execute
    twin._placement = Placement("loop")  # noqa: SLF001 - a fault can be cancelled there
    if script is not None:  # what is never called is neither opened nor closed
        twin.aopen = twin.aclose = _nothing  # type: ignore[method-assign]
    return twin


class PlayedToolset(Toolset):
    """A source of tools whose tools meet the plan; with scripted tools that nobody else offers, it has those."""

    def __init__(self, inner: Toolset, chances: Chances, scripts: Callable[[], Sequence[Script[Outcome]]]) -> None:
        self.inner = inner
        self.name = inner.name
        self.timeout_s = inner.timeout_s
        self.sequential = inner.sequential
        self.needs_approval = inner.needs_approval
        self.max_observation_chars = inner.max_observation_chars
        self._chances = chances
        self._scripts = scripts
        self._played: dict[int, tuple[BaseTool, BaseTool]] = {}

    async def aclose(self) -> None:
        """Close the real one."""
        await self.inner.aclose()

    async def _list(self) -> Sequence[BaseTool]:
        if scripts := self._scripts():
            return [self._twin(script.name, _Open(script.name, self), script) for script in scripts]
        with real_time():
            tools = await self.inner.async_list()
        return [self._twin(id(tool), tool, None) for tool in tools]

    def _twin(self, key: Any, tool: BaseTool, script: Script[Outcome] | None) -> BaseTool:
        """Return one twin for each tool, run after run."""
        if key not in self._played:
            self._played[key] = (tool, played_tool(tool, script, self._chances))
        return self._played[key][1]


class _Open(BaseTool):
    """A scripted tool of a source that is not asked: it takes anything."""

    description = "A tool of the scenario."
    parameters = {"type": "object"}  # noqa: RUF012 - read, never changed

    def __init__(self, name: str, source: Toolset) -> None:
        self.name = name
        for key in ("timeout_s", "sequential", "needs_approval", "max_observation_chars"):
            setattr(self, key, getattr(source, key))

    async def execute(self, **arguments: Any) -> Any:
        """Never called: the script answers."""


class _PlayedThreads(Threads):
    """The threads of a tool; the clock is held while one of them works, and let go while a fault has it wait."""

    def __init__(self, name: str, chances: Chances) -> None:
        super().__init__(name)
        self._tool = name
        self._chances = chances

    def submit(self, function: Callable[..., Any], arguments: dict[str, Any]) -> Job:
        """Start a call; the fault is chosen here, where the order of calls is that of the run."""
        fault = self._chances.plan.next("tool", self._tool)
        wait = _ThreadWait(self._chances)

        def work(**given: Any) -> Any:
            if fault is not None:
                _meet_in_thread(fault, wait)
                if (wrong := _wrong(fault)) is not None:
                    return wrong
            return function(**given)

        wait.hold()
        job = super().submit(work, arguments)
        job._done.add_done_callback(lambda _: wait.end())  # noqa: SLF001 - the moment the loop has its outcome
        return job


class _ThreadWait:
    """Lets a thread wait by the loop's clock, and holds the clock while the thread works."""

    def __init__(self, chances: Chances) -> None:
        self._loop = asyncio.get_running_loop()
        self._clock = self._loop if isinstance(self._loop, VirtualLoop) else None
        self._chances = chances
        self._held = False
        self._ended = False

    def hold(self) -> None:
        if self._clock is not None and not self._held and not self._ended:
            self._held = True
            self._clock.hold()

    def let_go(self) -> None:
        if self._clock is not None and self._held:
            self._held = False
            self._clock.release()

    def end(self) -> None:
        self._ended = True
        self.let_go()

    def sleep(self, seconds: float | None) -> None:
        """Wait in the thread; None: until the scenario is over."""
        woken = threading.Event()
        self._chances.sleepers.append(woken)
        self._loop.call_soon_threadsafe(self._begin, seconds, woken)
        woken.wait()
        if self._chances.over:
            raise ToolError("the scenario is over")

    def _begin(self, seconds: float | None, woken: threading.Event) -> None:
        self.let_go()
        if seconds is not None:
            self._loop.call_later(seconds, self._wake, woken)

    def _wake(self, woken: threading.Event) -> None:
        self.hold()
        woken.set()


async def _meet(fault: PortFault, chances: Chances, name: str) -> None:
    match fault.fault:
        case "hang":
            await asyncio.Event().wait()
        case "delay":
            await asyncio.sleep(_DELAY_S if fault.delay_s is None else fault.delay_s)
        case "ignore_cancel":
            await chances.stubborn(_STUBBORN_S if fault.delay_s is None else fault.delay_s, name)
        case "block":
            chances.problems.append(
                f"fault: block is for tools that run in a thread; {name} runs on the loop: use hang"
            )
            await asyncio.Event().wait()
        case _:
            _fail(fault)


def _meet_in_thread(fault: PortFault, wait: _ThreadWait) -> None:
    match fault.fault:
        case "hang" | "block":
            wait.sleep(None)
        case "delay":
            wait.sleep(_DELAY_S if fault.delay_s is None else fault.delay_s)
        case "ignore_cancel":
            wait.sleep(_STUBBORN_S if fault.delay_s is None else fault.delay_s)
        case _:
            _fail(fault)


def _fail(fault: PortFault) -> None:
    if fault.fault == "error":
        raise ToolError(fault.text or "the tool of the scenario failed")
    if fault.fault == "crash":
        raise RuntimeError(fault.text or "the tool of the scenario crashed")
    if fault.fault == "panic":
        raise Panic(fault.text or "the tool of the scenario panicked")


def _wrong(fault: PortFault) -> Any | None:
    if fault.fault == "wrong_type":
        return ToolResult(content={"rows": [1, 2]})  # type: ignore[arg-type]
    if fault.fault == "wrong_result":
        return fault.text or ""
    if fault.fault == "garbage":
        chars = len(_GARBAGE) if fault.chars is None else fault.chars
        return (_GARBAGE * (chars // len(_GARBAGE) + 1))[:chars]
    return None


async def _nothing() -> None:
    """Do nothing."""


async def _scripted(script: Script[Outcome]) -> Any:
    outcome = script.coming()
    if outcome is None:
        raise ToolError(f"the script of {script.name} has no further result")
    script.take()
    if outcome.delay_s:
        await asyncio.sleep(outcome.delay_s)
    if outcome.error is not None:
        raise ToolError(outcome.error)
    return outcome.result


def _bound(tool: BaseTool, twin: BaseTool) -> Callable[..., Any]:
    """Return the tool's `execute` with the twin as its `self`, so that what it opens, the twin closes."""
    execute = tool.execute
    if getattr(execute, "__self__", None) is tool:
        return execute.__func__.__get__(twin)  # type: ignore[attr-defined, no-any-return]
    return execute
