"""
A loopback server in OpenAI's format, in a process of its own: two turns of tool calls, then an answer.

It speaks as much HTTP as the clients of the benches need, and no more, so that it is not what a bench measures.

`python -m bench.server PORT DELAY_S` serves until its stdin closes.
"""

from __future__ import annotations

import asyncio
import re
import sys

import msgspec

TURNS = 2


def _message(request: dict) -> tuple[dict, str]:
    done = sum(1 for message in request["messages"] if message["role"] == "tool")
    if done >= TURNS:
        return {"role": "assistant", "content": "The sum is 3 and its double is 6."}, "stop"
    name = ("add", "double")[done]
    call = {"id": f"call_{done}", "type": "function", "function": {"name": name, "arguments": '{"a":1,"b":2}'}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls"


USAGE = {"prompt_tokens": 50, "completion_tokens": 10, "total_tokens": 60}


def body_of(kind: str, choice: dict, usage: dict | None = None) -> dict:
    return {"id": "c", "object": kind, "created": 1, "model": "bench", "choices": [choice], "usage": usage}


def _events(message: dict, reason: str) -> list[bytes]:
    deltas = [{"role": "assistant", "content": ""}]
    if message.get("tool_calls"):
        deltas += [{"tool_calls": [{"index": 0, **message["tool_calls"][0]}]}]
    else:
        deltas += [{"content": f"{word} "} for word in message["content"].split()]
    chunks = [body_of("chat.completion.chunk", {"index": 0, "delta": delta, "finish_reason": None}) for delta in deltas]
    chunks.append(body_of("chat.completion.chunk", {"index": 0, "delta": {}, "finish_reason": reason}, USAGE))
    return [*(b"data: " + msgspec.json.encode(chunk) + b"\n\n" for chunk in chunks), b"data: [DONE]\n\n"]


class Connection(asyncio.Protocol):
    """One client's connection; every answer takes `delay_s` seconds."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._loop = asyncio.get_running_loop()
        self._came = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._came += data
        head, found, rest = self._came.partition(b"\r\n\r\n")
        length = int(re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)[1]) if found else 0
        if not found or len(rest) < length:
            return
        self._came = rest[length:]
        asked = msgspec.json.decode(rest[:length])
        if self._delay_s:
            self._loop.call_later(self._delay_s, self._answer, asked)
        else:
            self._answer(asked)

    def _answer(self, asked: dict) -> None:
        message, reason = _message(asked)
        if asked.get("stream"):
            self._write(b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            for event in _events(message, reason):
                self._transport.write(b"%x\r\n%b\r\n" % (len(event), event))
            self._transport.write(b"0\r\n\r\n")
            return
        choice = {"index": 0, "message": message, "finish_reason": reason}
        body = msgspec.json.encode(body_of("chat.completion", choice, USAGE))
        self._write(b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

    def _write(self, rest: bytes) -> None:
        self._transport.write(b"HTTP/1.1 200 OK\r\n" + rest)


async def _serve(port: int, delay_s: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(delay_s), "127.0.0.1", port, backlog=2048)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), float(sys.argv[2])))
