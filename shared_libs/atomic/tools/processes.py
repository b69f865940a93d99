"""Where calls of a tool with `isolation: process` run: in a few warm workers, killed when a call outstays its time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from shared_libs.atomic.errors import MisuseError, ToolError
from shared_libs.atomic.forks import outside_the_loop
from shared_libs.atomic.rescue import Call as CallOnLoop
from shared_libs.atomic.threads import Threads
from shared_libs.atomic.tools.exchange import Answer, Call, receive, send
from shared_libs.atomic.tools.plan import WORKER_MAIN, Plan

MAX_WORKERS = max(4, os.cpu_count() or 1)
"""Worker processes one tool may hold; further calls wait for a free one, within their time."""

_GUARD = Path(__file__).with_name("guard.py")


class Workers:
    """The workers of one tool: started when needed, kept while idle, ended by `aclose` or with our process."""

    def __init__(self, name: str, plan: Plan, limit: int = MAX_WORKERS) -> None:
        self.name = name
        self._plan = msgspec.json.encode(plan)
        self.threads = Threads(f"{name}-process", limit)
        self._idle: deque[_Worker] = deque()
        self._closed = False
        weakref.finalize(self, _end_all, self._idle)
        outside_the_loop(self)

    def refuse_while_loading(self) -> None:
        """
        Refuse to work for a script that a worker is loading.

        Raises:
            MisuseError: the script runs its program whenever it is loaded.

        """
        if WORKER_MAIN in sys.modules:
            raise MisuseError(
                f"{self.name} was called while its worker was loading the script: call it under "
                "`if __name__ == '__main__':`"
            )

    def submit(self, call: Call) -> ProcessCall:
        """Begin a call in a free worker, or in a new one."""
        self._closed = False
        return ProcessCall(self, msgspec.json.encode(call), call.cpu_limit_s)

    async def warm(self) -> None:
        """
        Have one worker ready.

        Raises:
            ToolError: it cannot be made.

        """
        self._closed = False
        await self.threads.submit(self._warm, {}).result()

    def begin_anew(self) -> None:
        """Have no workers; in a forked child all are the parent's."""
        self._idle.clear()

    async def aclose(self) -> None:
        """End the idle workers; a busy one ends after its call."""
        self._closed = True
        if self._idle:
            await self.threads.submit(_end_all, {"idle": self._idle}).result()
        self.threads.close()

    def take(self) -> _Worker:
        """Give an idle worker, the one that is warmest, or a new one."""
        while True:
            try:
                worker = self._idle.pop()
            except IndexError:
                return _Worker(self._plan)
            if worker.alive:
                return worker
            worker.end()

    def give_back(self, worker: _Worker) -> None:
        """Keep a worker for the next call."""
        if self._closed:
            worker.end()
        else:
            self._idle.append(worker)

    def _warm(self) -> None:
        worker = self.take()
        try:
            worker.get_ready()
        except _Gone:
            raise ToolError(f"the process of {self.name} {_told(worker.end(), None)}") from None
        except ToolError:
            worker.end()
            raise
        self.give_back(worker)


class ProcessCall:
    """One call in a worker; giving it up kills the worker with everything it has started."""

    def __init__(self, workers: Workers, request: bytes, cpu_limit_s: float | None) -> None:
        self._workers = workers
        self._request = request
        self._cpu_limit_s = cpu_limit_s
        self._lock = threading.Lock()
        self._worker: _Worker | None = None
        self._given_up = False
        self._job = workers.threads.submit(self._run, {})

    async def answer(self) -> Answer:
        """
        Wait for the answer; when the wait is cancelled, for the end of the process.

        Raises:
            ToolError: the worker could not be made, or died.

        """
        try:
            await self._job.ended()
        except asyncio.CancelledError:
            self._give_up()
            self.withdraw()
            if self.running:
                await self._job.ended()
            raise
        found: Answer = await self._job.result()
        return found

    @property
    def running(self) -> bool:
        """Whether anything of the call goes on, or is still to begin."""
        return self._job.running

    def withdraw(self) -> None:
        """Take it back where it has not begun."""
        self._job.withdraw()

    def when_over(self, then: Callable[[], None]) -> None:
        """Have `then` called by the loop when nothing of the call is left."""
        self._job.when_over(then)

    def belong_to(self, call: CallOnLoop) -> None:
        """Be a part of `call`, as whatever is called here."""
        self._job.belong_to(call)

    def _give_up(self) -> None:
        with self._lock:
            self._given_up = True
            if self._worker is not None:
                self._worker.kill()

    def _run(self) -> Answer:
        """Make the call, in a thread."""
        worker = self._workers.take()
        with self._lock:
            self._worker = worker
            if self._given_up:
                worker.kill()
        try:
            answer = worker.ask(self._request)
        except _Gone:
            status = worker.end()
            if self._given_up:
                return Answer("", is_error=True)
            raise ToolError(f"the process of {self._workers.name} {_told(status, self._cpu_limit_s)}") from None
        except ToolError:
            worker.end()
            raise
        with self._lock:
            self._worker = None
        if answer.reusable and not self._given_up:
            self._workers.give_back(worker)
        else:
            worker.end()
        return answer


