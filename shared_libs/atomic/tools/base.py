"""The tool port: `BaseTool.async_run` is the one way a tool is called, and it always comes back."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterable, Mapping
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, final

from shared_libs.atomic.alarm import Expiry
from shared_libs.atomic.amounts import is_amount
from shared_libs.atomic.deadline import Deadline, event_loop
from shared_libs.atomic.errors import DeadlineExceeded, MisuseError, ToolError
from shared_libs.atomic.journal import REPLAY_S
from shared_libs.atomic.json_schema import shown
from shared_libs.atomic.rescue import door
from shared_libs.atomic.scope import current_scope, use_scope
from shared_libs.atomic.supervise import NO_FAILURES, BodyCancelled, BodyExited, LeftRunning, said_by, supervise
from shared_libs.atomic.threads import Threads
from shared_libs.atomic.tools.arguments import Arguments, InvalidArguments
from shared_libs.atomic.tools.dependencies import Dependency
from shared_libs.atomic.tools.exchange import Answer
from shared_libs.atomic.tools.outcome import as_text, cut, words_of
from shared_libs.atomic.tools.placement import Isolation, Placement, is_async
from shared_libs.atomic.tools.plan import Plan, plan_of
from shared_libs.atomic.types import TOOL_NAME, ToolResult, ToolSpec


class BaseTool:
    """
    A capability an agent may use. Subclass it, or decorate a function with `@tool`.

    Declare as class or instance attributes:

    - `name`, `description`: what the model sees.
    - `execute(...)`: the work, async or sync. Typed parameters give the JSON Schema, or `parameters` is any JSON
      Schema of type object and `execute(self, **arguments)` takes what it allows. A parameter annotated `Deps[T]` gets
      what the run was given as `deps`; no model sees it. Raise `ToolError` to tell the model
      what was wrong. A string result reaches the model verbatim, anything else as JSON, what it yields as a list.
    - `timeout_s`: seconds one call may take; the caller's deadline narrows it further.
    - `isolation`: "loop" (the default for async), "thread" (the default for sync; async code that blocks gets a loop of
      its own there) or "process": a warm worker process, killed with all it has started when the call's time is over.
      There the tool is made again, from its name in its module and its constructor's arguments.
    - `memory_limit_mb`, `cpu_limit_s`: what one call in a process may use; None for no bound.
    - `idempotent`: True, calling again repeats no side effect; False, a call that a crash interrupted is never made
      again, and `found_out` is asked what became of it. `needs_approval`: a person decides first.
      `sequential`: calls of one turn run one after the other.
    - `max_observation_chars`: a longer result is cut, with a note.
    - `passes_ports`: the work is done through models and tools of its own, as a sub-agent does it.
    - `elsewhere`: who asks the agent makes the call, and brings its result (`needs_approval` goes with it).
    """

    name: str = ""
    description: str = ""
    parameters: dict[str, Any] | None = None
    timeout_s: float = 30.0
    isolation: Isolation | None = None
    memory_limit_mb: int | None = None
    cpu_limit_s: float | None = None
    idempotent: bool | None = None
    passes_ports: bool = False
    needs_approval: bool = False
    elsewhere: bool = False
    sequential: bool = False
    max_observation_chars: int = 32_000

    if TYPE_CHECKING:
        execute: Callable[..., Any]  # each tool has parameters of its own
    else:

        def execute(self, **arguments: Any) -> Any:
            """Do the work; every tool writes its own."""
            raise NotImplementedError

    # what is worked out once is put into `vars`: a tool may be a frozen dataclass
    _arguments: Arguments | None = None
    _spec: ToolSpec | None = None
    _placement: Placement | None = None
    _left_running: LeftRunning | None = None
    _made_with: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "async_run" in vars(cls):
            raise MisuseError(f"{cls.__name__} overrides async_run, which is final; write `execute` instead")
        if "__init__" in vars(cls):
            cls.__init__ = _remembering(cls.__init__)  # type: ignore[method-assign]

    def __repr__(self) -> str:
        described = {} if self._arguments is None else self._arguments.schema.get("properties", {})
        return f"{type(self).__name__}({', '.join([repr(self.name), *described])})"

    @property
    def still_running(self) -> int:
        """How many calls of this tool run on although nobody waits for them any more; a gauge for metrics."""
        return 0 if self._left_running is None else len(self._left_running)

    @property
    def spec(self) -> ToolSpec:
        """What a model is told of this tool."""
        spec = self._spec
        if spec is None:
            spec = vars(self)["_spec"] = ToolSpec(self.name, self.description, self._checked_arguments().told)
        return spec

    def accepts(self, arguments: Mapping[str, Any]) -> bool:
        """Whether the arguments fit the schema; a call that cannot run need not be approved."""
        try:
            self._checked_arguments().check(arguments)
        except (InvalidArguments, DeadlineExceeded):
            return False
        return True

    @final
    async def async_run(self, arguments: Mapping[str, Any], *, call_id: str = "") -> ToolResult:
        """
        Call the tool under its timeout and the current deadline, whichever is earlier.

        Whatever happens inside becomes a result the model can read: a failing, invalid or timed-out call has
        `is_error`. The call returns within `GRACE_S` of its limit even when the tool ignores its cancellation; then it
        is booked as still running.

        Args:
            arguments: the arguments, as decoded JSON; checked against the schema.
            call_id: the model's id for this call; tools read it from `current_scope()`.

        Raises:
            asyncio.CancelledError: the caller was cancelled.
            MisuseError: the tool itself is declared wrongly, or the run has not given what it takes (`Deps`).

        """
        loop = event_loop()
        started = loop.time()
        declared = self._checked_arguments()
        given = self._given_by_the_run(declared.dependencies) if declared.dependencies else None
        placement = self._placed()
        if placement.workers is not None:
            placement.workers.refuse_while_loading()
        try:
            checked = declared.check(arguments)
            outcome = await self._supervised(
                placement, checked | given if given else checked, arguments, call_id, started
            )
            if isinstance(outcome, Answer):
                return ToolResult(outcome.content, outcome.is_error, loop.time() - started)
            content, is_error, stuck = outcome, False, False
        except InvalidArguments as error:
            content, is_error, stuck = f"Invalid arguments for {self.name}: {error}", True, False
        except DeadlineExceeded as error:
            content, is_error, stuck = str(error), True, error.still_running
        except BodyCancelled:
            content, is_error, stuck = f"{self.name} was cancelled from within", True, False
        except MemoryError:
            most = "" if self.memory_limit_mb is None else f"; one call may use {self.memory_limit_mb} MB"
            content, is_error, stuck = f"{self.name} ran out of memory{most}", True, False
        except NO_FAILURES:
            raise
        except BodyExited as error:
            content, is_error, stuck = str(error), True, False
        except BaseException as error:  # noqa: BLE001 - the tool is foreign code: whatever it raises is an observation
            content, is_error, stuck = words_of(error), True, False
        shown, whole = cut(content, self.max_observation_chars)
        return ToolResult(shown, is_error, loop.time() - started, stuck, whole)

    async def found_out(self, key: str) -> Any | None:
        """
        Find out what became of an earlier call, by its key (`Scope.key`); None when that is not known.

        Asked of a tool that is not `idempotent` when the process that called it has ended meanwhile; in a thread where
        it is not async. What it returns is the observation; where it fails, that the call may have happened.
        """
        return None

    @final
    @door
    async def async_found_out(self, *, call_id: str) -> ToolResult | None:
        """Ask `found_out`, under the tool's timeout and the current deadline; a failure is told to the model too."""
        scope = current_scope()
        limit = scope.deadline.narrowed(self.timeout_s)
        inner = scope.of_call(self.name, limit, call_id)

        async def body() -> str | None:
            with use_scope(inner):
                asked = functools.partial(self.found_out, inner.key)
                found: Any = (
                    asked() if is_async(self.found_out) else await Threads(self.name, 1).submit(asked, {}).result()
                )
                found = await found if isawaitable(found) else found
                return None if found is None else as_text(found)

        expiry = Expiry(limit.at, f"{self.name} could not find out in time what became of an earlier call")
        began_at = asyncio.get_running_loop().time()
        try:
            left = self._not_too_many()
            found = await supervise(body(), expiry, what="tool", name=self.name, call_id=call_id, left_running=left)
            shown, whole = ("", "") if found is None else cut(found, self.max_observation_chars)
        except NO_FAILURES:
            raise
        except BaseException as error:  # noqa: BLE001 - foreign code, as in `async_run`
            return ToolResult(said_by(error), is_error=True)
        took_s = asyncio.get_running_loop().time() - began_at
        return None if found is None else ToolResult(shown, elapsed_s=took_s, whole=whole)

    async def aopen(self) -> None:
        """
        Get ready what takes long, such as loading a data set or listing a server's tools.

        By default that is a worker process, where the tool runs in one.

        Whoever runs agents calls it before the clock starts (`ReActAgent.aopen`). It must bear being called again.
        """
        self._checked_arguments()
        if self.isolation == "process":
            await self._placed().warm(self)

    async def aclose(self) -> None:
        """Release what the tool holds; using it afterwards opens it again. Extend it where a tool owns more."""
        if self._placement is not None:
            await self._placement.aclose()

    async def _supervised(
        self, placement: Placement, arguments: dict[str, Any], as_given: Mapping[str, Any], call_id: str, now: float
    ) -> Any:
        scope = current_scope()
        limit = until = Deadline(min(scope.deadline.at, now + self.timeout_s))
        if limit.at <= now:
            if not (self.passes_ports and scope.replays(call_id)):
                raise DeadlineExceeded(f"{self.name} was not started: the time of the run is over")
            until = Deadline.after(REPLAY_S)  # what it has done before it only reads: that needs no time
        left_running = self._not_too_many()
        inner = scope.of_call(self.name, limit, call_id, passes_ports=self.passes_ports)
        own = limit.at < scope.deadline.at
        spare = f"within its {self.timeout_s:g} s" if own else "before the time of the run was over"
        expiry = Expiry(until.at, f"{self.name} did not finish {spare}")
        body, elsewhere = placement.begin(self, arguments, as_given, inner)
        try:
            return await supervise(
                body,
                expiry,
                what="tool",
                name=self.name,
                call_id=inner.call_id,
                elsewhere=elsewhere,
                left_running=left_running,
            )
        except (DeadlineExceeded, asyncio.CancelledError):
            if inner.fence is not None:
                inner.fence.lower()
            raise
        finally:
            if elsewhere is not None:
                elsewhere.withdraw()

    def _not_too_many(self) -> LeftRunning:
        """Where is counted what calls leave running; a `ToolError` where that is too much for another one."""
        left_running = self._left_running
        if left_running is None:
            left_running = vars(self)["_left_running"] = LeftRunning()
        if left_running.full:
            raise ToolError(f"{self.name} was not started: {left_running}")
        return left_running

    def check_deps(self, deps: Any) -> None:
        """
        Refuse what a run gives its tools, before it begins.

        Raises:
            MisuseError: it is not what this tool declares with `Deps`.

        """
        if self._arguments is not None:  # what has not been described yet is checked when it is called
            for dependency in self._arguments.dependencies:
                dependency.check(self.name, deps)

    def _given_by_the_run(self, dependencies: Iterable[Dependency]) -> dict[str, Any]:
        deps = current_scope().deps
        self.check_deps(deps)
        return {each.parameter: deps for each in dependencies if deps is not None or each.bare}

    def _plan(self) -> Plan:
        """How a worker makes this tool again."""
        if type(self).__init__ is not object.__init__ and "_made_with" not in vars(self):
            raise MisuseError(f"{self.name}: isolation 'process' needs a constructor that the class itself writes")
        return plan_of(self.name, type(self), self._made_with, self.memory_limit_mb)

    def _placed(self) -> Placement:
        placement = self._placement
        if placement is None:
            placement = vars(self)["_placement"] = Placement.of(self, self.isolation, self._plan)
        return placement

    def _check_declarations(self) -> None:
        if not self.name:
            raise MisuseError(f"{type(self).__name__} has no name")
        if getattr(self.execute, "__func__", None) is BaseTool.execute:
            raise MisuseError(f"tool {self.name} has no execute; write one in {type(self).__name__}")
        for word, (fits, due) in _DECLARED.items():
            if not fits(getattr(self, word)):
                raise MisuseError(f"{word} of tool {self.name} is {shown(getattr(self, word))}; it has to be {due}")

    def _checked_arguments(self) -> Arguments:
        arguments = self._arguments
        if arguments is None:
            self._check_declarations()
            if self._placed().isolation != "process" and (
                self.memory_limit_mb is not None or self.cpu_limit_s is not None
            ):
                raise MisuseError(f"{self.name}: memory_limit_mb and cpu_limit_s need isolation 'process'")
            arguments = Arguments.of(self.name, self.execute, self.parameters)
            if arguments.dependencies and self._placed().isolation == "process":
                raise MisuseError(
                    f"{self.name}: {arguments.dependencies[0].parameter} is the run's own object, which cannot be "
                    "taken to another process; use isolation 'thread', or pass what it needs as arguments"
                )
            vars(self)["_arguments"] = arguments
        return arguments


