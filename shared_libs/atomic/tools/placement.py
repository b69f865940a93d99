"""Where the calls of a tool run: on the loop, in a thread, or in a worker process."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import io
import itertools
import threading
import time
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Literal, Protocol, get_args

from shared_libs.atomic.errors import DeadlineExceeded, MisuseError, ToolError
from shared_libs.atomic.rescue import door
from shared_libs.atomic.scope import Scope, current_scope, use_scope
from shared_libs.atomic.supervise import BodyCancelled
from shared_libs.atomic.threads import Job, Threads
from shared_libs.atomic.tools.blocking import suspicious, warn_of_blocking
from shared_libs.atomic.tools.exchange import Call
from shared_libs.atomic.tools.outcome import as_text, words_of
from shared_libs.atomic.tools.plain import AT_HAND, read_here
from shared_libs.atomic.tools.plan import Plan
from shared_libs.atomic.tools.processes import ProcessCall, Workers

MAX_WAITS = 10
"""How often what a tool returned may have to be waited for, and what comes of that again."""

Isolation = Literal["loop", "thread", "process"]


class Placed(Protocol):
    """What a placement reads of a tool, at every call."""

    name: str
    execute: Callable[..., Any]
    max_observation_chars: int
    memory_limit_mb: int | None
    cpu_limit_s: float | None


class Placement:
    """Where one tool runs, and what it holds there."""

    def __init__(self, isolation: Isolation, *, threads: Threads | None = None, workers: Workers | None = None) -> None:
        self.isolation = isolation
        self.threads = threads
        self.workers = workers
        self._looked_at = False

    @classmethod
    def of(cls, tool: Placed, isolation: Isolation | None, plan: Callable[[], Plan]) -> Placement:
        """
        Place a tool where it says, or where its kind of function belongs.

        Raises:
            MisuseError: there is no such place, or the tool cannot run there.

        """
        if isolation is None:
            return cls("loop" if is_async(tool.execute) else "thread")
        if isolation not in get_args(Isolation):
            allowed = ", ".join(repr(name) for name in get_args(Isolation))
            raise MisuseError(f"isolation {isolation!r} of {tool.name}: allowed are {allowed}")
        return cls(isolation, workers=Workers(tool.name, plan()) if isolation == "process" else None)

    def begin(
        self, tool: Placed, arguments: dict[str, Any], as_given: Mapping[str, Any], scope: Scope
    ) -> tuple[Coroutine[Any, Any, Any], Job | ProcessCall | None]:
        """Begin a call; return what waits for it, and what is at it outside the loop."""
        if self.workers is not None:
            call = self.workers.submit(
                Call(
                    as_given,
                    time.monotonic() + scope.deadline.remaining(),
                    scope.run_id,
                    scope.step,
                    scope.call_id,
                    tool.max_observation_chars,
                    tool.memory_limit_mb,
                    tool.cpu_limit_s,
                )
            )
            return call.answer(), call
        if self.isolation == "loop":
            if not self._looked_at:
                self._look_at(tool)
            return _told(tool, partial(_execute, tool, arguments, scope), scope), None
        if self.threads is None:
            self.threads = Threads(tool.name)
        own = _OwnLoop(tool) if is_async(tool.execute) else None
        with use_scope(scope):
            job = self.threads.submit(partial(_run_here, tool) if own is None else own.run, arguments)
        return _told(tool, job.result if own is None else partial(own.awaited, job), scope), job

    def _look_at(self, tool: Placed) -> None:
        """At the first call, warn of what is known to block; its source is read in a thread, for that is a file."""
        self._looked_at = True
        if suspicious(tool.execute):
            with contextlib.suppress(ToolError):  # no thread for it: the warning is not worth the call
                Threads(f"{tool.name}-source", 1).submit(warn_of_blocking, {"name": tool.name, "execute": tool.execute})

    async def warm(self, tool: Placed) -> None:
        """Have a worker process ready, or a thread, where the tool runs in one."""
        if self.workers is not None:
            await self.workers.warm()
        elif self.isolation == "thread":
            if self.threads is None:
                self.threads = Threads(tool.name)
            await self.threads.submit(int, {}).result()

    async def aclose(self) -> None:
        """Release threads and workers; the next call gets others."""
        if self.threads is not None:
            self.threads.close()
        if self.workers is not None:
            await self.workers.aclose()


def is_async(execute: Callable[..., Any]) -> bool:
    """Whether a function belongs on the loop."""
    return inspect.iscoroutinefunction(execute) or inspect.isasyncgenfunction(execute)


def _run_here(tool: Placed, /, **arguments: Any) -> Any:
    """Run a sync tool in this thread, what it yields included; a call that was given up gets no further piece."""
    _may_begin(current_scope())
    outcome = read_here(tool.execute(**arguments))
    if isinstance(outcome, Iterator) and not isinstance(outcome, io.IOBase):
        pieces = outcome
        try:
            outcome = [*itertools.takewhile(lambda _: not current_scope().stale, _shown(tool, pieces))]
        finally:
            if inspect.isgenerator(pieces):
                pieces.close()
    return outcome if _is_awaited(outcome) else as_text(outcome)


class _OwnLoop:
    """
    A call of an async tool that may block: in a thread, on a loop of its own.

    It has no clock of its own: whoever supervises it says when its time is over, and it is cancelled there.
    """

    def __init__(self, tool: Placed) -> None:
        self._tool = tool
        self._lock = threading.Lock()
        self._task: asyncio.Task[Any] | None = None
        self._given_up = False

    def run(self, /, **arguments: Any) -> Any:
        """Run it, in this thread."""
        _may_begin(current_scope())
        try:
            return asyncio.run(self._body(arguments))
        except asyncio.CancelledError:
            raise BodyCancelled from None

    async def awaited(self, job: Job) -> Any:
        """Wait for it; when the wait is cancelled, cancel it and wait for its end."""
        try:
            await job.ended()
        except asyncio.CancelledError:
            self._give_up()
            job.withdraw()
            if job.running:
                await job.ended()
            raise
        return await job.result()

    async def _body(self, arguments: dict[str, Any]) -> Any:
        task = asyncio.current_task()
        with self._lock:
            if self._given_up:
                raise asyncio.CancelledError
            self._task = task
        return as_text(await _outcome(self._tool, self._tool.execute(**arguments)))

    def _give_up(self) -> None:
        with self._lock:
            self._given_up = True
            if self._task is not None:
                with contextlib.suppress(RuntimeError):  # its loop is closed: it has ended just now
                    self._task.get_loop().call_soon_threadsafe(self._task.cancel)


def _may_begin(scope: Scope) -> None:
    """Ask once more, where the body begins: between the call and this the process may have been stopped for long."""
    if scope.may_begin is not None:
        scope.may_begin()


@door
def _execute(tool: Placed, arguments: dict[str, Any], scope: Scope) -> Any:
    _may_begin(scope)
    return tool.execute(**arguments)


@door
async def _told(tool: Placed, begin: Callable[[], Any], scope: Scope) -> str:
    """
    What a call comes to, as text; what a sync function over an async one returned is awaited on the loop.

    What results and errors say of themselves is foreign code too: it is read here, while the call still is supervised.
    """
    with use_scope(scope):
        try:
            return as_text(await _outcome(tool, begin()))
        except (DeadlineExceeded, BodyCancelled, MemoryError):
            raise
        except Exception as error:
            raise ToolError(words_of(error)) from error


@door
async def _outcome(tool: Placed, outcome: Any) -> Any:
    """Wait for what a tool returned, for what comes of that, and for all it yields."""
    for _ in range(MAX_WAITS):
        if type(outcome) in AT_HAND:
            return outcome
        if isinstance(outcome, Future):
            outcome = asyncio.wrap_future(outcome)
        if not inspect.isawaitable(outcome):
            break
        outcome = await outcome
    if isinstance(outcome, AsyncIterable):
        outcome = await _pieces(tool, outcome)
    elif inspect.isgenerator(outcome):
        outcome = [*_shown(tool, outcome)]
    if not inspect.isawaitable(_first(outcome)):
        return outcome
    if isinstance(outcome, dict):
        return dict(zip(outcome, await _all_of([*outcome.values()]), strict=True))
    return await _all_of(outcome)


def _is_awaited(outcome: Any) -> bool:
    """Whether a result has to be waited for on the loop."""
    return type(outcome) not in AT_HAND and (
        isinstance(outcome, Future | AsyncIterable) or any(map(inspect.isawaitable, (outcome, _first(outcome))))
    )


@door
def _first(outcome: Any) -> Any:
    """The first of several results, whose kind tells that of all."""
    if isinstance(outcome, list | tuple):
        return outcome[0] if outcome else None
    return next(iter(outcome.values()), None) if isinstance(outcome, dict) else None


@door
async def _pieces(tool: Placed, outcome: AsyncIterable[Any]) -> list[Any]:
    pieces: list[Any] = []
    owned: contextlib.AbstractAsyncContextManager[Any] = (
        contextlib.aclosing(outcome) if inspect.isasyncgen(outcome) else contextlib.nullcontext()
    )
    async with owned:
        async for piece in outcome:
            pieces.append(piece)
            if len(pieces) >= tool.max_observation_chars:  # as in `_shown`
                break
    return pieces


@door
async def _all_of(outcomes: Sequence[Any]) -> list[Any]:
    """Wait for one after the other, as a tool that had not forgotten to would; what is not begun is closed."""
    try:
        return [await one if inspect.isawaitable(one) else one for one in outcomes]
    finally:
        for one in outcomes:
            if inspect.iscoroutine(one):
                one.close()  # nothing, where it has ended


def _shown(tool: Placed, pieces: Iterable[Any]) -> Iterator[Any]:
    """As many as could be shown: a tool that never ends yields more than any memory holds."""
    return itertools.islice(pieces, tool.max_observation_chars)
