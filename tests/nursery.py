"""
Programs that begin with the library imported: one process that has it forks another for each.

Half of what the suite took went into starting Python and loading the library, hundreds of times over. What runs is the
same: a process with streams, folder, environment, signals and an end of its own. What Python reads before any code runs
(`PYTHON…`, the locale) is that of the nursery; a program that is to have another, or whose start is what is tested, is
started as ever.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import runpy
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from functools import cache
from importlib import import_module, invalidate_caches
from pathlib import Path

ROOT = Path(__file__).parents[1]

_LOADED = (
    *(f"shared_libs.cli.{name}" for name in ("running", "playing", "past", "examining", "checking", "evaluating")),
    *(f"shared_libs.cli.{name}" for name in ("simulating", "queueing", "indexing", "faulting", "live")),
    *(f"shared_libs.{name}" for name in ("factory.build", "tools.calculator", "testing.scenarios", "memory.sql")),
    *("shared_libs.observability.run_store", "shared_libs.atomic.llms.openai_llm", "shared_libs.limits.sql"),
    *("aiosqlite", "asyncpg", "sqlalchemy.dialects.postgresql.asyncpg", "sqlalchemy.dialects.sqlite.aiosqlite"),
    *("_pytest.config", "_pytest.terminal", "_pytest.python", "_pytest.fixtures", "pytest"),
)
_IS_READ = re.compile("PYTHON|LC_|LANG").match
_ASKING = threading.Lock()
_NUMBER = struct.Struct("!q")


class Program:
    """
    A process that runs `python ARGUMENTS` (`-m NAME …` or `-c CODE …`), as `subprocess.Popen` of bytes has it.

    Args:
        arguments: those of Python.
        cwd: its folder.
        env: its environment.
        streams: `stdin`, `stdout` and `stderr`: a descriptor, `PIPE`, `DEVNULL` or, for stderr, `STDOUT`.

    """

    def __init__(self, arguments, *, cwd, env, **streams):
        self.returncode = None
        opened = []
        theirs = {}
        for name, own in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
            wanted, ours = streams.get(name, own), None
            if wanted == subprocess.PIPE:
                reads, writes = os.pipe()
                wanted, kept = (reads, writes) if own == 0 else (writes, reads)
                ours = os.fdopen(kept, "wb", 0) if own == 0 else os.fdopen(kept, "rb")
                opened.append(wanted)
            elif wanted == subprocess.DEVNULL:
                wanted = os.open(os.devnull, os.O_RDWR)
                opened.append(wanted)
            theirs[name] = theirs["stdout"] if wanted == subprocess.STDOUT else wanted
            setattr(self, name, ours)
        start = tuple(sorted(before_any_code(env).items()))
        self._line, other = socket.socketpair()
        wanted = {"arguments": [os.fsdecode(each) for each in arguments], "cwd": str(cwd), "env": env}
        told = json.dumps(wanted).encode()
        with other, _ASKING:  # threads may start programs at once, and what one of them says is two sendings
            nursery = _nursery(start)
            socket.send_fds(nursery, [_NUMBER.pack(len(told))], [other.fileno(), *theirs.values()])
            nursery.sendall(told)
        for descriptor in opened:
            os.close(descriptor)
        self.pid = self._heard()

    def poll(self):
        """Return how it has ended, None while it runs."""
        with suppress(TimeoutError):
            self.wait(0)
        return self.returncode

    def wait(self, timeout=None):
        """Wait for its end; as `Popen`, but with a TimeoutError."""
        if self.returncode is None:
            self._line.settimeout(1e-9 if timeout == 0 else timeout)
            self.returncode = self._heard()
            self._line.close()
        return self.returncode

    def _heard(self):
        told = self._line.recv(_NUMBER.size, socket.MSG_WAITALL)
        assert told, "the nursery has ended"
        return _NUMBER.unpack(told)[0]

    def communicate(self, said=b"", timeout=None):
        """Say something, and read until it ends."""
        heard = {}

        def hear(stream):
            with stream:
                heard[stream] = stream.read()

        streams = [stream for stream in (self.stdout, self.stderr) if stream is not None]
        readers = [threading.Thread(target=hear, args=(stream,), daemon=True) for stream in streams]
        for reader in readers:
            reader.start()
        if self.stdin is not None:
            with suppress(BrokenPipeError):
                self.stdin.write(said or b"")
            self.stdin.close()
        try:
            self.wait(timeout)
        except TimeoutError as error:
            raise subprocess.TimeoutExpired("python", timeout) from error
        for reader in readers:
            reader.join(timeout)
        return heard.get(self.stdout), heard.get(self.stderr)

    def send_signal(self, number):
        """Send a signal, where it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        """End it."""
        self.send_signal(signal.SIGKILL)

    def terminate(self):
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                stream.close()
        self.wait()