def _is_bound(value: Any) -> bool:
    return is_amount(value) or (isinstance(value, float) and value > 0)  # an infinite one too: no bound


_DECLARED: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "name": (
        lambda value: isinstance(value, str) and TOOL_NAME.fullmatch(value) is not None,
        "1 to 64 letters, digits, '_' and '-', as every provider takes it; give it another one with name=…",
    ),
    "description": (lambda value: isinstance(value, str), "a text"),
    "parameters": (
        lambda value: value is None or (isinstance(value, Mapping) and value.get("type", "object") == "object"),
        "a JSON Schema of type object, as a dict",
    ),
    "timeout_s": (_is_bound, "a positive number of seconds"),
    "memory_limit_mb": (lambda value: value is None or _is_bound(value), "a positive number of megabytes, or None"),
    "cpu_limit_s": (lambda value: value is None or _is_bound(value), "a positive number of seconds, or None"),
    **dict.fromkeys(
        ("needs_approval", "sequential", "passes_ports", "elsewhere"),
        (lambda value: isinstance(value, bool), "True or False"),
    ),
    "idempotent": (
        lambda value: value is None or isinstance(value, bool),
        "True, False, or None where it is not known",
    ),
    "max_observation_chars": (lambda value: is_amount(value, whole=True), "a positive whole number"),
}
"""What a tool may declare, and what else it is told."""


def _remembering(init: Callable[..., None]) -> Callable[..., None]:
    """Keep the arguments of a constructor: with them a worker process makes the tool again."""

    @functools.wraps(init)
    def remember(self: BaseTool, /, *args: Any, **kwargs: Any) -> None:
        if "_made_with" not in vars(self):  # a parent's constructor is called with other ones
            vars(self)["_made_with"] = (args, kwargs)
        init(self, *args, **kwargs)

    return remember
