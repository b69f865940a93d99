"""A local model as connections: a process of its own, started on first use, that speaks OpenAI's format on loopback."""

from __future__ import annotations

import asyncio
import re
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import msgspec

from shared_libs.atomic.errors import LLMConnectionError, ProviderUnavailable, StreamInterrupted
from shared_libs.atomic.llms.event_stream import EventStream
from shared_libs.atomic.llms.framing import Framing
from shared_libs.atomic.llms.local_worker import READY
from shared_libs.atomic.llms.reasons import MAX_REASON_CHARS
from shared_libs.atomic.llms.wire import Wire

SLOTS = 2
"""How many calls a process works on at a time; further ones wait inside it, in the order they came."""

LOAD_WITHIN_S = 120.0
"""How long a model may take to load, whether or not a call still waits for it."""

STOP_WITHIN_S = 1.0
"""How long the engine may go on with calls that were cancelled, before its process is replaced."""

LOOK_EVERY_S = 0.02
"""How often an engine with cancelled calls is asked whether it is through with them."""

END_WITHIN_S = 0.5
"""How long the end of a process may take to be noticed, once its output has ended or a connection has broken."""

MAX_OUTPUT_BYTES = 4096

_WORKER = Path(__file__).with_name("local_worker.py")
_READY = re.compile(rb"\n" + READY.encode() + rb"(\S+)\r?\n")


class Loaded(msgspec.Struct, frozen=True):
    """What a process has to load, and how; `context_window` is each call's own."""

    file: str
    name: str
    threads: int
    context_window: int
    slots: int = SLOTS


class LocalEngine:
    """
    The connections to one local model: the same as `Wire`, with the process behind it.

    The process belongs to the event loop it was started in and ends with it, with `aclose`, or with ours. One that has
    died is replaced by the next call.
    """

    secrets: tuple[str, ...] = ()

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._processes: WeakKeyDictionary[asyncio.AbstractEventLoop, _Process] = WeakKeyDictionary()

    async def post(self, path: str, body: bytes) -> bytes:
        """
        Send a request and return the body of a successful answer.

        Raises:
            LLMError: there was no answer, or it was a refusal.

        """
        async with self._process() as wire:
            return await wire.post(path, body)

    @asynccontextmanager
    async def stream(self, path: str, body: bytes, framing: Framing | None = None) -> AsyncIterator[EventStream]:
        """
        Send a request and read its answer as it comes.

        Raises:
            LLMError: there was no answer, or it was a refusal. Iterating raises `StreamInterrupted` when it breaks off.

        """
        async with self._process() as wire, wire.stream(path, body, framing) as events:
            yield events

    async def aclose(self) -> None:
        """End the process of the running event loop."""
        process = self._processes.pop(asyncio.get_running_loop(), None)
        if process is not None:
            await process.end()

    @asynccontextmanager
    async def _process(self) -> AsyncIterator[Wire]:
        loop = asyncio.get_running_loop()
        if known := self._processes.get(loop):
            await known.settled()
        process = self._processes.get(loop)  # which another call may have replaced meanwhile
        if process is None or process.gone:
            process = self._processes[loop] = _Process(self._loaded)
        async with process.call() as wire:
            yield wire


