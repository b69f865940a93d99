"""The tool port: `BaseTool.async_run` is the one way a tool is called, and it always comes back."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import itertools
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, final, get_args, overload

import msgspec

from shared_libs.atomic.errors import DeadlineExceeded, MisuseError, RunInterrupted, ToolError, in_words
from shared_libs.atomic.scope import Scope, current_deadline, current_scope, use_scope
from shared_libs.atomic.supervise import BodyCancelled, BodyExited, Expiry, LeftRunning, supervise
from shared_libs.atomic.threads import Job, Threads
from shared_libs.atomic.tools.arguments import Arguments, InvalidArguments
from shared_libs.atomic.tools.plan import Plan, plan_of
from shared_libs.atomic.tools.processes import Answer, Call, ProcessCall, Workers
from shared_libs.atomic.types import ToolResult, ToolSpec

Isolation = Literal["loop", "thread", "process"]


class BaseTool:
    """
    A capability an agent may use. Subclass it, or decorate a function with `@tool`.

    Declare as class or instance attributes:

    - `name`, `description`: what the model sees.
    - `execute(...)`: the work, async or sync. Typed parameters give the JSON Schema, or `parameters` is any JSON
      Schema of type object and `execute(self, **arguments)` takes what it allows. Raise `ToolError` to tell the model
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
    sequential: bool = False
    max_observation_chars: int = 32_000

    if TYPE_CHECKING:
        execute: Callable[..., Any]  # each tool has parameters of its own
    else:

        def execute(self, **arguments: Any) -> Any:
            """Do the work; every tool writes its own."""
            raise NotImplementedError(f"tool {self.name} has no execute")

    _arguments: Arguments | None = None
    _spec: ToolSpec | None = None
    _threads: Threads | None = None
    _process_workers: Workers | None = None
    _left_running: LeftRunning | None = None
    _made_with: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "async_run" in vars(cls):
            raise MisuseError(f"{cls.__name__} overrides async_run, which is final; write `execute` instead")
        if "__init__" in vars(cls):
            cls.__init__ = _remembering(cls.__init__)  # type: ignore[method-assign]

    @property
    def still_running(self) -> int:
        """How many calls of this tool run on although nobody waits for them any more; a gauge for metrics."""
        return 0 if self._left_running is None else len(self._left_running)

    @property
    def spec(self) -> ToolSpec:
        """What a model is told of this tool."""
        if self._spec is None:
            self._spec = ToolSpec(self.name, self.description, self._checked_arguments().schema)
        return self._spec

    def accepts(self, arguments: Mapping[str, Any]) -> bool:
        """Whether the arguments fit the schema; a call that cannot run need not be approved."""
        try:
            self._checked_arguments().check(arguments)
        except InvalidArguments:
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
            MisuseError: the tool itself is declared wrongly.

        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        declared = self._checked_arguments()
        if self._process_workers is not None:
            self._process_workers.refuse_while_loading()
        try:
            outcome = await self._supervised(declared.check(arguments), arguments, call_id)
            if isinstance(outcome, Answer):
                return ToolResult(outcome.content, outcome.is_error, loop.time() - started)
            content, is_error, stuck = _as_text(outcome), False, False
        except InvalidArguments as error:
            content, is_error, stuck = f"Invalid arguments for {self.name}: {error}", True, False
        except DeadlineExceeded as error:
            content, is_error, stuck = str(error), True, error.still_running
        except BodyCancelled:
            content, is_error, stuck = f"{self.name} was cancelled from within", True, False
        except ToolError as error:
            content, is_error, stuck = _said(error), True, False
        except MemoryError:
            most = "" if self.memory_limit_mb is None else f"; one call may use {self.memory_limit_mb} MB"
            content, is_error, stuck = f"{self.name} ran out of memory{most}", True, False
        except (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit, RunInterrupted):
            raise
        except BodyExited as error:
            content, is_error, stuck = str(error), True, False
        except BaseException as error:  # noqa: BLE001 - the tool is foreign code: whatever it raises is an observation
            content, is_error, stuck = in_words(error), True, False
        shown, whole = self._cut(content)
        return ToolResult(shown, is_error, loop.time() - started, stuck, whole)

    async def found_out(self, key: str) -> Any | None:
        """
        Find out what became of an earlier call, by its key (`Scope.key`); None when that is not known.

        Asked of a tool that is not `idempotent` when the process that called it has ended meanwhile. What it returns is
        the observation.
        """
        return None

    @final
    async def async_found_out(self, *, call_id: str) -> ToolResult | None:
        """Ask `found_out`, under the tool's timeout and the current deadline; a failure is told to the model too."""
        scope = current_scope()
        limit = scope.deadline.narrowed(self.timeout_s)
        inner = scope.of_call(self.name, limit, call_id)

        async def body() -> Any:
            with use_scope(inner):
                return await self.found_out(inner.key)

        expiry = Expiry(limit.at, f"{self.name} could not find out in time what became of an earlier call")
        began_at = asyncio.get_running_loop().time()
        try:
            found = await supervise(body(), expiry, what="tool", name=self.name, call_id=call_id)
            shown, whole = ("", "") if found is None else self._cut(_as_text(found))
        except (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit, RunInterrupted):
            raise
        except BaseException as error:  # noqa: BLE001 - foreign code, as in `async_run`
            return ToolResult(in_words(error), is_error=True)
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
            await self._processes().warm()

    async def aclose(self) -> None:
        """Release what the tool holds; using it afterwards opens it again. Extend it where a tool owns more."""
        if self._threads is not None:
            self._threads.close()
        if self._process_workers is not None:
            await self._process_workers.aclose()

    async def _supervised(self, arguments: dict[str, Any], as_given: Mapping[str, Any], call_id: str) -> Any:
        scope = current_scope()
        limit = scope.deadline.narrowed(self.timeout_s)
        if limit.expired:
            raise DeadlineExceeded(f"{self.name} was not started: the time of the run is over")
        if self._left_running is None:
            self._left_running = LeftRunning()
        if self._left_running.full:
            raise ToolError(f"{self.name} was not started: {self._left_running}")
        inner = scope.of_call(self.name, limit, call_id)
        own = limit.at < scope.deadline.at
        spare = f"within its {self.timeout_s:g} s" if own else "before the time of the run was over"
        expiry = Expiry(limit.at, f"{self.name} did not finish {spare}")
        body, elsewhere = self._begin(arguments, as_given, inner)
        try:
            return await supervise(
                body,
                expiry,
                what="tool",
                name=self.name,
                call_id=inner.call_id,
                elsewhere=elsewhere,
                left=self._left_running,
            )
        except (DeadlineExceeded, asyncio.CancelledError):
            if inner.fence is not None:
                inner.fence.lower()
            raise
        finally:
            if elsewhere is not None:
                elsewhere.still_running()  # what no thread has begun is taken back

    def _begin(
        self, arguments: dict[str, Any], as_given: Mapping[str, Any], scope: Scope
    ) -> tuple[Coroutine[Any, Any, Any], Job | ProcessCall | None]:
        """Begin a call where it belongs; return what waits for it, and what is at it."""
        place = self._place()
        if place == "loop":
            return self._run_on_loop(arguments, scope), None
        if place == "process":
            call = self._processes().submit(
                Call(
                    as_given,
                    time.monotonic() + scope.deadline.remaining(),
                    scope.run_id,
                    scope.step,
                    scope.call_id,
                    self.max_observation_chars,
                    self.memory_limit_mb,
                    self.cpu_limit_s,
                )
            )
            return call.answer(), call
        if self._threads is None:
            self._threads = Threads(self.name)
        alone = _is_async(self.execute)
        with use_scope(scope):
            job = self._threads.submit(self._run_loop_of_its_own if alone else self._run_here, arguments)
        return self._awaited(job, scope), job

    def _run_here(self, /, **arguments: Any) -> Any:
        """Run a sync tool in this thread, what it yields included; a call that was given up gets no further piece."""
        outcome = self.execute(**arguments)
        if not inspect.isgenerator(outcome):
            return outcome
        with contextlib.closing(outcome):
            return [*itertools.takewhile(lambda _: not current_scope().stale, self._pieces(outcome))]

    def _run_loop_of_its_own(self, /, **arguments: Any) -> Any:
        """Run an async tool that may block, in this thread; what can be cancelled ends at the deadline."""

        async def bounded() -> Any:
            async with asyncio.timeout(current_deadline().remaining()):
                return await self._outcome(self.execute(**arguments))

        return asyncio.run(bounded())

    async def _outcome(self, outcome: Any) -> Any:
        """Wait for what a tool returned, or for all it yields."""
        if inspect.isawaitable(outcome):
            outcome = await outcome
        if not inspect.isasyncgen(outcome):
            return outcome
        pieces: list[Any] = []
        async with contextlib.aclosing(outcome):
            async for piece in outcome:
                pieces.append(piece)
                if len(pieces) >= self.max_observation_chars:  # as in `_pieces`
                    break
        return pieces

    def _pieces(self, pieces: Iterable[Any]) -> Iterator[Any]:
        """As many as could be shown: a tool that never ends yields more than any memory holds."""
        return itertools.islice(pieces, self.max_observation_chars)

    async def _awaited(self, job: Job, scope: Scope) -> Any:
        """The outcome of a job; what a sync function over an async one returned is awaited on the loop."""
        outcome = await job.result()
        with use_scope(scope):
            return await self._outcome(outcome)

    async def _run_on_loop(self, arguments: dict[str, Any], scope: Scope) -> Any:
        with use_scope(scope):
            outcome = await self._outcome(self.execute(**arguments))
            return [*self._pieces(outcome)] if inspect.isgenerator(outcome) else outcome

    def _processes(self) -> Workers:
        if self._process_workers is None:
            self._process_workers = Workers(self.name, self._plan())
        return self._process_workers

    def _plan(self) -> Plan:
        """How a worker makes this tool again."""
        if type(self).__init__ is not object.__init__ and "_made_with" not in vars(self):
            raise MisuseError(f"{self.name}: isolation 'process' needs a constructor that the class itself writes")
        return plan_of(self.name, type(self), self._made_with, self.memory_limit_mb)

    def _place(self) -> Isolation:
        if self.isolation is None:
            return "loop" if _is_async(self.execute) else "thread"
        if self.isolation not in get_args(Isolation):
            allowed = ", ".join(repr(name) for name in get_args(Isolation))
            raise MisuseError(f"isolation {self.isolation!r} of {self.name}: allowed are {allowed}")
        return self.isolation

    def _checked_arguments(self) -> Arguments:
        if self._arguments is None:
            if not self.name:
                raise MisuseError(f"{type(self).__name__} has no name")
            if self._place() == "process":
                self._processes()
            elif self.memory_limit_mb is not None or self.cpu_limit_s is not None:
                raise MisuseError(f"{self.name}: memory_limit_mb and cpu_limit_s need isolation 'process'")
            self._arguments = Arguments.of(self.name, self.execute, self.parameters)
        return self._arguments

    def _cut(self, text: str) -> tuple[str, str]:
        if not text.isascii():
            text = text.encode("utf-8", "replace").decode()  # a lone surrogate, as in a file name, cannot be sent
        limit = self.max_observation_chars
        if len(text) <= limit:
            return text, ""
        return f"{text[:limit]}\n[cut: {len(text) - limit} of {len(text)} characters are not shown]", text


