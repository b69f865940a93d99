"""Playing a scenario: the agent built by the factory from its definition, its ports taken, its clock virtual."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from shared_libs.agents import ReActAgent
from shared_libs.atomic.errors import ConfigError
from shared_libs.atomic.events import AgentEvent, RunFinished
from shared_libs.atomic.results import AgentResult
from shared_libs.atomic.types import Message, Usage
from shared_libs.factory.build import agent_from_dict, load_agent, load_definition
from shared_libs.factory.ports import Ports
from shared_libs.testing.cassettes import Player, Recorder
from shared_libs.testing.cassettes.taping import Taping
from shared_libs.testing.clock import real_time, run_virtual
from shared_libs.testing.scenarios.expectations import differences
from shared_libs.testing.scenarios.model_player import Asked, PlayedMemory
from shared_libs.testing.scenarios.port_faults import FaultPlan, PlayedFault
from shared_libs.testing.scenarios.scenario import Scenario
from shared_libs.testing.scenarios.spec import OutcomeSpec, TurnSpec
from shared_libs.testing.scenarios.stage import Stage
from shared_libs.testing.scenarios.turns import Outcome, Turn
from shared_libs.testing.simulation.evidence import Broken, Evidence, SeenRun
from shared_libs.testing.simulation.promises import broken_promises

S = TypeVar("S")
T = TypeVar("T")

LATE_S = 60.0
"""How much later than its limit a run is given up, in seconds."""

_CLOSE_S = 10.0


class Played(msgspec.Struct, frozen=True, kw_only=True):
    """
    What came of a scenario.

    `differences` says what is not as expected, nothing when it passed. `broken` are the promises that were broken,
    whatever was expected. `events` are those of the run and of the agents that it called, `asked` the requests that
    reached a model's port, `faults` what went wrong. `result` is None where
    the run did not come back. `virtual_s` is the time by its clock, in seconds.
    """

    result: AgentResult | None
    events: list[AgentEvent]
    differences: list[str]
    virtual_s: float
    seed: int
    asked: list[Asked] = []
    faults: list[PlayedFault] = []
    broken: list[Broken] = []


def play(scenario: Scenario, *, seed: int | None = None, record: bool = False) -> Played:
    """
    Play a scenario on an event loop of its own.

    Args:
        scenario: what to play.
        seed: takes the place of the scenario's own.
        record: ask the definition's real models, on the real clock, and renew the scenario's cassette if it passes.

    Raises:
        ConfigError: the agent's definition does not hold, or there is no cassette.

    """
    chance = scenario.spec.seed if seed is None else seed
    if not record or scenario.spec.cassette is None:
        return _played(scenario, chance, player_of(scenario))
    taping = Taping(scenario, definition_of(scenario)[0])
    recorder = taping.recorder()
    played = _played(scenario, chance, recorder)
    found = taping.keep(recorder, played.differences, lambda player: _played(scenario, chance, player).differences)
    return msgspec.structs.replace(played, differences=found)


def _played(scenario: Scenario, chance: int, tape: Player | Recorder | None) -> Played:
    spec = scenario.spec
    stage = stage_of(scenario, chance, tape)
    events: list[AgentEvent] = []
    agent = build(scenario, stage, events)
    main = perform(scenario, agent, stage, events)
    on_real_time = spec.clock == "real" or isinstance(tape, Recorder)
    with _seeded(chance):
        evidence, virtual_s = asyncio.run(main) if on_real_time else run_virtual(main)
    result = evidence.runs[0].result
    found = stage.astray()  # first, for what follows from it
    if result is not None:
        beside = {run.id for run in evidence.runs[1:]}
        found += differences(spec.expect, result, [event for event in events if event.run_id not in beside])
    elif spec.cancel_after_s is None:
        found.append(f"the run did not come back within {LATE_S:g} s of its limit")
    broken = broken_promises(evidence)
    found += [*map(str, broken), *stage.left_over()]
    return Played(
        result=result,
        events=events,
        differences=found,
        virtual_s=virtual_s,
        seed=chance,
        asked=stage.chances.asked,
        faults=stage.chances.plan.played,
        broken=broken,
    )


def player_of(scenario: Scenario) -> Player | None:
    """
    Return what replays the cassette of a scenario; None without one.

    Raises:
        ConfigError: the cassette is missing, or does not hold.

    """
    return None if scenario.spec.cassette is None else Taping(scenario, definition_of(scenario)[0]).player()


def stage_of(scenario: Scenario, seed: int, tape: Player | Recorder | None = None) -> Stage:
    """Make the stage of a scenario: its scripts, its faults under this seed, and what was or is recorded."""
    spec, data = scenario.spec, scenario.data
    return Stage(
        {name: _whole(rows, data["models"][name], _turn) for name, rows in spec.models.items()},
        {name: _whole(rows, data["tools"][name], _outcome) for name, rows in spec.tools.items()},
        FaultPlan((fault.fault_of_port() for fault in spec.faults), seed),
        tape,
        strict=spec.strict,
    )


def build(scenario: Scenario, stage: Ports, events: list[AgentEvent]) -> ReActAgent:
    """
    Build the agent of a scenario on a stage; its conversations stay in this process unless `override` says where.

    Raises:
        ConfigError: its definition does not hold.

    """
    spec, file = scenario.spec, scenario.file
    data, path = definition_of(scenario)
    over = spec.override.get("memory")
    if isinstance(data.get("memory"), dict) and not (isinstance(over, dict) and "url" in over):
        data["memory"] = {key: value for key, value in data["memory"].items() if key in ("window", "compact")}
    where = f"{file}:{scenario.line}" if file else "the scenario"
    try:
        agent = agent_from_dict(data, ports=stage, observers=[events.append], on_note=lambda _: None, file=path or file)
    except ConfigError as error:
        if path is not None:
            load_agent(path, ports=stage, on_note=lambda _: None)  # which tells the place, where the file is at fault
        raise ConfigError([f"{where}: agent: {problem}" for problem in error.problems]) from None
    if spec.session is not None and agent.memory is None:
        raise ConfigError([f"{where}: session: the agent has no memory; give it one: `override: {{memory: {{}}}}`"])
    return agent


def definition_of(scenario: Scenario) -> tuple[dict[str, Any], Path | None]:
    """Return the definition of a scenario's agent, what it overrides in place, and the file that it is from."""
    spec, file = scenario.spec, scenario.file
    path = None if isinstance(spec.agent, dict) else (file.parent if file else Path()) / spec.agent
    written: Mapping[str, Any] = spec.agent if isinstance(spec.agent, dict) else _definition(path)
    return _merged(written, spec.override), path