class _Gone(Exception):
    """The worker is no more."""


class _Worker:
    """A guard with its worker, and the socket to it."""

    def __init__(self, plan: bytes) -> None:
        self._channel, theirs = socket.socketpair()
        with theirs:
            self._guard = subprocess.Popen(  # noqa: S603 - a program of ours
                [sys.executable, "-P", str(_GUARD), str(theirs.fileno()), json.dumps(sys.path)],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._plan: bytes | None = plan
        self._lock = threading.Lock()
        self._status: int | None = None
        outside_the_loop(self)

    def begin_anew(self) -> None:
        """
        Let go of it: it is the parent's.

        As long as a child held these, the guard would not see the parent die.
        """
        self._lock = threading.Lock()
        self._status = int(signal.SIGKILL)
        self._channel.close()
        for pipe in (self._guard.stdin, self._guard.stdout):
            if pipe is not None:
                pipe.close()
        self._guard.returncode = 0  # no child of ours to wait for

    @property
    def alive(self) -> bool:
        """Whether it has not ended by itself while it was idle."""
        return self._guard.poll() is None

    def get_ready(self) -> None:
        """Wait until the tool is made."""
        if self._plan is None:
            return
        first = self._exchange(self._plan)
        if first.is_error:
            raise ToolError(f"the tool could not be made in its process: {first.content}")
        self._plan = None

    def ask(self, request: bytes) -> Answer:
        """Make one call; raise `_Gone` when the worker ends instead of answering."""
        self.get_ready()
        return self._exchange(request)

    def _exchange(self, frame: bytes) -> Answer:
        try:
            send(self._channel, frame)
        except OSError:
            raise _Gone from None
        answer = receive(self._channel)
        if answer is None:
            raise _Gone
        try:
            return msgspec.json.decode(answer, type=Answer)
        except msgspec.DecodeError:  # the tool's code has written to our socket
            raise _Gone from None

    def kill(self) -> None:
        """Have the guard kill it, without waiting."""
        assert self._guard.stdin is not None
        with contextlib.suppress(OSError):
            self._guard.stdin.close()

    def end(self) -> int:
        """Kill it, wait until nothing of it is left, and return how it ended, as `os.waitpid` tells it."""
        with self._lock:
            if self._status is None:
                self.kill()
                assert self._guard.stdout is not None
                with self._guard.stdout as report:
                    said = report.read()
                self._guard.wait()
                self._channel.close()
                self._status = int(said or signal.SIGKILL)
            return self._status


def _end_all(idle: deque[_Worker]) -> None:
    while idle:
        worker = idle.pop()
        worker.kill()
        worker.end()


def _told(status: int, cpu_limit_s: float | None) -> str:
    """Say how a process ended, in words a model can use."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"ended with exit code {code} before it answered"
    if -code == signal.SIGXCPU and cpu_limit_s is not None:
        return f"was ended: it used more than its {cpu_limit_s:g} s of CPU time"
    name = signal.Signals(-code).name if -code in [*signal.Signals] else f"signal {-code}"
    reason = ", perhaps because the machine is out of memory" if -code == signal.SIGKILL else ""
    return f"died of {name} before it answered{reason}"