def _remembering(init: Callable[..., None]) -> Callable[..., None]:
    """Keep the arguments of a constructor: with them a worker process makes the tool again."""

    @functools.wraps(init)
    def remember(self: BaseTool, /, *args: Any, **kwargs: Any) -> None:
        if "_made_with" not in vars(self):  # a parent's constructor is called with other ones
            self._made_with = (args, kwargs)
        init(self, *args, **kwargs)

    return remember


class FunctionTool(BaseTool):
    """A plain function as a tool; made by `@tool`. Calling it calls the function."""

    def __init__(self, function: Callable[..., Any], **declarations: Any) -> None:
        self.name = getattr(function, "__name__", "")
        self.description = inspect.getdoc(function) or ""
        for key, value in declarations.items():
            if key not in _DECLARATIONS:
                raise MisuseError(f"@tool does not know {key!r}. Allowed: {', '.join(sorted(_DECLARATIONS))}")
            setattr(self, key, value)
        self.execute = function
        self.__doc__ = function.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself, unsupervised."""
        return self.execute(*args, **kwargs)

    def _plan(self) -> Plan:
        return plan_of(self.name, self.execute, ((), {}), self.memory_limit_mb)


_DECLARATIONS = frozenset(name for name in BaseTool.__annotations__ if not name.startswith("_"))


@overload
def tool(function: Callable[..., Any], /) -> FunctionTool: ...
@overload
def tool(**declarations: Any) -> Callable[[Callable[..., Any]], FunctionTool]: ...
def tool(
    function: Callable[..., Any] | None = None, /, **declarations: Any
) -> FunctionTool | Callable[[Callable[..., Any]], FunctionTool]:
    """
    Make a tool of a function: its name, docstring and typed parameters are what the model sees.

    With arguments (`@tool(timeout_s=5, sequential=True)`) it sets the declarations of `BaseTool`.
    """
    if function is not None:
        return FunctionTool(function)
    return lambda decorated: FunctionTool(decorated, **declarations)


def _is_async(execute: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(execute) or inspect.isasyncgenfunction(execute)


def _said(error: ToolError) -> str:
    """What a tool says was wrong; where that fails, what failed."""
    try:
        return str(error)
    except Exception as failure:  # noqa: BLE001 - the text of an error is foreign code too
        return f"{type(error).__name__}, whose text fails: {in_words(failure)}"


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, ToolResult):
        given: Any = value.content  # of foreign code, whatever its type says
        content = given if isinstance(given, str) else _as_text(given)
        if value.is_error:
            raise ToolError(content)
        return content
    try:
        return msgspec.json.encode(value, enc_hook=_plain).decode()
    except (TypeError, ValueError, msgspec.MsgspecError, RecursionError):
        return str(value)


def _plain(value: Any) -> Any:
    """JSON of what msgspec does not know: pydantic models, numpy scalars and arrays; else its text."""
    for method, options in (("model_dump", {"mode": "json"}), ("tolist", {}), ("isoformat", {})):
        convert = getattr(value, method, None)
        if callable(convert):
            return convert(**options)
    return str(value)
