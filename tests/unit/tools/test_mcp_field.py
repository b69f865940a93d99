"""What MCP servers in the field do: led elsewhere, ended by a question, chatty, deaf, with words of their own."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import asynccontextmanager

import pytest

from shared_libs.atomic import ToolError
from shared_libs.tools.mcp import MCPToolset
from shared_libs.tools.mcp_messages import greeting
from shared_libs.tools.mcp_wire import Events
from tests.growth import assert_linear
from tests.support import run

INITIALIZED = {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "f", "version": "1"}}
RESULTS = {
    "initialize": INITIALIZED,
    "tools/list": {"tools": [{"name": "a"}]},
    "tools/call": {"content": [{"type": "text", "text": "ok"}]},
}

ON_STDIO = f"""
import json, os, sys
RESULTS = json.loads({json.dumps(json.dumps(RESULTS))})
def say(**message):
    print(json.dumps({{"jsonrpc": "2.0", **message}}), flush=True)
def answered(asked):
    if asked["method"] in RESULTS:
        say(id=asked["id"], result=RESULTS[asked["method"]])
    elif "id" in asked:
        say(id=asked["id"], error={{"code": -32601, "message": "unknown"}})
for line in sys.stdin:
    asked = json.loads(line)
    method = asked["method"]
"""


def on_stdio(does: str) -> MCPToolset:
    """A server on stdio; `does` is what comes before each answer, with `asked`, `method` and `say`."""
    lines = "".join(f"    {line}\n" for line in [*does.splitlines(), "answered(asked)"])
    return MCPToolset(command=[sys.executable, "-c", ON_STDIO + lines])


async def called(source: MCPToolset, times: int = 1) -> list[str]:
    try:
        (tool,) = await source.async_list()
        return [(await tool.async_run({})).content for _ in range(times)]
    finally:
        await source.aclose()


@asynccontextmanager
async def over_http(of_a_call=None, *, of_discovery=None, elsewhere: str = ""):
    """The address of a server; what a call and a discovery are answered with, and where it is led to first."""
    from aiohttp import web

    async def answer(request):
        if elsewhere and request.path != "/mcp/":
            return web.Response(status=int(elsewhere), headers={"Location": "/mcp/"})
        asked = await request.json()
        if "id" not in asked:
            return web.Response(status=202)
        own = {"tools/call": of_a_call, "server/discover": of_discovery}.get(asked["method"])
        if own is not None:
            return own(asked, request)
        reply = {"jsonrpc": "2.0", "id": asked["id"]}
        if asked["method"] in RESULTS:
            return web.json_response(reply | {"result": RESULTS[asked["method"]]}, headers={"mcp-session-id": "S"})
        return web.json_response(reply | {"error": {"code": -32601, "message": "unknown"}})

    app = web.Application()
    app.router.add_post("/{tail:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield MCPToolset(url=f"http://127.0.0.1:{runner.addresses[0][1]}/mcp")
    finally:
        await runner.cleanup()


def stream(text: str):
    """A call that is answered by events; `$ANSWER` is the answer."""
    from aiohttp import web

    def answer(asked, _request):
        whole = {"jsonrpc": "2.0", "id": asked["id"], "result": RESULTS["tools/call"]}
        return web.Response(text=text.replace("$ANSWER", json.dumps(whole)), content_type="text/event-stream")

    return answer


# --- led elsewhere, or ended by a question


@pytest.mark.parametrize("status", ["307", "308"])
def test_a_server_that_leads_to_another_path_of_its_own_is_followed(status):
    async def main():
        async with over_http(elsewhere=status) as source:
            return await called(source)

    assert run(main()) == ["ok"]


def test_a_server_that_ends_at_a_question_it_does_not_know_is_asked_as_older_ones_are():
    assert run(called(on_stdio("if method == 'server/discover': sys.exit('ExpectedInitializeRequest')"))) == ["ok"]


def test_one_that_hangs_up_at_that_question_likewise():
    def hang_up(_asked, request):
        request.transport.abort()

    async def main():
        async with over_http(of_discovery=hang_up) as source:
            return await called(source)

    assert run(main()) == ["ok"]


@pytest.mark.parametrize("refusal", [405, 404, 400])
def test_a_server_from_before_streamable_http_is_spoken_to_by_events(refusal):
    from aiohttp import web

    streams: list[tuple[web.StreamResponse, asyncio.Event]] = []

    async def refuse(_request):
        return web.Response(status=refusal)

    async def events(request):
        response, over = web.StreamResponse(headers={"Content-Type": "text/event-stream"}), asyncio.Event()
        await response.prepare(request)
        await response.write(b"event: endpoint\ndata: /messages/?session_id=1\n\n")
        streams.append((response, over))
        await over.wait()
        return response

    async def take(request):
        asked = await request.json()
        response, over = streams[-1]
        if asked["method"] == "tools/call" and len(streams) == 1:
            over.set()  # its stream ends under the call
        elif "id" in asked:
            reply = {"jsonrpc": "2.0", "id": asked["id"], "result": RESULTS[asked["method"]]}
            await response.write(f"event: message\ndata: {json.dumps(reply)}\n\n".encode())
        return web.Response(status=202, text="Accepted")

    async def main():
        app = web.Application()
        app.router.add_get("/sse", events)
        app.router.add_post("/sse", refuse)
        app.router.add_post("/messages/", take)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        source = MCPToolset(url=f"http://127.0.0.1:{runner.addresses[0][1]}/sse")
        try:
            return await called(source, times=2)
        finally:
            for _, over in streams:
                over.set()
            await runner.cleanup()

    lost, renewed = run(main())
    assert "was lost" in lost
    assert renewed == "ok"


def test_a_server_that_ends_at_every_question_is_told_with_its_last_words():
    with pytest.raises(ToolError, match=r"cannot be used: exit code 1; its stderr ends with: no key"):
        run(called(on_stdio("sys.exit('no key')")))


@pytest.mark.parametrize("said", ["2026-07-28", "2099-01-01"])
def test_a_version_from_after_the_one_that_was_asked_for_is_that_one(said):
    assert greeting({"protocolVersion": said}, "2025-11-25")["protocolVersion"] == "2025-11-25"


# --- streams


@pytest.mark.parametrize(
    "text",
    [
        "data: $ANSWER",
        "data: $ANSWER\n",
        ": hello\r\n\r\nid: 1\r\nevent: message\r\ndata: $ANSWER\r\n\r\n",
        "data: $ANSWER\r\r",
        "data: Server is warming up\n\ndata: $ANSWER\n\n",
        "data: [DONE]\n\ndata: $ANSWER\n\n",
        "event: ping\ndata: 5\n\ndata: $ANSWER\n\n",
        'data: {"method":"notifications/progress","params":{"progressToken":null}}\n\ndata: $ANSWER\n\n',
        'data: {"id": 99, "result": {"content": "ok"}}\n\n',
    ],
)
def test_a_stream_is_read_as_far_as_it_goes(text):
    async def main():
        async with over_http(stream(text)) as source:
            return await called(source)

    assert run(main()) == ["ok"]


def test_what_a_stream_said_instead_of_an_answer_is_told():
    async def main():
        async with over_http(stream("data: <html>\n\n")) as source:
            return await called(source)

    assert "no message: '<html>'" in run(main())[0]


def test_events_come_out_whole_however_they_are_cut():
    body = b'id: 7\r\nretry: 10\r\ndata:\r\n\r\n: x\n\nevent: message\ndata: {\ndata:  "id":1,"result":{}}\n\n'
    whole = Events(1 << 20)
    said = whole.feed(body) + whole.end()
    assert said == b'id: 7\nretry: 10\ndata:\n\n: x\n\nevent: message\ndata: {"jsonrpc":"2.0","id":1,"result":{}}\n\n'
    for size in (1, 2, 3, 7):
        cut = Events(1 << 20)
        pieces = [cut.feed(body[start : start + size]) for start in range(0, len(body), size)]
        assert b"".join([*pieces, cut.end()]) == said


def test_an_event_has_a_limit_and_the_work_grows_with_its_size():
    for endless in (b"data: x", b"data: x\n"):
        with pytest.raises(ValueError, match="longer than 1 MiB"):
            [events.feed(endless * 1000) for events in [Events(1 << 20)] for _ in range(200)]

    def fed(body):
        events = Events(1 << 30)
        for start in range(0, len(body), 100):
            events.feed(body[start : start + 100])
        events.end()

    assert_linear(fed, lambda n: b"data: x\n" * n)
    assert_linear(fed, lambda n: b"data: " + b"x" * 100 * n)


# --- words of a refusal, and of a session


@pytest.mark.parametrize(
    ("status", "body", "kind", "said"),
    [
        (403, '{"detail":"Not authenticated"}', "application/json", "Not authenticated; HTTP 403"),
        (422, '{"detail":[{"loc":["body"],"msg":"Field required"}]}', "application/json", "Field required; HTTP 422"),
        (502, "<html><head><title>Bad upstream</title></head></html>", "text/html", "Bad upstream; HTTP 502"),
        (429, "slow down", "text/plain", "slow down; HTTP 429"),
        (500, "", "text/plain", "HTTP 500"),
    ],
)
def test_a_refusal_is_told_in_the_words_of_its_body(status, body, kind, said):
    from aiohttp import web

    async def main():
        refuse = lambda _asked, _request: web.Response(status=status, text=body, content_type=kind)  # noqa: E731
        async with over_http(refuse) as source:
            return await called(source)

    assert said in run(main())[0]


@pytest.mark.parametrize("body", ['{"error":"no session"}', '{"message":"Session does not exist"}'])
def test_a_session_that_is_gone_by_the_words_of_a_refusal_is_renewed(body):
    from aiohttp import web

    answers = [web.Response(status=409, text=body, content_type="application/json")]

    def once(asked, _request):
        if answers:
            return answers.pop()
        return web.json_response({"jsonrpc": "2.0", "id": asked["id"], "result": RESULTS["tools/call"]})

    async def main():
        async with over_http(once) as source:
            return await called(source, times=2)

    first, second = run(main())
    assert "was lost" in first
    assert second == "ok"


# --- chatty, deaf, asking back

NEWS = 'print(json.dumps({"jsonrpc": "2.0", "method": "%s", "params": {}}))'


@pytest.mark.parametrize(
    ("line", "times"),
    [
        (NEWS % "notifications/message", 20_000),
        (NEWS % "notifications/progress", 20_000),
        (NEWS % "notifications/resources/updated", 20_000),
        (NEWS % "notifications/tools/list_changed", 3_000),
        ("print('DEBUG something happened')", 20_000),
    ],
)
def test_what_a_server_says_besides_does_not_hold_up_its_answer(line, times):
    source = on_stdio(f"for _ in range({times} * (method == 'tools/call')): {line}")
    source.timeout_s = 20  # handed on one by one they take longer
    assert run(called(source)) == ["ok"]


def test_the_loop_has_its_turn_between_lines_that_are_there_already():
    turns = []

    async def main():
        source = on_stdio("for _ in range(5000 * (method == 'tools/call')): print('DEBUG')")
        (tool,) = await source.async_list()
        under_way = asyncio.ensure_future(tool.async_run({}))
        while not under_way.done():
            turns.append(None)
            await asyncio.sleep(0)
        await source.aclose()
        return (await under_way).content

    assert run(main()) == "ok"
    assert len(turns) > 100


def test_a_server_that_hears_nothing_any_more_is_lost_and_not_waited_for():
    deaf = "os.close(0); say(id=asked['id'], result=RESULTS[method]); import time; time.sleep(60)"
    first, second = run(called(on_stdio(f"if method == 'tools/call': {deaf}"), times=2))
    assert first == "ok"
    assert "was lost" in second


def test_a_question_back_in_a_session_that_knows_none_is_told_as_that():
    asked = {"q": {"method": "elicitation/create", "params": {"message": "Which city?"}}}
    source = on_stdio(f"RESULTS['tools/call'] = {{'resultType': 'input_required', 'inputRequests': {asked!r}}}")
    assert run(called(source))[0].startswith("it asks back, which this client does not answer: ")


ASKING = """
if method == 'tools/call':
    fields = {'city': {'type': 'string'}, 'days': {'type': 'integer', 'default': 3}}
    schema = {'type': 'object', 'properties': fields}
    say(id='q', method='elicitation/create', params={'message': 'Which city?', 'requestedSchema': schema})
    answer = json.loads(sys.stdin.readline())
    told = json.dumps(answer.get('result') or answer['error']['message'])
    RESULTS['tools/call'] = {'content': [{'type': 'text', 'text': told}]}
"""


async def names_rome(words, schema):
    assert (words, [*schema["properties"]]) == ("Which city?", ["city", "days"])
    return {"city": "Rome"}


async def nobody(_words, _schema):
    return None


async def fails(_words, _schema):
    raise RuntimeError("no form")


@pytest.mark.parametrize(
    ("hook", "said"),
    [
        (names_rome, '{"action": "accept", "content": {"days": 3, "city": "Rome"}}'),
        (nobody, '{"action": "decline"}'),
        (fails, '{"action": "decline"}'),
        (None, '"Elicitation not supported"'),
    ],
)
def test_a_question_back_is_answered_by_the_host_and_else_declined(hook, said):
    source = on_stdio(ASKING)
    source.elicit = hook
    assert run(called(source)) == [said]


def test_a_link_is_told_with_what_it_is():
    link = {"type": "resource_link", "uri": "file:///x.csv", "name": "x", "description": "delays of 2013"}
    source = on_stdio(f"RESULTS['tools/call'] = {{'content': [{link!r}]}}")
    assert run(called(source)) == ["[resource file:///x.csv: x, delays of 2013]"]
