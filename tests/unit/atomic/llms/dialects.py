"""The wire formats of the providers, for the suite that all of them have to pass."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from shared_libs.atomic.llms.anthropic_llm import AnthropicLLM
from shared_libs.atomic.llms.http_llm import HttpLLM
from shared_libs.atomic.llms.ollama_llm import OllamaLLM
from shared_libs.atomic.llms.openai_llm import OpenAILLM
from tests.wire_server import Play, Seen, WireServer, reply, sse, stream

KEY = "sk-test-0123456789"
Call = tuple[str, str, dict[str, Any]]
"""The id, the name and the arguments of a tool call."""


def dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


class Dialect(ABC):
    """How a provider says things. Usage is always 7 tokens in and 3 out, the model's name "m-2026"."""

    provider: ClassVar[type[HttpLLM]]
    prefix: ClassVar[str]
    path: ClassVar[str]
    arguments: ClassVar[dict[str, Any]] = {}

    @property
    def name(self) -> str:
        return "-".join([self.provider.provider, *self.arguments.values()])

    def llm(self, server: WireServer, **arguments: Any) -> HttpLLM:
        model = arguments.pop("model", "m")
        base_url = f"http://127.0.0.1:{server.port}{self.prefix}"
        return self.provider(model, api_key=KEY, base_url=base_url, **self.arguments, **arguments)

    def question(self, seen: Seen) -> str:
        """The text of the last message of a request."""
        content = seen.body["messages"][-1]["content"]
        return content if isinstance(content, str) else content[-1]["text"]

    @abstractmethod
    def whole(self, text: str, calls: Sequence[Call] = (), *, cut_short: bool = False) -> Play: ...

    @abstractmethod
    def events(self, texts: Sequence[str], calls: Sequence[Call] = (), thinking: str = "") -> list[bytes]: ...

    @abstractmethod
    def error(self, message: str) -> dict[str, Any]: ...

    def stream(self, texts: Sequence[str], calls: Sequence[Call] = (), thinking: str = "") -> Play:
        return stream(self.events(texts, calls, thinking))

    def cut_off(self, text: str) -> Play:
        """A stream that ends properly, but before the model's last word."""
        return stream(self.events([text])[: self.told])

    told: ClassVar[int]
    """How many events of a one-word answer come before its end."""


class OpenAIDialect(Dialect):
    provider, prefix, path, told = OpenAILLM, "/v1", "/v1/chat/completions", 1

    def whole(self, text, calls=(), *, cut_short=False):
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if calls:
            message["tool_calls"] = [
                {"id": call_id, "type": "function", "function": {"name": name, "arguments": dumps(given)}}
                for call_id, name, given in calls
            ]
        finish = "length" if cut_short else "tool_calls" if calls else "stop"
        choice = {"index": 0, "message": message, "finish_reason": finish}
        return reply({"model": "m-2026", "choices": [choice], "usage": self._usage})

    def events(self, texts, calls=(), thinking=""):
        pieces: list[dict[str, Any]] = [{"reasoning": thinking}] if thinking else []
        pieces += [{"content": text} for text in texts]
        for index, (call_id, name, given) in enumerate(calls):
            raw = dumps(given)
            pieces.append(
                {"tool_calls": [{"index": index, "id": call_id, "function": {"name": name, "arguments": raw[:3]}}]}
            )
            pieces.append({"tool_calls": [{"index": index, "function": {"arguments": raw[3:]}}]})
        chunks = [{"choices": [{"delta": piece}]} for piece in pieces]
        finish = {"choices": [{"delta": {}, "finish_reason": "tool_calls" if calls else "stop"}]}
        return sse(*chunks, finish, {"model": "m-2026", "choices": [], "usage": self._usage}, "[DONE]")

    def error(self, message):
        return {"error": {"message": message, "type": "server_error"}}

    _usage: ClassVar = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