async def perform(
    scenario: Scenario, agent: ReActAgent, stage: Stage, events: list[AgentEvent]
) -> tuple[Evidence, float]:
    """Ask the questions on the loop that runs; return what came of each run, the first first, and how long it took."""
    loop = asyncio.get_running_loop()
    spec = scenario.spec
    session = spec.session
    runs = _runs(scenario, agent)
    kept: dict[str, list[Message]] = {}
    unheard: list[str] = []
    loop.set_exception_handler(lambda _, context: unheard.append(_said(context)))
    try:
        with real_time():
            await agent.aopen()
            if session is not None and session.history:
                for memory in stage.memories:
                    await memory.inner.async_store(session.id, [message.given() for message in session.history])
        if spec.clear_after_s is not None:
            loop.call_later(spec.clear_after_s, stage.chances.plan.clear)
        began_at = loop.time()
        tasks = [loop.create_task(_run(agent, run, stream=spec.stream)) for run in runs]
        await asyncio.wait(tasks, timeout=max(run.after_s + run.timeout_s for run in runs) + LATE_S)
        for task in tasks:
            task.cancel()
        took_s = loop.time() - began_at
        if isinstance(agent.memory, PlayedMemory):
            for name in {run.session_id for run in runs if run.session_id}:
                given = len(session.history) if session is not None and name == session.id else 0
                kept[name] = (await agent.memory.kept(name))[given:]
    finally:
        stage.chances.end()
        with real_time():
            await asyncio.wait_for(agent.aclose(), _CLOSE_S)
    left = [*await _left(stage, tasks), *unheard]
    return Evidence(agent, stage.chances, runs, events, kept=kept, left=left, clear_after_s=spec.clear_after_s), took_s


