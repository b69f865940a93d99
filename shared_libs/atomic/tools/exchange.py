"""What is said between us and a worker process: frames on a socket, a call in, an answer out."""

from __future__ import annotations

import socket
from typing import Any

import msgspec

MAX_FRAME = 64 << 20
"""Bytes of the largest frame; who announces a larger one is taken for gone."""


class Call(msgspec.Struct, frozen=True):
    """One call on its way to a worker; `until` is its deadline on the machine's monotonic clock."""

    arguments: Any
    until: float
    run_id: str
    step: int
    call_id: str
    max_observation_chars: int
    memory_limit_mb: int | None
    cpu_limit_s: float | None


class Answer(msgspec.Struct, frozen=True):
    """What a worker says; one that is not `reusable` has something left that must end with it."""

    content: str
    is_error: bool = False
    reusable: bool = True


def send(channel: socket.socket, frame: bytes) -> None:
    """Send one frame: its length in four bytes, then itself."""
    channel.sendall(len(frame).to_bytes(4, "big") + frame)


def receive(channel: socket.socket) -> bytes | None:
    """Return the next frame; None when the other end is gone, or says what no end of ours does."""
    head = _exactly(channel, 4)
    size = None if head is None else int.from_bytes(head, "big")
    return None if size is None or size > MAX_FRAME else _exactly(channel, size)


def _exactly(channel: socket.socket, size: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        try:
            part = channel.recv(min(size - len(parts), 1 << 20))
        except OSError:
            return None
        if not part:
            return None
        parts += part
    return bytes(parts)
