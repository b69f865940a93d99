"""A fault server in a thread of its own, for clients that block, and for those on any event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from shared_libs.testing.faults.server import FaultServer, Script, SeenRequest

T = TypeVar("T")

_PATIENCE_S = 30.0
"""How long opening and closing may take; both are a matter of milliseconds."""


class BackgroundFaultServer:
    """
    A `FaultServer` on an event loop in a thread of its own, and thus on the real clock.

    Open it with `with`; at the end it raises what went wrong on its side.

    Args:
        models: the model's name at the provider, and its script; `"*"`: every other model.
        host: the address to listen on.
        port: the port to listen on; 0: a free one.

    Raises:
        MisuseError: a script is not valid.
        UnexpectedRequest: at the end: a request was for another path or model, or was no request.

    """

    def __init__(self, models: Mapping[str, Script], *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._server = FaultServer(models, host=host, port=port)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-server", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._run(self._server.__aenter__())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._run(self._server.__aexit__(kind, error, trace))
        finally:
            self._stop()

    @property
    def requests(self) -> list[SeenRequest]:
        """The requests so far."""
        return list(self._server.requests)

    @property
    def handshakes(self) -> int:
        """How many TLS handshakes were broken off, by either side."""
        return self._server.handshakes

    def url(self, format: str, model: str | None = None) -> str:
        """
        The base URL for a client, see `FaultServer.url`.

        Raises:
            MisuseError: there is no such format or model.

        """
        return self._server.url(format, model)

    def seen(self, model: str) -> list[SeenRequest]:
        """The requests for one model so far."""
        return [request for request in self.requests if request.model == model]

    def wait_until_asked(self, times: int, *, timeout_s: float = 10.0) -> None:
        """
        Wait until so many requests have come.

        Raises:
            TimeoutError: they did not come in time.

        """
        self._run(asyncio.wait_for(self._server.until_asked(times), timeout_s), timeout_s + _PATIENCE_S)

    def _run(self, work: Coroutine[Any, Any, T], patience_s: float = _PATIENCE_S) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(patience_s)

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_PATIENCE_S)
        if not self._thread.is_alive():
            self._loop.close()