class _Process:
    """
    One process, from its start to its end.

    A task holds it, so that an event loop that cancels its tasks before it closes leaves no process behind.
    """

    def __init__(self, loaded: Loaded) -> None:
        loop = asyncio.get_running_loop()
        self._loaded = loaded
        self._key = secrets.token_urlsafe()
        self._output = b""
        self._returncode: int | None = None
        self._address = ""
        self._calls = 0
        self._cut = False
        self._settling: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[Wire] = loop.create_future()
        self._ready.add_done_callback(lambda done: done.exception())  # whether or not a call still waits for it
        self._life = loop.create_task(self._live())

    @property
    def gone(self) -> bool:
        """Whether it can take no call any more."""
        return self._life.done() or self._life.cancelling() > 0

    @asynccontextmanager
    async def call(self) -> AsyncIterator[Wire]:
        """Lend the wire for one call."""
        # a call that gives up while the model is loading leaves it to the next one
        wire = await asyncio.shield(self._ready)
        self._calls += 1
        try:
            yield wire
        except (LLMConnectionError, StreamInterrupted) as error:
            await asyncio.wait([self._life], timeout=END_WITHIN_S)
            if self.gone:
                raise ProviderUnavailable(f"the process of {self._loaded.name} ended {self._how()}") from error
            raise
        except (asyncio.CancelledError, GeneratorExit):
            self._cut = True
            raise
        finally:
            self._calls -= 1
            if self._cut and not self._calls and not self.gone:
                self._cut = False
                self._settling = asyncio.get_running_loop().create_task(self._settle())

    async def settled(self) -> None:
        """Wait until the engine is through with the calls that were cancelled, or is ended."""
        if self._settling is not None:
            await asyncio.wait([self._settling])

    async def end(self) -> None:
        """End the process, whatever it is at."""
        if self._settling is not None:
            self._settling.cancel()
        self._life.cancel()
        await asyncio.wait([self._life])

    async def _settle(self) -> None:
        """End the process if it does not stop: a prompt that it has begun it reads to the end, whoever has gone."""
        try:
            async with asyncio.timeout(STOP_WITHIN_S):
                while await self._busy():  # noqa: ASYNC110 - another process has no event to wait for
                    await asyncio.sleep(LOOK_EVERY_S)
        except (TimeoutError, OSError):
            if not self._calls:
                self._life.cancel()
                await asyncio.wait([self._life])

    async def _busy(self) -> bool:
        address = urlsplit(self._address)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        try:
            writer.write(f"GET /slots HTTP/1.0\r\nAuthorization: Bearer {self._key}\r\n\r\n".encode())
            return b'"is_processing":true' in await reader.read()
        finally:
            writer.close()

    async def _live(self) -> None:
        """Start the process, attend to it, and end it."""
        process, why = None, ""
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # what lies beside the worker is not for it
                str(_WORKER),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,  # an interrupt from the keyboard is for the parent to handle
            )
            await self._attend(process)
            # its output has ended, so it has; a signal sent now would take its exit code from whoever waits for it
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), END_WITHIN_S)
        except TimeoutError:
            why = f" within {LOAD_WITHIN_S:g} s"
        except OSError as error:
            why = f": {error}"
        finally:
            if process is not None:
                if process.returncode is None:
                    with suppress(ProcessLookupError):
                        process.kill()
                self._returncode = await process.wait()
            if self._ready.done():
                await self._ready.result().aclose()
            else:
                closed = self._life.cancelling() > 0
                why = why or (", it was closed" if closed else f": its process ended {self._how()}")
                self._ready.set_exception(
                    ProviderUnavailable(f"{self._loaded.name} was not loaded{why}", retryable=closed)
                )

    async def _attend(self, process: asyncio.subprocess.Process) -> None:
        """Have the model loaded, then read what the process says, to its end."""
        assert process.stdin is not None
        assert process.stdout is not None
        async with asyncio.timeout(LOAD_WITHIN_S):
            process.stdin.write(msgspec.json.encode({**msgspec.structs.asdict(self._loaded), "key": self._key}) + b"\n")
            with suppress(ConnectionError):  # it has ended already, and its output says why
                await process.stdin.drain()
            while not (found := _READY.search(self._output)):
                if not await self._hear(process.stdout):
                    return
        self._address, self._output = found[1].decode(), b""
        # the server closes a connection behind a stream without a word: the next request on it would be lost
        headers = {"Authorization": f"Bearer {self._key}", "Connection": "close"}
        self._ready.set_result(Wire(f"{self._address}/v1", headers))
        while await self._hear(process.stdout):
            pass

    async def _hear(self, output: asyncio.StreamReader) -> bool:
        said = await output.read(MAX_OUTPUT_BYTES)
        self._output = (self._output + said)[-MAX_OUTPUT_BYTES:]
        return bool(said)

    def _how(self) -> str:
        """How the process ended: its exit code or signal, and its last words."""
        code = self._returncode or 0
        last = self._output.decode(errors="replace").strip()[-MAX_REASON_CHARS:]
        return (f"by signal {-code}" if code < 0 else f"with exit code {code}") + (f": {last}" if last else "")
