"""What MCP servers write that is not quite what is specified: taken item by item, or left out with a reason."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from shared_libs.atomic import MisuseError, ToolError
from shared_libs.tools import mcp_listing
from shared_libs.tools.mcp import MCPToolset
from shared_libs.tools.mcp_messages import MAX_TOOLS, as_text, greeting
from shared_libs.tools.mcp_wire import BARE, NoMessage, messages
from tests.growth import assert_linear
from tests.support import run

SERVER = Path(__file__).parents[2] / "mcp_scripted_server.py"
REFUSED = '{"jsonrpc":"2.0","id":$ID,"error":{"code":-32602,"message":"Invalid cursor"}}'
OBJECT = {"type": "object", "properties": {}}


def scripted(says: dict, *more: str, **options) -> MCPToolset:
    return MCPToolset(command=[sys.executable, str(SERVER), json.dumps(says), *more], **options)


def listed(*items):
    """The tools made of a list, and the reasons for the others."""

    async def main():
        source = scripted({})
        tools = await source._made(items)
        return {tool.name: tool for tool in tools}, source.left_out

    return run(main())


def said_by_a_call(result, *more: str):
    async def main():
        source = scripted({"tools/list": {"tools": [{"name": "a"}]}, "tools/call": result}, *more)
        try:
            (tool,) = await source.async_list()
            return await tool.async_run({})
        finally:
            await source.aclose()

    return run(main())


# --- lists of tools


BAD = [
    ({"name": "bad", "inputSchema": {"type": "string"}}, "arguments are an object"),
    ({"name": "bad", "inputSchema": "none"}, "no object"),
    ({"name": "bad", "inputSchema": {"properties": {"x": {"$ref": "#/components/schemas/Foo"}}}}, "leads nowhere"),
    ({"name": "bad", "inputSchema": {"properties": {"x": {"type": "words"}}}}, "is not one of"),
    ({"name": "bad", "execution": {"taskSupport": "required"}}, "as a task only"),
    ({"name": 7, "inputSchema": OBJECT}, "no name"),
    ({"inputSchema": OBJECT}, "no name"),
    ("bad", "no description of a tool"),
    (None, "no description of a tool"),
    ({"name": "bad", "inputSchema": {"properties": {f"p{n}": {} for n in range(6000)}}}, "more than"),
]


@pytest.mark.promise("mcp-items")
@pytest.mark.parametrize(("bad", "why"), BAD)
def test_a_bad_item_costs_itself_alone_and_is_told(bad, why, caplog):
    tools, left_out = listed({"name": "a", "inputSchema": OBJECT}, bad)
    assert [*tools] == ["a"]
    assert why in "".join(left_out.values())
    assert why in caplog.text


@pytest.mark.promise("mcp-items")
@pytest.mark.parametrize(
    "item",
    [
        {},
        {"inputSchema": None},
        {"inputSchema": []},
        {"inputSchema": {}},
        {"inputSchema": {"type": "object"}},
        {"inputSchema": {"type": ["object", "null"]}},
        {"inputSchema": {"type": "object", "properties": []}},
        {"inputSchema": {"type": "object", "properties": None, "required": None}},
        {"inputSchema": OBJECT, "outputSchema": {"type": "string", "pattern": "^(a+)+$"}},
        {"inputSchema": OBJECT, "outputSchema": "none", "annotations": "none", "icons": 3, "_meta": []},
        {"inputSchema": OBJECT, "annotations": {"readOnlyHint": "yes", "title": 5}},
        {"inputSchema": OBJECT, "description": None, "title": 4},
        {"inputSchema": OBJECT, "description": ["words"]},
    ],
)
def test_what_is_meant_is_taken_and_fits_every_provider(item):
    tools, left_out = listed({"name": "a", **item}, {"name": "b"})
    assert ([*tools], left_out) == (["a", "b"], {})
    assert tools["a"].parameters["type"] == "object"
    assert tools["a"].parameters["properties"] == {}
    assert not tools["a"].idempotent


def test_a_nested_schema_that_says_nothing_is_mended():
    schema = {"properties": {"x": {"type": "object", "properties": [], "required": None, "default": None}}}
    tools, _ = listed({"name": "a", "inputSchema": schema})
    assert tools["a"].parameters["properties"]["x"] == {"type": "object", "properties": {}, "default": None}


@pytest.mark.promise("mcp-items")
@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({"type": "OBJECT"}, {"type": "object"}),
        ({"type": "str"}, {"type": "string"}),
        ({"type": "float"}, {"type": "number"}),
        ({"type": ["String", "null"]}, {"type": ["string", "null"]}),
        ({"type": "string|null"}, {"type": ["string", "null"]}),
        ({"type": "any"}, {}),
        ("string", {"type": "string"}),
        (None, {}),
        ([], {}),
        ({"type": "string", "minLength": "3"}, {"type": "string", "minLength": 3}),
        ({"type": "string", "enum": {"A": "a"}}, {"type": "string", "enum": ["a"]}),
        ({"type": "dict", "additionalProperties": "false"}, {"type": "object", "additionalProperties": False}),
        ({"type": "dict", "required": "x", "allOf": [], "not": "x"}, {"type": "object", "required": ["x"]}),
        ({"type": "list", "items": "int"}, {"type": "array", "items": {"type": "integer"}}),
        ({"type": "TYPE_STRING"}, {"type": "string"}),
        ({"type": "string?"}, {"type": "string"}),
        ({"type": "string[]"}, {"type": "array"}),
        ({"type": "List[Dict[str, int]]"}, {"type": "array"}),
        ({"type": "map<string, int>"}, {"type": "object"}),
        (["string", "null"], {"type": ["string", "null"]}),
        ({"required": {"a": True, "b": False}}, {"required": ["a"]}),
        ({"required": ["a", None, 3]}, {"required": ["a"]}),
        ({"properties": [{"name": "a", "type": "str"}, {}]}, {"properties": {"a": {"type": "string"}}}),
    ],
)
def test_a_schema_in_the_words_of_a_language_is_what_was_meant(given, meant):
    tools, left_out = listed({"name": "a", "inputSchema": {"type": "Object", "properties": {"x": given, "y": None}}})
    assert left_out == {}
    assert tools["a"].parameters == {"type": "object", "properties": {"x": meant, "y": {}}}


TOLD = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}


@pytest.mark.promise("mcp-items")
@pytest.mark.parametrize(
    "item",
    [
        {"name": "t", "inputSchema": json.dumps(TOLD)},
        {"name": "t", "input_schema": TOLD},
        {"name": "t", "parameters": TOLD},
        {"type": "function", "function": {"name": "t", "parameters": TOLD}},
        {"name": "t", "inputSchema": {"jsonSchema": TOLD}},
        {"name": "t", "inputSchema": {"schema": TOLD, "strict": True}},
        {"name": "t", "inputSchema": {"type": "json_schema", "json_schema": {"name": "t", "schema": TOLD}}},
        {"name": "t", "inputSchema": {"a": {"type": "string", "required": True}}},
    ],
)
def test_a_schema_is_found_where_other_apis_have_it(item):
    tools, left_out = listed(item)
    assert left_out == {}
    told = tools["t"].spec.parameters
    assert {word: told[word] for word in TOLD} == TOLD


@pytest.mark.promise("tools-taken")
def test_a_tool_with_names_that_no_provider_takes_is_called_by_its_own():
    schema = {"properties": {"ids[]": {"type": "array"}}, "oneOf": [{"required": ["ids[]"]}]}

    async def main():
        source = scripted(
            {"tools/list": {"tools": [{"name": "a", "inputSchema": schema}]}, "tools/call": {"content": "$ARGUMENTS"}}
        )
        try:
            (tool,) = await source.async_list()
            told = tool.spec.parameters
            return told["properties"], "oneOf" in told, (await tool.async_run({"ids__": [1]})).content
        finally:
            await source.aclose()

    properties, combined, content = run(main())
    assert (properties, combined) == ({"ids__": {"type": "array", "items": {}}}, False)
    assert json.loads(content) == {"ids[]": [1]}


@pytest.mark.promise("mcp-items")
def test_a_description_has_a_limit_and_a_list_too():
    long = mcp_listing.read({"name": "a", "description": "x" * 10_000_000})
    assert long.description.endswith("… [cut: 9984000 characters]")


@pytest.mark.promise("mcp-items")
def test_a_server_with_thousands_of_tools_and_bad_ones_among_them_is_used(tmp_path):
    items = [*(bad for bad, _ in BAD), *({"name": f"t{n}"} for n in range(MAX_TOOLS + 500))]
    file = tmp_path / "says.json"
    file.write_text(json.dumps({"tools/list": {"tools": items}, "tools/call": {"content": ["ok"]}}))
    command = [sys.executable, str(SERVER), f"@{file}"]

    async def main():
        source = MCPToolset(command=command)
        try:
            tools = await source.async_list()
            return len(tools), (await tools[0].async_run({})).content
        finally:
            await source.aclose()

    assert run(main()) == (MAX_TOOLS - len(BAD), "ok")


@pytest.mark.promise("mcp-items")
@pytest.mark.parametrize("result", [{}, {"tools": None}, {"tools": {}}, {"tools": [], "nextCursor": 7.5}])
def test_a_list_without_tools_is_empty(result):
    async def main():
        source = scripted({"tools/list": result})
        try:
            return await source.async_list()
        finally:
            await source.aclose()

    assert run(main()) == []


def test_pages_are_joined_and_a_tool_that_comes_twice_is_one():
    pages = [
        {"tools": [{"name": "a"}], "nextCursor": 2},
        {"tools": [{"name": "b"}, {"name": "a"}], "nextCursor": "x"},
        {"tools": [{"name": "c"}], "nextCursor": ""},
    ]

    async def main():
        source = scripted({"tools/list": pages})
        try:
            return [tool.name for tool in await source.async_list()]
        finally:
            await source.aclose()

    assert run(main()) == ["a", "b", "c"]


@pytest.mark.promise("mcp-items")
@pytest.mark.parametrize(
    ("pages", "names", "told"),
    [
        ([{"tools": [{"name": "a"}], "nextCursor": "1"}, {"raw": REFUSED}], ["a"], "Invalid cursor"),
        ([{"tools": [{"name": "a"}], "nextCursor": {"p": 1}}], ["a"], "no cursor"),
        ([{"tools": [{"name": "a"}], "next_cursor": 0}, {"tools": [{"name": "b"}]}], ["a", "b"], ""),
        ({"tools": {"a": {"description": "x"}, "b": {}}}, ["a", "b"], ""),
        ({"raw": '{"jsonrpc":"2.0","id":$ID,"result":[{"name":"a"}]}'}, ["a"], ""),
    ],
)
def test_a_list_is_taken_as_far_as_it_goes(pages, names, told, caplog):
    async def main():
        source = scripted({"tools/list": pages})
        try:
            return [tool.name for tool in await source.async_list()]
        finally:
            await source.aclose()

    assert run(main()) == names
    assert told in caplog.text


@pytest.mark.promise("mcp-items")
def test_the_loop_has_its_turn_between_any_two_of_hundreds_of_tools():
    fields = {f"f{n}": {"type": "string", "enum": ["a", "b"]} for n in range(4)}
    schema = {"properties": {f"p{n}": {"type": "object", "properties": fields} for n in range(8)}}
    items = [{"name": f"t{n}", "inputSchema": schema} for n in range(300)]
    turns = 0

    async def main():
        nonlocal turns
        source = scripted({})
        made = asyncio.ensure_future(source._made(items))
        while not made.done():
            turns += 1
            await asyncio.sleep(0)
        return await made

    assert len(run(main())) == 300
    assert turns >= 300


@pytest.mark.promise("mcp-items")
def test_large_schemas_are_read_in_a_thread_and_only_so_many_are():
    large = {"properties": {f"p{n}": {"type": "string", "description": "x" * 900} for n in range(256)}}
    tools, left_out = listed(*({"name": f"t{n}", "inputSchema": large} for n in range(20)))
    assert 16 <= len(tools) < 20
    assert {*tools} | {*left_out} == {f"t{n}" for n in range(20)}
    assert left_out["t19"] == "the schemas of all tools are larger than 4 MiB; name some"
    assert [thread.name for thread in threading.enumerate() if "mcp-schemas" in thread.name]


def test_the_work_of_reading_a_list_grows_with_its_size():
    assert_linear(lambda items: [mcp_listing.read(item) for item in items], lambda n: [{"name": "a"}] * n)
    nested = lambda n: {"properties": {f"p{k}": {"properties": [], "required": None} for k in range(n)}}  # noqa: E731
    assert_linear(mcp_listing.plainer, nested)


# --- results


@pytest.mark.promise("mcp-items")
@pytest.mark.parametrize(
    ("result", "said"),
    [
        ({"content": [{"type": "text", "text": "hi"}, {"type": "video", "url": "x"}]}, "hi\n[video, not shown]"),
        ({"content": [{"type": "text", "text": "hi"}, {"type": "text"}, None, 7]}, "hi\n[text, not shown]\n7"),
        ({"content": [{"text": "no type"}, "plain"]}, "no type\nplain"),
        ({"content": "plain"}, "plain"),
        ({"content": {"type": "text", "text": "alone"}}, "alone"),
        ({"content": None, "structuredContent": {"a": 1}}, '{"a": 1}'),
        ({"structuredContent": [1, 2]}, "[1, 2]"),
        ({"content": [], "structuredContent": {"f": float("nan")}}, '{"f": null}'),
        ({"content": [{"type": "image", "data": "AAAA"}]}, "[image, unknown, 3 bytes; it is not shown]"),
        ({"content": [{"type": "resource", "resource": {}}]}, "[resource None, binary, not shown]"),
        ({"content": [{"type": "resource_link", "uri": 3}]}, "[resource 3: ]"),
        ({}, ""),
        ({"content": [{"type": "text", "text": ["a", 1]}]}, '["a", 1]'),
        ({"content": [{"type": "json", "json": {"a": 1}}, {"type": "markdown", "markdown": "# b"}]}, '{"a": 1}\n# b'),
        (
            {"content": [{"type": "html", "content": "<b>"}, {"type": "image", "image": "AAAA"}]},
            "<b>\n[image, not shown]",
        ),
        ({"content": [[{"type": "text", "text": "within"}]]}, "within"),
        ({"content": [{"type": "text", "text": ""}], "structuredContent": {"items": [1]}}, '{"items": [1]}'),
        ({"toolResult": {"a": 1}}, '{"toolResult": {"a": 1}}'),
        ({"message": "done", "_meta": {}}, '{"message": "done"}'),
        ({BARE: "plain"}, "plain"),
        ({BARE: [{"type": "text", "text": "a list"}]}, "a list"),
        ({BARE: None}, "null"),
    ],
)
def test_a_result_is_read_as_far_as_it_can_be(result, said):
    assert as_text(result)["content"] == [{"type": "text", "text": said}]


@pytest.mark.promise("mcp-items")
@pytest.mark.parametrize(
    ("result", "said", "is_error"),
    [
        ({"content": [{"type": "text", "text": "hi"}, {"type": "video"}], "_meta": 3}, "hi\n[video, not shown]", False),
        ({"content": [{"type": "text", "text": "hi"}], "isError": "no", "structuredContent": "x"}, "hi", False),
        ({"content": [{"type": "text", "text": "gone"}], "isError": True}, "gone", True),
        ({"raw": '{"id":$ID,"result":{"content":[{"type":"text","text":"hi"}]}}'}, "hi", False),
        ({"raw": '[{"jsonrpc":"2.0","id":$ID,"result":{"content":"batched"}}]'}, "batched", False),
        (
            {"raw": '{\n  "jsonrpc": "2.0",\n  "id": $ID,\n  "result": {\n    "content": "laid out"\n  }\n}'},
            "laid out",
            False,
        ),
        ({"raw": '{"jsonrpc":"2.0","id":$ID,"result":{"content":"a\\ud83d"}}'}, "a?", False),
        (
            {"raw": '{"jsonrpc":"2.0","id":$ID,"result":{"content":"caf\\u00e9","structuredContent":{"f":NaN}}}'},
            "café",
            False,
        ),
        ({"raw": '{"jsonrpc":"2.0","id":$ID,"error":"no such city"}'}, "no such city", True),
        ({"raw": '{"jsonrpc":"2.0","id":$ID,"error":{"code":"E7","message":{"why":"x"}}}'}, '{"why": "x"}', True),
        ({"raw": '{"jsonrpc":"2.0","id":$ID,"result":{"content":"cut of'}, "its answer cannot be read", True),
        ({"raw": '{"jsonrpc":"2.0","id":$ID,"result":[1]}'}, "1", False),
    ],
)
def test_an_answer_that_is_nearly_right_is_read_and_one_that_is_not_is_told_at_once(result, said, is_error):
    found = said_by_a_call(result)
    assert said in found.content
    assert found.is_error == is_error


@pytest.mark.promise("mcp-items")
@pytest.mark.parametrize("told", [True, "true", "True", 1])
def test_an_error_is_one_in_whatever_words(told):
    for word in ("isError", "is_error"):
        assert as_text({"content": "x", word: told})["isError"] is True
        assert as_text({"content": "x", word: 0})["isError"] is False


@pytest.mark.promise("mcp-items")
@pytest.mark.parametrize(
    "line",
    [
        'INFO call done {"jsonrpc":"2.0","id":4,"result":{"a":{"id":5}}}',
        '{"jsonrpc":"2.0","id":4,"result":{"a":{"id":5}}} // done',
        '\ufeff{"jsonrpc":"2.0","id":4,"result":{"a":{"id":5}}}',
        '{"jsonrpc":"1.0","id":4.0,"result":{"a":{"id":5}}}',
        '{"id":4,"result":{"a":{"id":5}}}',
        '{"jsonrpc":"2.0","method":"notifications/x"}{"jsonrpc":"2.0","id":4,"result":{"a":{"id":5}}}',
    ],
)
def test_a_message_among_other_words_is_read(line):
    read = [one for one in messages(line.encode()) if not hasattr(one, "method")]
    assert [(one.id, one.result) for one in read] == [(4, {"a": {"id": 5}})]


def test_what_is_said_without_an_id_is_of_the_one_call_under_way():
    found = said_by_a_call({"raw": '{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"no such city"}}'})
    assert "no such city" in found.content
    assert found.is_error


@pytest.mark.promise("mcp-items")
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"protocolVersion": None, "capabilities": None, "serverInfo": None},
        {"protocolVersion": "1.0", "capabilities": [], "serverInfo": "me"},
        {"protocolVersion": 1, "capabilities": {"tools": True}, "serverInfo": {"name": "me", "version": 2.0}},
        {"protocolVersion": "2025-06-18", "instructions": ["x"], "serverInfo": {"name": "me", "icons": "none"}},
    ],
)
def test_a_server_that_says_little_of_itself_is_used(given):
    assert greeting(given, "2025-06-18")["protocolVersion"] == "2025-06-18"

    async def main():
        source = scripted({"initialize": given, "tools/list": {"tools": [{"name": "a"}]}})
        try:
            return [tool.name for tool in await source.async_list()]
        finally:
            await source.aclose()

    assert run(main()) == ["a"]


def test_a_version_before_the_first_is_the_first():
    assert greeting({"protocolVersion": "2024-10-07"}, "2025-06-18")["protocolVersion"] == "2024-11-05"
    assert greeting({"protocolVersion": "2025-03-26"}, "2025-06-18")["protocolVersion"] == "2025-03-26"


def test_an_answer_in_latin_1_is_read():
    assert (
        said_by_a_call({"raw": '{"jsonrpc":"2.0","id":$ID,"result":{"content":"café"}}'}, "latin-1").content
        == "caf\ufffd"
    )


def test_lines_that_are_no_messages_change_nothing():
    noise = "{\nloading\n}\n{}\n[\n"
    good = '{"jsonrpc":"2.0","id":$ID,"result":{"content":"hi"}}'
    assert said_by_a_call({"raw": noise + good}).content == "hi"
    for line in (b"", b"null", b"[1]", b"{}", b'"text"', b"[" * 100_000, b'{"jsonrpc": "2.0"}', b"\xff\xfe"):
        with pytest.raises(NoMessage):
            [*messages(line)]


def read_in_vain(line):
    with suppress(NoMessage):
        [*messages(line)]


def test_the_work_of_reading_a_line_grows_with_its_length():
    assert_linear(lambda line: [*messages(line)], lambda n: b'{"jsonrpc":"2.0","id":1,"result":{"content":"' + b"x" * n)
    for piece in (b'{"id":', b'{"id":1} '):
        assert_linear(read_in_vain, lambda n, piece=piece: b'"jsonrpc" ' + piece * min(n, 1 << 20))  # more is no line
    assert_linear(as_text, lambda n: {"content": [{"type": "text", "text": "x"}, {"type": "v"}] * n})


# --- servers that pass over what they do not know


@pytest.mark.promise("time-mcp")
def test_a_server_that_passes_over_discovery_is_asked_as_older_ones_are():
    async def main():
        source = scripted({"server/discover": None, "tools/list": {"tools": [{"name": "a"}]}})
        source.timeout_s = 4
        try:
            return [tool.name for tool in await source.async_list()]
        finally:
            await source.aclose()

    assert run(main()) == ["a"]


def test_a_list_that_is_an_error_is_told_in_the_servers_words():
    async def main():
        source = scripted({"tools/list": {"raw": '{"jsonrpc":"2.0","id":$ID,"error":"licence expired"}'}})
        try:
            with pytest.raises(ToolError, match="licence expired"):
                await source.async_list()
        finally:
            await source.aclose()

    run(main())


def test_an_item_that_is_no_tool_is_refused_with_its_reason():
    with pytest.raises(MisuseError, match="no object"):
        mcp_listing.read({"name": "a", "inputSchema": 3})


@pytest.mark.promise("secrets-masked")
@pytest.mark.parametrize(
    "words",
    [
        ["--token=ARGV44SECRET"],
        ["--api-key", "ARGV44SECRET"],
        ["API_TOKEN=ARGV44SECRET"],
        ["--header", "Authorization: Bearer ARGV44SECRET"],
        ["--dsn=postgres://u:ARGV44SECRET@h/db"],
        ["https://h/sse?x=ARGV44SECRET"],
        ["https://me:ARGV44SECRET@h/x"],
        ["mysql", "-pARGV44SECRET"],
        ["-p", "ARGV44SECRET"],
        ["-u", "me:ARGV44SECRET"],
        ["--config", '{"apiKey": "ARGV44SECRET"}'],
        ["-c", "serve --token ARGV44SECRET --port 8080"],
        ["--dsn", "Server=h;Password=ARGV44SECRET;Port=1"],
        ["https://h/mcp?v=1&key=ARGV44SECRET"],
        ["--cookie", "sid=ARGV44SECRET"],
        ["--auth", "me:ARGV44SECRET"],
    ],
)
def test_a_secret_among_the_arguments_of_a_program_is_in_no_error(words, monkeypatch):
    monkeypatch.setenv("OF_THE_SERVER_TOKEN", "ARGV44SECRET")
    if "h/sse" not in words[0]:
        monkeypatch.delenv("OF_THE_SERVER_TOKEN")
    code = "import sys; sys.exit(f'cannot start with {sys.argv} and ARGV44SECRET')"

    async def main():
        source = MCPToolset(command=[sys.executable, "-c", code, *words])
        with pytest.raises(ToolError) as caught:
            await source.async_list()
        await source.aclose()
        return str(caught.value)

    told = run(main())
    assert "cannot start with" in told
    assert "ARGV44SECRET" not in told
