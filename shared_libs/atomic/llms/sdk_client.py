"""A vendor's SDK client as the wire: its authentication, its address and its transport, for whoever needs them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

import httpx2
import msgspec

from shared_libs.atomic.errors import LLMConnectionError, LLMError, LLMTimeout, StreamInterrupted
from shared_libs.atomic.llms.event_stream import EventStream
from shared_libs.atomic.llms.faults import redacted, refusal
from shared_libs.atomic.llms.framing import AnyFraming, Framing
from shared_libs.atomic.propagation import PATIENCE, patience_s


class ClientWire:
    """
    The same as `Wire`, sent through a client of the caller's, who owns and closes it.

    Args:
        client: an `AsyncOpenAI` or `AsyncAnthropic`, or one of their kinds.
        sdk: the package it comes from: the vendors' SDKs have the same generator, and so the same shape.

    Only its generic `post` is used: what its resources do to every message costs more than all the rest. It makes no
    retries here, whatever it was told: there is one owner of retries.
    """

    def __init__(self, client: Any, sdk: str) -> None:
        self._client = client.with_options(max_retries=0)
        self._sdk = import_module(sdk)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The keys as they are now; a client may change them."""
        held = (getattr(self._client, name, None) for name in ("api_key", "auth_token"))
        return tuple(key for key in held if isinstance(key, str) and key)

    async def post(self, path: str, body: bytes) -> bytes:
        """
        Send a request and return the body of a successful answer.

        Raises:
            LLMError: there was no answer, or it was a refusal.

        """
        response = await self._send(path, body, stream=False)
        return response.content

    @asynccontextmanager
    async def stream(self, path: str, body: bytes, framing: Framing | None = None) -> AsyncIterator[EventStream]:
        """
        Send a request and read its answer as it comes.

        Raises:
            LLMError: there was no answer, or it was a refusal. Iterating raises `StreamInterrupted` when it breaks off.

        """
        response = await self._send(path, body, stream=True)
        try:
            yield EventStream(_reader(response), framing or AnyFraming())
        finally:
            await response.aclose()

    async def aclose(self) -> None:
        """Nothing: the client belongs to the caller."""

    async def _send(self, path: str, body: bytes, *, stream: bool) -> httpx2.Response:
        # as a dict, because a client may read it: Azure's makes the address from the model
        request = msgspec.json.decode(body)
        sdk, left_s = self._sdk, patience_s()
        options = {} if left_s is None else {"headers": {PATIENCE: f"{left_s:.3f}"}}
        try:
            answer: httpx2.Response = await self._client.post(
                path, cast_to=httpx2.Response, body=request, options=options, stream=stream, stream_cls=None
            )
        except sdk.APIStatusError as error:
            where, refused = str(error.request.url.copy_with(query=None)), error.response
            raise refusal(error.status_code, refused.headers, refused.content, self.secrets, where) from None
        except sdk.APITimeoutError as error:
            raise LLMTimeout(f"the client gave up waiting for {error.request.url.host}") from error
        except sdk.APIConnectionError as error:
            why = redacted(str(error.__cause__ or error), self.secrets)
            raise LLMConnectionError(f"no answer from {error.request.url.host}: {why}") from error
        except (sdk.APIError, getattr(sdk, "OpenAIError", sdk.APIError), TypeError) as error:
            raise LLMError(f"the {sdk.__name__} client failed: {redacted(str(error), self.secrets)}") from error
        return answer


def _reader(response: Any) -> Callable[[], Coroutine[Any, Any, bytes]]:
    pieces = response.aiter_bytes()

    async def read() -> bytes:
        try:
            return await anext(pieces, b"")
        except Exception as error:  # the client's transport is foreign code, of one of two HTTP libraries
            raise StreamInterrupted(f"the stream broke off: {type(error).__name__}: {error}") from error

    return read
