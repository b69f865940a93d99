"""
How the work of every place that reads foreign text grows: `python -m bench.growth` prints its CPU at n, 2n, 4n and 8n.

Linear work is eight times as much in the last column as in the first, quadratic work 64 times. Tests hold most of these
places to less than 24 times (`tests/growth.py`); here stand the figures.
"""

from __future__ import annotations

import contextlib
import gc
import io
import time
from collections.abc import Callable
from typing import Any

from shared_libs.agents.react_text import read_react
from shared_libs.agents.reasoning import part
from shared_libs.agents.written_calls import written_calls
from shared_libs.atomic.json_schema import SchemaCheck, portable, portable_names
from shared_libs.atomic.llms.faults import refusal
from shared_libs.atomic.llms.framing import AnyFraming
from shared_libs.atomic.llms.openai_format import OpenAIAnswer
from shared_libs.atomic.llms.structured import OutputSchema
from shared_libs.atomic.llms.waits import duration_s
from shared_libs.atomic.nearest import names_like
from shared_libs.atomic.nearly_json import object_in
from shared_libs.atomic.page_text import readable
from shared_libs.atomic.tools.outcome import as_text
from shared_libs.atomic.types import ToolSpec
from shared_libs.cli.drawn import print_answer
from shared_libs.observability import redact_data, redact_text
from shared_libs.observability.printable import presentable
from shared_libs.retrieval.chunking import Chunker
from shared_libs.retrieval.types import Document
from shared_libs.tools import mcp_listing
from shared_libs.tools.mcp_messages import as_text as result_text
from shared_libs.tools.mcp_wire import messages

SEARCH = [ToolSpec("search", "", {"type": "object", "properties": {"query": {"type": "string"}}})]
ROWS = SchemaCheck({"type": "array", "items": {"type": "object", "properties": {"a": {"type": "integer"}}}}, "rows")
OUTPUT = OutputSchema({"type": "object"})
BACKTRACKING = SchemaCheck({"pattern": r"^(\w+\s?)*$"}, "text")
PIECE = b'{"choices":[{"delta":{"tool_calls":[{"index":%d,"id":"c%d","function":{"name":"f","arguments":"{}"}}]}}]}'


def of_calls(number: int) -> None:
    answer = OpenAIAnswer([])
    for index in range(number):
        answer.take(PIECE % (index, index))
    answer.response()


def refused(body: bytes) -> None:
    refusal(400, {}, body, ["a-secret"], "http://h/v1")


def printed(text: str) -> None:
    print_answer(f"# x\n{text}", io.StringIO())


def of_stream(body: bytes) -> None:
    framing = AnyFraming()
    for start in range(0, len(body), 100):
        framing.feed(body[start : start + 100])
    framing.end()


PLACES: dict[str, tuple[Callable[[Any], Any], Callable[[int], Any], int]] = {
    "redaction, a token in pieces": (redact_text, lambda n: "eyJaaaaa-" * n, 2_000),
    "redaction, names without values": (redact_text, lambda n: 'token="' * n, 2_000),
    "redaction of data": (redact_data, lambda n: [{"name": "x", "value": "y"}] * n, 2_000),
    "characters for a terminal": (presentable, lambda n: "\x1b[31mx\u202e" * n, 2_000),
    "schema, built": (lambda s: SchemaCheck(s, "x"), lambda n: {"properties": {f"p{k}": {} for k in range(n)}}, 400),
    "schema, as a model is told it": (portable, lambda n: {"properties": {f"p{k}": {} for k in range(n)}}, 400),
    "schema, names of properties": (portable_names, lambda n: {"properties": {f"p[{k}]": {} for k in range(n)}}, 400),
    "schema, values checked": (ROWS.problems, lambda n: [{"a": 1}] * n, 1_000),
    "schema, a pattern that backtracks": (BACKTRACKING.problems, lambda n: "a" * n + "!", 1_000),
    "calls of one answer, in pieces": (of_calls, lambda n: n, 100),
    "a stream, cut anywhere": (of_stream, lambda n: b'data: {"x":1}\n\n' * n, 2_000),
    "arguments that are nearly JSON": (object_in, lambda n: "{" + "'a': 1, // x\n" * n + "}", 200),
    "calls written into a text": (lambda t: written_calls(t, SEARCH), lambda n: "<tool_call>{" * n, 1_000),
    "a fence with nothing in it": (lambda t: written_calls(t, SEARCH), lambda n: "```json" + "\n" * n + "x", 2_000),
    "a provider's refusal": (refused, lambda n: b'{"error":{"message":"' + b"eyJaaaaaaaaaa-" * n + b'"}}', 500),
    "reasoning written into a text": (part, lambda n: "<think>a</think" * n, 1_000),
    "reasoning before an output": (OUTPUT.parse, lambda n: "<think>" * n + "{}", 1_000),
    "a wait in words": (duration_s, lambda n: "1" * n, 2_000),
    "a name that is not there": (lambda names: names_like("t" * 60, names), lambda n: ["t" * 64] * n, 100),
    "a long call's name": (lambda name: names_like(name, ["search"]), lambda n: "s" * n, 2_000),
    "an answer on a terminal": (printed, lambda n: "![" * n, 1_000),
    "a document in pieces": (Chunker().chunks, lambda n: Document(source="x", text="… word " * n), 500),
    "a turn of text ReAct": (lambda t: read_react(t, SEARCH), lambda n: "Action: a\nThought: " * n, 500),
    "a web page": (lambda page: readable(page, "http://h/"), lambda n: "<p a='<'>&amp;<!-- " * n, 1_000),
    "a result of a tool": (as_text, lambda n: [{"a": 1}] * n, 1_000),
    "a list of MCP tools": (lambda t: [*map(mcp_listing.read, t)], lambda n: [{"name": "a"}] * n, 1_000),
    "a line of an MCP server": (lambda line: [*messages(line)], lambda n: b'{"jsonrpc":"2.0","id":1,"x":"' * n, 1_000),
    "a result of an MCP tool": (result_text, lambda n: {"content": [{"type": "text", "text": "x"}] * n}, 1_000),
}


def cpu_ms(work: Callable[[Any], Any], given: Any) -> float:
    taken = []
    for _ in range(3):
        began = time.thread_time()
        with contextlib.suppress(Exception):  # a refusal is an answer too
            work(given)
        taken.append(1000 * (time.thread_time() - began))
    return min(taken)


def main() -> None:
    gc.disable()
    print(f"{'CPU in ms':36}{'n':>7}{'at n':>9}{'2n':>9}{'4n':>9}{'8n':>9}{'8n / n':>8}")
    for name, (work, made, start) in PLACES.items():
        taken = [cpu_ms(work, made(start << doubled)) for doubled in range(4)]
        row = "".join(f"{ms:9.2f}" for ms in taken)
        print(f"{name:36}{start:7}{row}{taken[-1] / max(taken[0], 0.001):8.1f}")
        gc.collect()


if __name__ == "__main__":
    main()
