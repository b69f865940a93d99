"""
Interrupting what holds the event loop, where it stands.

A deadline on the loop cannot act while something holds the loop. A signal can: Python runs its handler between two
instructions of the main thread, and a system call that waits returns for it. The handler raises `Interrupted`, but only
where that is as harmless as any error of the foreign code itself: in frames of that code, below a place where we call
it. Never in asyncio, in our own code, in an import, or at a debugger's prompt; then nothing happens, and the watchdog
asks again in a moment.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what `signal` wraps: its enumerations cost a run more than its watch
import asyncio
import contextlib
import ctypes
import dis
import inspect
import math
import os
import signal
import threading
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from types import CodeType, FrameType
from typing import Any, Literal, TypeVar

from shared_libs.atomic.errors import DeadlineExceeded

SIGNAL = getattr(signal, "SIGURG", None)
"""Ignored where nobody handles it, so that one that comes too late is harmless; hardly a program uses it."""

BLOCKED = "it blocked the event loop, and the time of a run there was nearly over"

SWITCH = "FACTORY_RESCUE"
"""The environment variable that switches all this off (`off`)."""

_OURS = frozenset({"shared_libs", "genai_factory"})
_doors: set[tuple[str, str]] = set()
"""Module and name of every `door`."""

_READERS = frozenset(
    f"shared_libs.atomic.{module}" for module in ("errors", "tools.outcome", "tools.plain", "tools.kinds")
)
"""Our modules that read what foreign objects say of themselves, and keep nothing: doors as a whole."""

_LOOPS = frozenset({"asyncio", "uvloop"})
_CALLBACK = "Handle._run"
"""What a loop calls its callbacks from, and reports what they raise; that of uvloop has no frame but who `runs` it."""

_UNTOUCHED = frozenset(
    {
        *("importlib", "_frozen_importlib", "_frozen_importlib_external"),
        *("weakref", "_weakrefset"),
    }
)
"""
Code that holds locks of the whole process: an import that is broken off cannot always be made again. And what is told
when an object goes: an error there is only printed, and the books it keeps, such as asyncio's, are wrong.
"""

_LOG = "logging"
"""Holds a lock while it calls a handler, and gives it back however that ends; in frames of its own it may not have."""

_GOING = "__del__"
"""What runs when an object goes: an error in it is printed, wherever that is, and harms nobody."""

_DEBUGGERS = frozenset({"bdb", "pdb", "pudb", "pydevd", "_pydevd_bundle", "debugpy", "ipdb"})


Why = Literal["own", "others"]
"""Why a call is interrupted: its own time is over, or that of a run on its loop is about to be."""


class Interrupted(BaseException):
    """Raised in foreign code that holds the event loop; no `except Exception` keeps it."""


class Call:
    """A call of foreign code on an event loop: until when it may take, and why it was interrupted, if it was."""

    __slots__ = ("in_thread", "interrupted")

    interrupted: Why | None
    in_thread: int | None

    @property
    def at(self) -> float:
        """The moment its time is over, in loop seconds."""
        raise NotImplementedError


class Lent(Call):
    """The call that waits for work in a thread: what the thread has called on the event loop belongs to it."""

    __slots__ = ("lender",)

    def __init__(self, lender: Call | None) -> None:
        self.lender = lender


Verdict = Callable[[Call], Why | None]
"""Asked at the moment of the interrupt, with the call that is on then; None where it is to be left alone."""

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


def door(function: F) -> F:
    """Say of a function of ours that it only hands on what foreign code raises: it is a place where we call that."""
    _doors.add((function.__module__, function.__qualname__.partition(".<locals>")[0]))
    return function


def is_door(frame: FrameType) -> bool:
    """Whether a frame is that of a door, or of a comprehension or an inner function in one."""
    name = frame.f_code.co_qualname.partition(".<locals>")[0]
    return (frame.f_globals.get("__name__"), name) in _doors


in_progress: ContextVar[Call | None] = ContextVar("in_progress", default=None)
"""The innermost call that the running code belongs to; tasks and callbacks it has made belong to it too."""


def what_runs(frame: FrameType | None) -> CodeType | None:
    """What runs the loop of a stack: the code below its outermost coroutine."""
    below = None
    while frame is not None:
        if frame.f_code.co_flags & inspect.CO_COROUTINE and frame.f_back is not None:
            below = frame.f_back.f_code
        frame = frame.f_back
    return below


def may_be_interrupted(frame: FrameType | None, task: asyncio.Task[Any] | None, runs: CodeType | None = None) -> bool:
    """
    Whether an error raised in `frame`, the innermost of a stack, passes foreign code only until it is caught.

    The stack is that of a loop which `runs` runs: below that nothing belongs to it.
    """
    coroutine_frame = getattr(task.get_coro(), "cr_frame", None) if task is not None else None
    foreign = False
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        package = module.partition(".")[0]
        if frame.f_code is runs or (frame.f_code.co_qualname == _CALLBACK and package in _LOOPS):
            return foreign
        if package in _OURS:
            return foreign and (module in _READERS or is_door(frame))
        if package in _UNTOUCHED or package in _DEBUGGERS or (package == _LOG and not foreign):
            return False
        if package not in _LOOPS:
            foreign = True
            if frame.f_code.co_name == _GOING:
                return True
        elif not foreign:
            return False
        if frame is coroutine_frame:  # a task that the foreign code has made
            return foreign
        frame = frame.f_back
    return False


def call_of(held: Call | None) -> Call | None:
    """The call that `in_progress` means."""
    return held.lender if isinstance(held, Lent) else held


def call_to_blame(frame: FrameType | None, held: Call | None) -> Call | None:
    """The call that code standing in `frame` belongs to, where `in_progress` is `held`; None where it is nobody's."""
    return call_of(held) or (_Unbounded() if _is_let_go(frame) else None)