def _runs(scenario: Scenario, agent: ReActAgent) -> list[SeenRun]:
    spec, limit_s = scenario.spec, agent.limits.timeout_s
    first = SeenRun(
        id="run-1",
        question=spec.question,
        timeout_s=spec.timeout_s or limit_s,
        session_id=spec.session.id if spec.session else None,
        cancel_after_s=spec.cancel_after_s,
    )
    beside = [
        SeenRun(
            id=f"run-{number}",
            question=run.question,
            timeout_s=run.timeout_s or limit_s,
            session_id=run.session,
            after_s=run.after_s,
            cancel_after_s=run.cancel_after_s,
        )
        for number, run in enumerate(spec.beside, 2)
    ]
    return [first, *beside]


async def _run(agent: ReActAgent, run: SeenRun, *, stream: bool) -> None:
    """Ask, as a caller does that waits no longer than it wants to, and note what came."""
    loop = asyncio.get_running_loop()
    if run.after_s:
        await asyncio.sleep(run.after_s)
    run.began_s, held_s = loop.time(), getattr(loop, "held_s", 0.0)
    task = loop.create_task(_listen(agent, run, stream=stream))
    caller = None if run.cancel_after_s is None else loop.call_later(run.cancel_after_s, _cancel, task)
    await asyncio.wait([task])
    run.ended_s = loop.time()
    run.held_s = getattr(loop, "held_s", loop.time()) - held_s
    if caller is not None:
        caller.cancel()
    if not task.cancelled() and (error := task.exception()):
        run.error = f"{type(error).__name__}: {error}"


def _cancel(task: asyncio.Task[None], times: int = 10) -> None:
    """Cancel again and again, on every turn of the loop, as the scopes of anyio do."""
    if times and not task.done():
        task.cancel()
        asyncio.get_running_loop().call_soon(_cancel, task, times - 1)


async def _listen(agent: ReActAgent, run: SeenRun, *, stream: bool) -> None:
    if not stream:
        run.result = await agent.async_run(
            run.question, timeout=run.timeout_s, session_id=run.session_id, run_id=run.id
        )
        return
    told = agent.async_stream(run.question, timeout=run.timeout_s, session_id=run.session_id, run_id=run.id)
    async with aclosing(told) as events:
        async for event in events:
            if isinstance(event, RunFinished):
                run.result = event.result


def _said(context: Mapping[str, Any]) -> str:
    """What the loop was told of an error that nobody took."""
    return f"{context['message']} ({context.get('exception')!r})"


async def _left(stage: Stage, runs: list[asyncio.Task[None]]) -> list[str]:
    """Return the tasks that nobody waits for any more; what ignores its cancellation is allowed to."""
    await asyncio.sleep(0.1)
    known = {asyncio.current_task(), *runs, *(stubborn.task for stubborn in stage.chances.stubborns)}
    return sorted(str(task.get_coro()) for task in asyncio.all_tasks() - known)


@lru_cache(maxsize=64)
def _read(path: Path, changed_ns: int) -> Mapping[str, Any]:
    return load_definition(path)


def _definition(path: Path | None) -> Mapping[str, Any]:
    assert path is not None
    try:
        changed_ns = path.stat().st_mtime_ns
    except OSError:
        changed_ns = 0
    return _read(path, changed_ns)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one mapping over another, key by key; anything else is replaced, and null takes a key away."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Let the jitter of retries come from the seed; what was random before goes on where it was."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)


def _whole(rows: Sequence[S], written: Any, made: Callable[[S], T]) -> Sequence[T] | T:
    """Make a script: a list is followed, what is written alone comes every time."""
    return [made(row) for row in rows] if isinstance(written, list) else made(rows[0])


def _turn(spec: TurnSpec) -> Turn:
    usage = None
    if spec.usage is not None:
        counted = spec.usage.model_dump()
        usage = Usage(**counted, total_tokens=counted["input_tokens"] + counted["output_tokens"])
    return Turn(
        think=spec.think,
        text=spec.text,
        calls=tuple((call.tool, call.input) for call in spec.calls),
        chunks=tuple(spec.chunks),
        delay_s=spec.delay_s,
        usage=usage,
    )


def _outcome(spec: OutcomeSpec) -> Outcome:
    return Outcome(result=spec.result, error=spec.error, delay_s=spec.delay_s)
