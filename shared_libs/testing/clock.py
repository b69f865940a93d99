"""
The virtual clock: an event loop whose time jumps to the next timer when nothing else is to do.

Whatever waits for something outside the loop (a thread, a socket, another process) holds the clock by `real_time`;
meanwhile a wait takes as long as it really does. So a backoff of minutes costs nothing, and no timeout of a real tool
is jumped over while the tool works.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

_UNIX = getattr(socket, "AF_UNIX", None)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop with a clock of its own, in seconds from 0."""

    def __init__(self) -> None:
        self._now = 0.0
        self._holders = 0
        self.held_s = 0.0
        """How many seconds passed by while the clock was held."""
        self._servers: list[asyncio.Server] = []
        super().__init__(_Jumping(self))

    def time(self) -> float:
        """Seconds since the loop was made: jumped over, or waited for while the clock was held."""
        return self._now

    @property
    def held(self) -> bool:
        """Whether somebody waits for what is outside, so that a wait takes as long as it really does."""
        return self._holders > 0

    def hold(self) -> None:
        """Have waits take as long as they really do, until `release`; several may hold the clock."""
        self._holders += 1

    def release(self) -> None:
        """Undo one `hold`."""
        self._holders -= 1

    def pass_by(self, seconds: float) -> None:
        """Move the clock on."""
        self._now += seconds

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        """Run a function in a thread, and hold the clock until it is done."""
        future = super().run_in_executor(executor, func, *args)
        self.hold()
        future.add_done_callback(lambda _: self.release())
        return future

    async def create_server(self, *args: Any, **options: Any) -> asyncio.Server:
        """Serve on this loop, which connections from it may reach."""
        server = await super().create_server(*args, **options)
        self._servers.append(server)
        return server

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """
        Connect to a server of this loop, or to any while the clock is held.

        Raises:
            RuntimeError: the clock would run away from the other side.

        """
        if self.held or self._serves(address):
            await super().sock_connect(sock, address)
            return
        with real_time():
            await super().sock_connect(sock, address)  # where nobody listens, that is all there is to say
        where = ":".join(map(str, address[:2])) if isinstance(address, tuple) else str(address)
        raise RuntimeError(
            f"a connection to {where} on the virtual clock, whose time would run away from it: use the real one "
            "(`clock: real`), or connect inside `shared_libs.testing.real_time()`"
        )

    def _serves(self, address: Any) -> bool:
        ports = {own.getsockname()[1] for server in self._servers for own in server.sockets if own.family != _UNIX}
        return isinstance(address, tuple) and address[1] in ports

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """End the executor's threads, which are outside."""
        self.hold()
        try:
            await super().shutdown_default_executor(*(() if timeout is None else (timeout,)))
        finally:
            self.release()


class _Jumping(selectors.DefaultSelector):
    """Asks what is ready; where nothing is and nobody holds the clock, it moves the clock and not the caller."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready: list[tuple[selectors.SelectorKey, int]]
        if self._loop.held:
            began_at = time.monotonic()
            ready = super().select(timeout)
            passed_s = time.monotonic() - began_at if timeout != 0 else 0.0
            self._loop.held_s += passed_s
            self._loop.pass_by(passed_s)
            return ready
        if timeout is None or timeout <= 0:
            ready = super().select(timeout)
            return ready
        ready = super().select(0)
        if not ready:
            self._loop.pass_by(timeout)
        return ready


@contextmanager
def real_time() -> Iterator[None]:
    """Hold the virtual clock while something outside the loop is waited for; on a real clock, nothing."""
    loop = asyncio.get_running_loop()
    if not isinstance(loop, VirtualLoop):
        yield
        return
    loop.hold()
    try:
        yield
    finally:
        loop.release()


class VirtualClock:
    """Runs coroutines one after the other, each on a virtual clock of its own; `elapsed_s` sums what passed by it."""

    def __init__(self) -> None:
        self.elapsed_s = 0.0

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end."""
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            try:
                return runner.run(main)
            finally:
                self.elapsed_s += runner.get_loop().time()


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a virtual clock of its own, as `asyncio.run` does on the real one."""
    return VirtualClock().run(main)
