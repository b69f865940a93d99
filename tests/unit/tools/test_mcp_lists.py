"""Lists of tools as MCP servers write them: taken item by item, or left out with a reason."""

from __future__ import annotations

import asyncio
import json
import sys
import threading

import pytest

from shared_libs.tools import mcp_listing
from shared_libs.tools.mcp import MCPToolset
from shared_libs.tools.mcp_messages import MAX_TOOLS
from tests.growth import assert_linear
from tests.support import run
from tests.unit.tools.mcp_scripted import OBJECT, REFUSED, SERVER, listed, scripted

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
        ({"type": "int64"}, {"type": "integer"}),
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