class _Unbounded(Call):
    """A call without a limit of its own: it may take as long as every run of the loop has time."""

    __slots__ = ()

    def __init__(self) -> None:
        self.interrupted = self.in_thread = None

    @property
    def at(self) -> float:
        return math.inf


class _Here(_Unbounded):
    """A call of foreign code that is not awaited."""

    __slots__ = ()

    @door
    def call(self, function: Callable[..., T], arguments: tuple[Any, ...]) -> T:
        token = in_progress.set(self)
        try:
            return function(*arguments)
        except BaseException:
            if self.interrupted is not None:  # whatever foreign code has made of the interrupt
                raise DeadlineExceeded(BLOCKED) from None
            raise
        finally:
            in_progress.reset(token)
            if self.in_thread is not None:
                forget_in_thread(self)


def call_here(function: Callable[..., T], *arguments: Any) -> T:
    """
    Call foreign code that is not awaited: a listener, a validator, what an error says of itself.

    It has no limit of its own, and the deadlines of the runs on its loop hold all the same.

    Raises:
        DeadlineExceeded: it blocked the event loop, and was interrupted.

    """
    return _Here().call(function, arguments)


def noted(log: Callable[..., None], *words: Any) -> None:
    """Log where a run goes on: handlers and filters are foreign code, and what they block or raise is nobody's end."""
    with contextlib.suppress(Exception, Interrupted):
        call_here(partial(log, *words, stacklevel=4))


def _is_let_go(frame: FrameType | None) -> bool:
    """Whether an object goes in a stack that our code, the loop or the log has let go of."""
    going = False
    while frame is not None:
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if going and (package in _OURS or package in _LOOPS or package in _UNTOUCHED or package == _LOG):
            return True
        going = frame.f_code.co_name == _GOING
        frame = frame.f_back
    return False


class Signal:
    """The way to the main thread, while one of its loops is watched."""

    def __init__(self) -> None:
        self._verdict: Verdict | None = None
        self._runs: CodeType | None = None

    def arm(self) -> bool:
        """Take the signal, on the main thread, if nobody has it and nobody has switched this off."""
        if SIGNAL is None or threading.get_ident() != threading.main_thread().ident or not is_on():
            return False
        if _signal.getsignal(SIGNAL) is _signal.SIG_DFL:
            with contextlib.suppress(ValueError):  # a subinterpreter has a main thread too, and no signals
                _signal.signal(SIGNAL, self._handle)
        return self.is_held

    @property
    def is_held(self) -> bool:
        """Whether the signal is still ours: foreign code may have taken it since."""
        return SIGNAL is not None and bool(_signal.getsignal(SIGNAL) == self._handle)

    def disarm(self) -> None:
        """Give the signal back, on the main thread."""
        if threading.get_ident() == threading.main_thread().ident and self.is_held:
            _signal.signal(SIGNAL, _signal.SIG_DFL)

    def send(self, verdict: Verdict, runs: CodeType | None = None) -> None:
        """Interrupt the main thread, from another; `runs` runs its loop."""
        assert SIGNAL is not None
        self._verdict, self._runs = verdict, runs
        signal.pthread_kill(threading.main_thread().ident or 0, SIGNAL)

    def _handle(self, _number: int, frame: FrameType | None) -> None:
        verdict, self._verdict = self._verdict, None
        if verdict is None or asyncio._get_running_loop() is None:  # noqa: SLF001 - cheap, never raises
            return
        call = call_to_blame(frame, in_progress.get())
        if call is None:
            return
        if may_be_interrupted(frame, asyncio.current_task(), self._runs) and (why := verdict(call)) is not None:
            call.interrupted = why
            raise Interrupted


def raise_in_thread(thread_id: int, frame: FrameType, call: Call, verdict: Verdict) -> None:
    """
    Raise in another thread, where no signal reaches: at the instruction that it stands at, or not at all.

    CPython looks for such an error where it may switch threads: at the head of loops and functions, and after calls.
    In any other place it could come after the foreign code has been left. A system call that waits is not woken.
    """
    at = dis.opname[frame.f_code.co_code[frame.f_lasti]] if frame.f_lasti >= 0 else ""
    if at.startswith(("CALL", "JUMP_BACKWARD", "RESUME", "PRECALL")) and (why := verdict(call)) is not None:
        call.interrupted, call.in_thread = why, thread_id
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), ctypes.py_object(Interrupted))


def forget_in_thread(call: Call) -> None:
    """Take back what `raise_in_thread` has not raised yet."""
    if call.in_thread is not None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(call.in_thread), None)
        call.in_thread = None


def is_on() -> bool:
    """Whether blocked loops are to be rescued."""
    return os.environ.get(SWITCH, "").lower() not in {"off", "0", "false", "no"}
