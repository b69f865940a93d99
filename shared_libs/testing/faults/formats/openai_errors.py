"""What OpenAI's APIs have in common: their address, and how they refuse."""

from __future__ import annotations

from shared_libs.testing.faults.formats.base import dumps

_TYPES = {
    "context": ("invalid_request_error", "context_length_exceeded"),
    "filter": ("invalid_request_error", "content_filter"),
    "bad_request": ("invalid_request_error", None),
    "key": ("invalid_request_error", "invalid_api_key"),
    "permission": ("permission_error", None),
    "model": ("invalid_request_error", "model_not_found"),
    "rate": ("requests", "rate_limit_exceeded"),
    "server": ("server_error", None),
}


class OpenAIErrors:
    """Below `/v1`, with an error object."""

    base = "/v1"
    stream_type = "text/event-stream"
    streams_unasked = False

    def error(self, status: int, code: str, message: str) -> bytes:
        """The body of a refusal."""
        kind, name = _TYPES.get(code, ("server_error", None))
        return dumps({"error": {"message": message, "type": kind, "param": None, "code": name}})

    def context_message(self) -> str:
        """How the provider says that a conversation is too long."""
        return "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens."
