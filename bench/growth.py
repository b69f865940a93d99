"""
How the work of every place that reads foreign text grows: `python -m bench.growth` prints its CPU at n, 2n, 4n and 8n.

Linear work is eight times as much in the last column as in the first, quadratic work 64 times. A test holds each of
these places to less than 24 times (`tests/unit/test_growth.py`); here stand the figures. What is larger than its bound
(a query of a graph) is refused at once and costs nothing.

Not here, for it runs where it is ended with its time: statements of SQLite, Python of a model, and files in the formats
of offices and of print.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import time
import zipfile
from collections.abc import Callable
from typing import Any

from shared_libs.agents.react_text import read_react
from shared_libs.agents.reasoning import part
from shared_libs.agents.written_calls import written_calls
from shared_libs.atomic.addresses import without_addresses
from shared_libs.atomic.command_lines import without_secrets
from shared_libs.atomic.database_url import database_url
from shared_libs.atomic.events import decode_event
from shared_libs.atomic.json_schema import SchemaCheck, portable, portable_names
from shared_libs.atomic.llms.embedding import read_embeddings
from shared_libs.atomic.llms.faults import refusal
from shared_libs.atomic.llms.framing import AnyFraming
from shared_libs.atomic.llms.lenient import parsed
from shared_libs.atomic.llms.openai_format import OpenAIAnswer
from shared_libs.atomic.llms.payload import page_title, values_in
from shared_libs.atomic.llms.reasons import read_reason
from shared_libs.atomic.llms.structured import OutputSchema
from shared_libs.atomic.llms.waits import duration_s
from shared_libs.atomic.nearest import names_like
from shared_libs.atomic.nearly_json import keywords_in, object_in
from shared_libs.atomic.page_text import readable
from shared_libs.atomic.tools.docstring import read_docstring
from shared_libs.atomic.tools.outcome import as_text
from shared_libs.atomic.types import ToolSpec
from shared_libs.atomic.whole import whole_text
from shared_libs.cli.drawn import print_answer, table_of
from shared_libs.factory.environment import variables
from shared_libs.factory.source import read_data, read_text
from shared_libs.observability import redact_data, redact_text
from shared_libs.observability.printable import presentable
from shared_libs.observability.runs.words import words_of
from shared_libs.retrieval.chunking import Chunker
from shared_libs.retrieval.citing import check_citations
from shared_libs.retrieval.cypher_guard import read_query
from shared_libs.retrieval.extraction import read_answer
from shared_libs.retrieval.packed_texts import mail, notebook, without_hidden
from shared_libs.retrieval.plain_texts import text_of
from shared_libs.retrieval.types import Document
from shared_libs.retrieval.words import terms
from shared_libs.service.faces.anthropic_messages import read_request
from shared_libs.service.faces.openai_chat import read_chat
from shared_libs.service.faces.responses_request import read_response
from shared_libs.testing.cassettes.file import cassette_of
from shared_libs.testing.scenarios.scenario import scenarios_of
from shared_libs.tools import mcp_listing
from shared_libs.tools.http_guard import AllowList
from shared_libs.tools.mcp_messages import as_text as result_text
from shared_libs.tools.mcp_wire import Events, answer_in, messages

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


def of_mcp_stream(body: bytes) -> None:
    events = Events(1 << 24)
    for start in range(0, len(body), 100):
        events.feed(body[start : start + 100])
    events.end()


def of_word(pieces: int) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("word/document.xml", "<w:r><w:rPr><w:vanish/></w:rPr><w:t>x</w:t></w:r>" * pieces)
    return packed.getvalue()


def asked(message: Any, many: int, *, under: str = "messages") -> dict[str, Any]:
    return {"model": "m", "max_tokens": 9, under: [message] * many}


USER = {"role": "user", "content": "x"}
MAIL = b"Subject: x\nContent-Type: multipart/mixed; boundary=b\n\n"
PART = b"--b\nContent-Type: text/plain\n\nx\n"
CELL = {"cell_type": "code", "source": ["x\n"]}
FOUND = {"name": "x", "type": "y"}
SCENARIO = {"scenario": "s", "agent": {"name": "a"}, "question": "q"}
EXCHANGE = "- request: {model: m}\n  response: {text: x}\n"

PLACES: dict[str, tuple[Callable[[Any], Any], Callable[[int], Any], int]] = {
    "redaction, a token in pieces": (redact_text, lambda n: "eyJaaaaa-" * n, 2_000),
    "redaction, names without values": (redact_text, lambda n: 'token="' * n, 1_000),
    "redaction of data": (redact_data, lambda n: [{"name": "x", "value": "y"}] * n, 500),
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
    "a provider's refusal": (refused, lambda n: b'{"error":{"message":"' + b"eyJaaaaaaaaaa-" * n + b'"}}', 200),
    "reasoning written into a text": (part, lambda n: "<think>a</think" * n, 1_000),
    "reasoning before an output": (OUTPUT.parse, lambda n: "<think>" * n + "{}", 1_000),
    "a wait in words": (duration_s, lambda n: "1" * n, 2_000),
    "a name that is not there": (lambda names: names_like("t" * 60, names), lambda n: ["t" * 64] * n, 100),
    "a long call's name": (lambda name: names_like(name, ["search"]), lambda n: "s" * n, 2_000),
    "an answer on a terminal": (printed, lambda n: "![" * n, 200),
    "a document in pieces": (Chunker().chunks, lambda n: Document(source="x", text="… word " * n), 500),
    "a turn of text ReAct": (lambda t: read_react(t, SEARCH), lambda n: "Action: a\nThought: " * n, 500),
    "a web page": (lambda page: readable(page, "http://h/"), lambda n: "<p a='<'>&amp;<!-- " * n, 1_000),
    "a result of a tool": (as_text, lambda n: [{"a": 1}] * n, 1_000),
    "a list of MCP tools": (lambda t: [*map(mcp_listing.read, t)], lambda n: [{"name": "a"}] * n, 1_000),
    "a line of an MCP server": (lambda line: [*messages(line)], lambda n: b'{"jsonrpc":"2.0","id":1,"x":"' * n, 1_000),
    "a result of an MCP tool": (result_text, lambda n: {"content": [{"type": "text", "text": "x"}] * n}, 1_000),
    "a stream of MCP, cut anywhere": (of_mcp_stream, lambda n: b'data: {"x":1}\n\n' * n, 500),
    "a body of MCP": (lambda body: answer_in(body, 1, refused=False), lambda n: b'{"x":[' * n, 500),
    "an address": (AllowList(["*"]).checked, lambda n: "http://a.example/" + "b/" * n, 1_000),
    "reasoning that has no beginning": (part, lambda n: "a</think" * n, 1_000),
    "a long answer, looked at for reasoning": (part, lambda n: "a word " * n, 20_000),
    "a call with a page's escapes": (lambda t: written_calls(t, SEARCH), lambda n: "&lt;tool_call&gt;{" * n, 500),
    "a stray word before a call": (
        lambda t: written_calls(t, SEARCH),
        lambda n: 'court\n<invoke name="search">' * n,
        500,
    ),
    "a call in bold letters": (lambda t: written_calls(t, SEARCH), lambda n: "**<tool_call>**{" * n, 500),
    "keywords of a call": (keywords_in, lambda n: "a='x', " * n, 200),
    "an output as far as it goes": (OUTPUT.fitting_part, lambda n: '{"a": [' + '{"b": "c"},' * n, 500),
    "a body that is nearly JSON": (parsed, lambda n: b"{'a': [" * n, 500),
    "a body of several values": (values_in, lambda n: b'{"a":1}' * n, 1_000),
    "a page instead of an answer": (page_title, lambda n: b"<title" * n, 1_000),
    "why a request was refused": (read_reason, lambda n: json.dumps({"errors": [{"msg": "y"}] * n}).encode(), 1_000),
    "vectors": (
        lambda body: read_embeddings(body, ["x"], []),
        lambda n: json.dumps({"data": [{"index": 0, "embedding": [0.1] * n}]}).encode(),
        4_000,
    ),
    "addresses in an error": (
        lambda text: without_addresses(text, "http://h/v1"),
        lambda n: "http://10.0.0.1:80/x " * n,
        500,
    ),
    "redaction, command lines": (
        lambda text: without_secrets(text, "*"),
        lambda n: "curl -u a:b -H 'X: y' | " * n,
        500,
    ),
    "half characters": (whole_text, lambda n: "a\ud83d" * n, 2_000),
    "a docstring": (read_docstring, lambda n: "x\n\nArgs:\n" + "    a (int): y\n" * n, 500),
    "a docstring, in fields": (read_docstring, lambda n: ":param a: y\n" * n, 500),
    "an address of a database": (lambda u: database_url(u, "x"), lambda n: "postgresql://h/d?" + "a=b&" * n, 200),
    "a file in an old code page": (text_of, lambda n: "日本語のテキスト".encode("shift_jis") * n, 500),
    "a page in one": (lambda b: text_of(b, "html"), lambda n: "<p>Привет &amp; ".encode("cp1251") * n, 1_000),
    "a mail of many parts": (mail, lambda n: MAIL + PART * n + b"--b--\n", 20),
    "a mail's header": (mail, lambda n: b"To: " + b"a <a@b>, " * n + b"\n\nx", 500),
    "a notebook": (notebook, lambda n: json.dumps({"cells": [CELL] * n}).encode(), 1_000),
    "what a Word file hides": (without_hidden, of_word, 1_000),
    "words of a text": (terms, lambda n: "Ärger'n x-1_a " * n, 200),
    "citations": (lambda t: check_citations(t, []), lambda n: "[0a1b2c3d, " * n, 1_000),
    "citations, marks that do not close": (lambda t: check_citations(t, []), lambda n: "【来源:[(" * n, 1_000),
    "a query of a graph": (read_query, lambda n: "MATCH (a)-[:X*1..2]->(b) " * n, 50),
    "what a model finds in a text": (
        lambda said: read_answer(said, "x"),
        lambda n: {"entities": [FOUND] * n, "relations": []},
        500,
    ),
    "a definition": (lambda t: read_text(t, "a"), lambda n: "a:\n" + "  - {use: sql, url: x}\n" * n, 40),
    "a definition, aliases": (lambda t: read_text(t, "a"), lambda n: "a: &a [x]\nb: [" + "*a, " * n + "]", 100),
    "a definition as data": (read_data, lambda n: {"name": "a", "tools": [{"use": "sql"}] * n}, 500),
    "variables of a definition": (variables, lambda n: "${A:-${" * n, 2_000),
    "a scenario": (scenarios_of, lambda n: SCENARIO | {"models": {"*": ["x"] * n}}, 500),
    "a cassette": (cassette_of, lambda n: "cassette: 1\nmodels: []\nrequests:\n" + EXCHANGE * n, 100),
    "a request to OpenAI's face": (read_chat, lambda n: asked(USER, n), 500),
    "a request of Responses": (lambda d: read_response(d, "r"), lambda n: asked(USER, n, under="input"), 500),
    "a request to Anthropic's face": (read_request, lambda n: asked(USER, n), 500),
    "an event of a record": (decode_event, lambda n: json.dumps({"type": "warned", "message": "\x01x" * n}), 4_000),
    "what is looked for among runs": (words_of, lambda n: "a'b\"c* " * n, 1_000),
    "a table of an answer": (table_of, lambda n: json.dumps({"columns": ["a"], "rows": [["x"]] * n}), 100),
}


def cpu_ms(work: Callable[[Any], Any], given: Any, tries: int = 3) -> float:
    taken = []
    for _ in range(tries):
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