def ran(*arguments, cwd=ROOT, env=None, timeout=120):
    """Run `python ARGUMENTS` to its end, as `subprocess.run` of texts."""
    env = dict(os.environ) if env is None else env
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Program(arguments, cwd=cwd, env=env, **streams) as process:
        said = [told.decode() for told in process.communicate(timeout=timeout)]
    return subprocess.CompletedProcess(arguments, process.returncode, *said)


def before_any_code(env):
    """Return what of an environment Python reads while it starts."""
    return {name: value for name, value in env.items() if _IS_READ(name) and name != "PYTHONPATH"}


@cache
def _nursery(start):
    """Start a nursery, which ends with this process; return the line to it."""
    ours, theirs = socket.socketpair()
    kept = {name: value for name, value in os.environ.items() if not _IS_READ(name)}
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.nursery", str(theirs.fileno())],
            cwd=ROOT,
            env=kept | dict(start) | {"PYTHONPATH": str(ROOT)},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )

    def end():
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def _serve(control):
    """Fork a program for each that is asked for, and tell how it ended, until nobody may ask any more."""
    for name in _LOADED:
        import_module(name)
    awake, waker = socket.socketpair()
    waker.settimeout(0)
    awake.settimeout(0)
    signal.set_wakeup_fd(waker.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running = {}
    with selectors.DefaultSelector() as either:
        either.register(control, selectors.EVENT_READ)
        either.register(awake, selectors.EVENT_READ)
        while True:
            for ready, _ in either.select():
                if ready.fileobj is awake:
                    awake.recv(4096)
                    _tell_ends(running)
                    continue
                size, given, _, _ = socket.recv_fds(control, _NUMBER.size, 4)
                if not size:
                    return
                line, *streams = given
                told = control.recv(_NUMBER.unpack(size)[0], socket.MSG_WAITALL)
                if not (pid := os.fork()):
                    either.close()
                    _become(json.loads(told), streams)
                for descriptor in streams:
                    os.close(descriptor)
                running[pid] = line
                os.write(line, _NUMBER.pack(pid))


def _tell_ends(running):
    with suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            line = running.pop(found[0])
            with suppress(BrokenPipeError):  # nobody waits for it
                os.write(line, _NUMBER.pack(os.waitstatus_to_exitcode(found[1])))
            os.close(line)


def _become(told, streams):
    """Be the program, in the forked process; does not return."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for own, given in enumerate(streams):
        os.dup2(given, own)
    os.closerange(3, max(streams) + 64)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)  # by lines where it is a terminal
    sys.stderr = os.fdopen(2, "w", 1, "utf-8", "backslashreplace", closefd=False)
    os.chdir(told["cwd"])
    os.environ.clear()
    os.environ.update(told["env"])
    code = 1
    try:
        paths = told["env"].get("PYTHONPATH", "").split(os.pathsep)
        sys.path[:] = [told["cwd"], *paths, *(path for path in sys.path if path != str(ROOT))]
        invalidate_caches()
        how, what, *arguments = told["arguments"]
        sys.argv = [what if how == "-m" else how, *arguments]
        if how == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(compile(what, "<string>", "exec"), sys.modules["__main__"].__dict__)
        code = 0
    except SystemExit as left:
        code = left.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with suppress(Exception):
            sys.stdout.flush()
        os._exit(code or 0)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