class ResponsesDialect(Dialect):
    provider, prefix, path, told = OpenAILLM, "/v1", "/v1/responses", 4
    arguments: ClassVar = {"api": "responses"}

    def question(self, seen):
        content = seen.body["input"][-1]["content"]
        return content if isinstance(content, str) else content[-1]["text"]

    def whole(self, text, calls=(), *, cut_short=False):
        items = [self._message(text)] if text else []
        return reply(self._response([*items, *map(self._call, calls)], cut_short=cut_short))

    def events(self, texts, calls=(), thinking=""):
        events: list[dict[str, Any]] = [{"type": "response.created", "response": self._response(None)}]
        items: list[dict[str, Any]] = []
        if thinking:
            part = {"type": "summary_text", "text": thinking}
            pieces = [{"type": "response.reasoning_summary_text.delta", "summary_index": 0, "delta": thinking}]
            reasoning = {"type": "reasoning", "id": "rs_1", "summary": [part], "encrypted_content": "sealed"}
            events += self._item(items, reasoning, reasoning | {"summary": [], "encrypted_content": "half"}, pieces)
        if texts:
            part = {"type": "output_text", "text": "", "annotations": []}
            pieces = [{"type": "response.content_part.added", "content_index": 0, "part": part}]
            pieces += [{"type": "response.output_text.delta", "content_index": 0, "delta": text} for text in texts]
            pieces.append({"type": "response.output_text.done", "content_index": 0, "text": "".join(texts)})
            message = self._message("".join(texts))
            events += self._item(items, message, message | {"content": []}, pieces)
        for call in calls:
            made = self._call(call)
            raw, kind = made["arguments"], "response.function_call_arguments"
            pieces = [{"type": f"{kind}.delta", "delta": piece} for piece in (raw[:3], raw[3:])]
            pieces.append({"type": f"{kind}.done", "arguments": raw})
            events += self._item(items, made, made | {"arguments": "", "status": "in_progress"}, pieces)
        events.append({"type": "response.completed", "response": self._response(items)})
        numbered = [event | {"sequence_number": number} for number, event in enumerate(events)]
        return [f"event: {event['type']}\n".encode() + data for event in numbered for data in sse(event)]

    def error(self, message):
        return {"error": {"message": message, "type": "server_error"}}

    def _item(self, items, item, opened, pieces):
        index = len(items)
        items.append(item)
        return [
            {"type": "response.output_item.added", "output_index": index, "item": opened},
            *({"output_index": index, "item_id": item["id"]} | piece for piece in pieces),
            {"type": "response.output_item.done", "output_index": index, "item": item},
        ]

    def _message(self, text):
        part = {"type": "output_text", "text": text, "annotations": []}
        return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}

    def _call(self, call):
        call_id, name, given = call
        made = {"type": "function_call", "id": f"fc_{call_id}", "call_id": call_id, "name": name}
        return made | {"arguments": dumps(given), "status": "completed"}

    def _response(self, items, *, cut_short=False):
        response = {"id": "resp_1", "object": "response", "model": "m-2026", "error": None, "incomplete_details": None}
        if items is None:
            return response | {"status": "in_progress", "output": []}
        usage = {
            "input_tokens": 7,
            "output_tokens": 3,
            "total_tokens": 10,
            "input_tokens_details": {"cached_tokens": 0},
        }
        why = {"incomplete_details": {"reason": "max_output_tokens"}} if cut_short else {}
        status = "incomplete" if cut_short else "completed"
        return response | {"status": status, "output": items, "usage": usage} | why


class AnthropicDialect(Dialect):
    provider, prefix, path, told = AnthropicLLM, "", "/v1/messages", 3

    def whole(self, text, calls=(), *, cut_short=False):
        content: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
        content += [{"type": "tool_use", "id": call_id, "name": name, "input": given} for call_id, name, given in calls]
        usage = {"input_tokens": 7, "output_tokens": 3}
        stop = "max_tokens" if cut_short else "tool_use" if calls else "end_turn"
        return reply({"type": "message", "model": "m-2026", "content": content, "stop_reason": stop, "usage": usage})

    def events(self, texts, calls=(), thinking=""):
        start = {"content": [], "model": "m-2026", "usage": {"input_tokens": 7, "output_tokens": 1}}
        events: list[dict[str, Any]] = [{"type": "message_start", "message": start}]
        blocks: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
        if thinking:
            pieces = [{"type": "thinking_delta", "thinking": thinking}, {"type": "signature_delta", "signature": "s1"}]
            blocks.append(({"type": "thinking", "thinking": ""}, pieces))
        if texts:
            blocks.append(({"type": "text", "text": ""}, [{"type": "text_delta", "text": text} for text in texts]))
        for call_id, name, given in calls:
            raw = dumps(given)
            pieces = [{"type": "input_json_delta", "partial_json": part} for part in ("", raw[:3], raw[3:])]
            blocks.append(({"type": "tool_use", "id": call_id, "name": name, "input": {}}, pieces))
        for index, (block, pieces) in enumerate(blocks):
            events.append({"type": "content_block_start", "index": index, "content_block": block})
            events += [{"type": "content_block_delta", "index": index, "delta": piece} for piece in pieces]
            events.append({"type": "content_block_stop", "index": index})
        stop = {"stop_reason": "tool_use" if calls else "end_turn"}
        events.append({"type": "message_delta", "delta": stop, "usage": {"output_tokens": 3}})
        events.append({"type": "message_stop"})
        return [f"event: {event['type']}\n".encode() + data for event in events for data in sse(event)]

    def error(self, message):
        return {"type": "error", "error": {"type": "api_error", "message": message}}


class OllamaDialect(Dialect):
    provider, prefix, path, told = OllamaLLM, "", "/api/chat", 1

    def whole(self, text, calls=(), *, cut_short=False):
        return reply(self._line(text, calls) | self._end("length" if cut_short else "stop"))

    def events(self, texts, calls=(), thinking=""):
        lines = [{"message": {"role": "assistant", "content": "", "thinking": thinking}}] if thinking else []
        lines += [self._line(text) for text in texts]
        lines += [self._line("", [call]) for call in calls]
        lines.append(self._line("") | self._end("stop"))
        return [dumps({"model": "m-2026", "done": False} | line).encode() + b"\n" for line in lines]

    def stream(self, texts, calls=(), thinking=""):
        return stream(self.events(texts, calls, thinking), "application/x-ndjson")

    def cut_off(self, text):
        return stream(self.events([text])[: self.told], "application/x-ndjson")

    def error(self, message):
        return {"error": message}

    def _line(self, text, calls=()):
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if calls:
            made = [{"id": call_id, "function": {"name": name, "arguments": given}} for call_id, name, given in calls]
            message["tool_calls"] = made
        return {"message": message}

    def _end(self, reason):
        return {"model": "m-2026", "done": True, "done_reason": reason, "prompt_eval_count": 7, "eval_count": 3}


DIALECTS = [OpenAIDialect(), ResponsesDialect(), AnthropicDialect(), OllamaDialect()]
