"""The service over real HTTP: what every answer has, what is refused and how, and what is bounded."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from io import BytesIO

import pytest
from starlette.routing import Route

from shared_libs.atomic.errors import ConfigError, MisuseError
from shared_libs.service.edge import MAX_HEAD
from shared_libs.service.endpoint import Endpoint
from shared_libs.service.keys import RequireKey
from shared_libs.service.openapi import OPEN_PATHS
from shared_libs.service.server import make_server
from shared_libs.service.settings import Settings, load_settings
from shared_libs.testing import FaultServer, Healthy, Silence, SlowFirstToken, Stall
from tests.service import ASKED, HELLO, events_of, model_at, serving, write
from tests.support import run


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path, hello=HELLO)


@pytest.mark.promise("serve-answers")
def test_an_agent_answers_over_http_without_a_key_a_database_or_a_server(folder):
    async def main():
        async with serving(folder) as served:
            return await served.get("/v1/agents"), await served.run(), served.notes

    (status, _, told), (run_status, headers, result), notes = run(main())
    assert (status, [agent["name"] for agent in told["agents"]]) == (200, ["hello"])
    assert run_status == 200
    assert (result["status"], result["run_id"]) == ("answered", headers["x-factory-run-id"])
    assert result["answer"].startswith("17 * 23 = 391.")
    assert headers["x-request-id"].startswith("req_")
    assert float(headers["x-factory-overhead-ms"]) >= 0
    assert (headers["x-factory-deadline"], headers["x-factory-deadline-from"]) == ("60.000", "limits")
    assert any("hello rehearses" in note for note in notes)
    assert notes[-1] == "stops: what is under way has 1 s to end"


@pytest.mark.promise("serve-answers")
def test_a_stream_tells_every_event_with_its_number_and_ends_with_the_result(folder):
    async def main():
        async with serving(folder) as served:
            headers = {"accept": "text/event-stream"}
            async with served.http.post("/v1/agents/hello/runs", json=ASKED, headers=headers) as answer:
                return answer.headers, events_of(await answer.read())

    headers, events = run(main())
    assert headers["content-type"].startswith("text/event-stream")
    told = {name.lower() for name in headers}
    assert {"x-request-id", "x-factory-run-id", "x-factory-deadline", "x-factory-overhead-ms"} <= told
    assert [int(number) for number, _, _ in events] == list(range(1, len(events) + 1))
    assert (events[0][1], events[-1][1]) == ("run_started", "run_finished")
    assert json.loads(events[-1][2])["result"]["status"] == "answered"


def test_a_session_is_remembered_and_belongs_to_the_agent(folder):
    async def main():
        async with serving(folder) as served:
            await served.run(body=ASKED | {"session_id": "s"})
            return await served.run(body={"question": "And again?", "session_id": "s"})

    _, _, result = run(main())
    assert result["status"] in ("answered", "failed")  # the rehearsal knows one question; it was asked in a session


BODIES = [
    (b"", "invalid_request", "the body is empty"),
    (b"{", "invalid_request", "not valid JSON"),
    (b"[]", "invalid_request", "a JSON object"),
    (b"\xff", "invalid_request", "not valid JSON"),
    (b"[" * 100_000, "invalid_request", "nested too deeply"),
    (b'{"question": ' + b"[" * 200 + b"]" * 200 + b"}", "invalid_request", "nested too deeply"),
    (b'{"question": ' + b"[" * 199 + b"]" * 199 + b"}", "invalid_request", "message 0"),
    (b"[" + b"1," * 600_000 + b"1]", "body_too_large", "500,000 values"),
    (b'{"question": "x", "pad": "' + b"x" * 2**21 + b'"}', "body_too_large", "2,097,152 bytes"),
    (b"{}", "invalid_request", "`question` is missing"),
    (b"\xef\xbb\xbf{}", "invalid_request", "`question` is missing"),
    (b'{"question": ""}', "invalid_request", "empty"),
    (b'{"question": 3}', "invalid_request", "a text, content parts or messages"),
    (b'{"question": "x", "questio": 1}', "invalid_request", "did you mean 'question'?"),
    (b'{"question": "x", "timeout": 0}', "invalid_request", "positive number"),
    (b'{"question": "x", "timeout": true}', "invalid_request", "positive number"),
    (b'{"question": "x", "session_id": "a\\u0000b"}', "invalid_request", "printable"),
    (b'{"question": "x", "session_id": 3}', "invalid_request", "printable"),
    (b'{"question": "x", "output_schema": []}', "invalid_request", "JSON Schema"),
]
REQUESTS = [
    ("GET", "/nowhere", {}, 404, "not_found"),
    ("PUT", "/v1/agents", {}, 405, "method_not_allowed"),
    ("POST", "/v1/agents/helo/runs", {}, 404, "model_not_found"),
    ("POST", "/v1/agents/hello%2Fchain/runs", {}, 404, "not_found"),
    ("POST", "/v1/agents/hello/runs", {"x-request-timeout": "nan"}, 400, "invalid_request"),
    ("POST", "/v1/agents/hello/runs", {"x-request-timeout": "-1"}, 400, "invalid_request"),
    ("POST", "/v1/agents/hello/runs", {"x-request-timeout": "soon"}, 400, "invalid_request"),
    ("POST", "/v1/agents/hello/runs", {"x-on-disconnect": "explode"}, 400, "invalid_request"),
    ("POST", "/v1/agents/hello/runs?background=perhaps", {}, 400, "invalid_request"),
    ("POST", "/v1/agents/hello/runs", {"content-type": "text/plain"}, 415, "unsupported_media_type"),
]


@pytest.mark.promise("serve-refuses")
def test_a_body_that_is_not_valid_is_a_problem_that_says_why(folder):
    async def main():
        async with serving(folder, max_body=2**21) as served:
            told = []
            for body, _, _ in BODIES:
                headers = {"content-type": "application/json"}
                async with served.http.post("/v1/agents/hello/runs", data=BytesIO(body), headers=headers) as answer:
                    told.append((answer.status, answer.headers, await answer.json(content_type=None)))
            return told

    for (status, headers, told), (body, code, says) in zip(run(main()), BODIES, strict=True):
        assert (status, told["code"]) == ({"invalid_request": 400, "body_too_large": 413}[code], code), body[:50]
        assert says in told["detail"]
        assert headers["content-type"] == "application/problem+json"
        assert told["request_id"] == headers["x-request-id"]
        assert told["type"] == f"urn:genai-factory:problem:{code}"


@pytest.mark.promise("serve-refuses")
def test_a_request_that_is_not_valid_is_a_problem(folder):
    async def main():
        async with serving(folder) as served:
            told = []
            for method, path, headers, _, _ in REQUESTS:
                given = {"content-type": "application/json"} | headers
                body = json.dumps(ASKED).encode()
                async with served.http.request(method, path, data=body, headers=given) as answer:
                    told.append((answer.status, await answer.json(content_type=None)))
            return told

    for (got, told), (_, path, _, status, code) in zip(run(main()), REQUESTS, strict=True):
        assert (got, told["code"], told["status"]) == (status, code, status), path


DEADLINES = [
    ({"x-request-timeout": "2.5"}, "2.500", "x-request-timeout"),
    ({"x-request-timeout": "1e6"}, "60.000", "limits"),
    ({"x-envoy-expected-rq-timeout-ms": "1500"}, "1.500", "x-envoy-expected-rq-timeout-ms"),
    ({"x-stainless-read-timeout": "1"}, "0.750", "x-stainless-read-timeout"),
    ({"x-stainless-read-timeout": "50"}, "49.000", "x-stainless-read-timeout"),
    ({"x-stainless-read-timeout": "0.2"}, "0.100", "x-stainless-read-timeout"),
    ({"x-stainless-read-timeout": "NOT_GIVEN"}, "60.000", "limits"),
    ({"x-stainless-read-timeout": "1", "x-request-timeout": "0.5"}, "0.500", "x-request-timeout"),
    ({"x-stainless-read-timeout": "1", "accept": "text/event-stream"}, "60.000", "limits"),
]


@pytest.mark.promise("serve-deadline")
def test_the_deadline_is_the_least_that_anybody_gave(folder):
    async def main():
        async with serving(folder) as served:
            told = []
            for headers, _, _ in DEADLINES:
                async with served.http.post("/v1/agents/hello/runs", json=ASKED, headers=headers) as answer:
                    told.append((answer.status, answer.headers))
            return told

    for (status, told), (headers, seconds, source) in zip(run(main()), DEADLINES, strict=True):
        got = status, told["x-factory-deadline"], told["x-factory-deadline-from"]
        assert got == (200, seconds, source), headers


def test_a_sane_request_id_is_kept_and_another_replaced(folder):
    async def main():
        async with serving(folder) as served:
            return [(await served.get("/healthz", x_request_id=name))[1]["x-request-id"] for name in ("a-1.b", "a b")]

    kept, replaced = run(main())
    assert kept == "a-1.b"
    assert replaced.startswith("req_")


@pytest.mark.promise("serve-keys")
def test_every_route_needs_a_key_but_four(folder):
    async def main():
        async with serving(folder) as served:
            return served.server.config.app

    app = run(main())
    open_paths = set()
    for path, needs in routes_of(app.routes):
        if needs is None:
            open_paths.add(path)
    assert open_paths <= set(OPEN_PATHS)


def routes_of(routes):
    for route in routes:
        if hasattr(route, "original_router"):
            yield from routes_of(route.original_router.routes)
        elif isinstance(route, Route) and isinstance(route.endpoint, Endpoint):
            yield route.path, route.endpoint.needs
        elif not hasattr(route, "dependant"):
            yield route.path, None
        else:
            keys = [used.call.needs for used in route.dependant.dependencies if isinstance(used.call, RequireKey)]
            yield route.path, keys[0] if keys else None


@pytest.mark.promise("serve-keys")
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_a_server_that_others_reach_does_not_start_without_keys(folder, host):
    with pytest.raises(MisuseError, match="reachable by others"):
        make_server(Settings(configs=folder), host=host)


@pytest.mark.promise("serve-answers")
def test_a_service_whose_runs_are_to_be_kept_nowhere_says_where_that_is_said(folder, monkeypatch):
    monkeypatch.setenv("FACTORY_RUNS", "off")
    with pytest.raises(MisuseError, match="FACTORY_RUNS is off: name a place with `store:`"):
        make_server(Settings(configs=folder))
    with pytest.raises(MisuseError, match="`store` is off"):
        make_server(Settings(configs=folder, store="off"))
    with pytest.raises(MisuseError, match="no collection is kept at mysql:"):
        make_server(Settings(configs=folder, store="sqlite:///runs.db", collections="mysql://server/database"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("drain: 3", r"service\.yaml:1:1: drain: unknown key; .* did you mean 'drain_s'\?"),
        ("drain_s: soon", r"service\.yaml:1:10: drain_s: .*number"),
        ("slots: 5\nslots: 6", r"service\.yaml:2:1: slots: the key stands twice, first on line 1"),
        ("slots: 5\n---\nslots: 6", r"service\.yaml:2:1: a second document begins"),
        ('pepper: "${NO_SUCH_VARIABLE}"', r"service\.yaml:1:9: pepper: .*NO_SUCH_VARIABLE"),
        ("configs: x", "settings"),
        ("- 1", "settings"),
        ("teams: {a b: {budget_usd: 1}}", "teams"),
        ("5: x", "the key 5 is not text"),
    ],
)
def test_settings_that_do_not_hold_are_told_with_their_place(tmp_path, text, says):
    (tmp_path / "service.yaml").write_text(text)
    with pytest.raises(ConfigError, match=says):
        load_settings(tmp_path)


def test_settings_are_read_and_variables_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("STORE", "sqlite+aiosqlite:///x.db")
    (tmp_path / "service.yaml").write_text('store: "${STORE}"\ndrain_s: 3\n')
    told = load_settings(tmp_path)
    assert (told.store, told.drain_s, told.configs) == ("sqlite+aiosqlite:///x.db", 3, tmp_path)
    assert "x.db" not in repr(told)


@pytest.mark.promise("serve-bounded")
def test_headers_and_bodies_that_do_not_come_end_the_connection(folder):
    async def main():
        async with serving(folder, header_timeout_s=0.2, body_timeout_s=0.2) as served:
            ends = []
            slow = b"POST /v1/agents/hello/runs HTTP/1.1\r\nhost: localhost\r\nx-slow: "
            for said in (b"", b"GET /healthz HT", slow):
                reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
                writer.write(said)
                async with asyncio.timeout(5):
                    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                        await reader.readexactly(1)
                writer.close()
                ends.append(said)
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(
                b"POST /v1/agents/hello/runs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
                b"content-length: 90\r\n\r\n{"
            )
            async with asyncio.timeout(5):
                answer = await reader.read(4096)
            writer.close()
            return len(ends), answer

    ended, answer = run(main())
    assert ended == 3
    assert answer.startswith(b"HTTP/1.1 408")


async def said_back(served, *pieces):
    """Say pieces of bytes to the server, one behind the other, and return what it says until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


def request_head(path, *more, length=0, method="POST"):
    told = [f"{method} {path} HTTP/1.1", "host: localhost", "content-type: application/json"]
    return "\r\n".join([*told, f"content-length: {length}", *more, "", ""]).encode()


@pytest.mark.promise("serve-bounded")
@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/v1/agents/hello/runs", b'"code":"%s"'),
        ("/v1/chat/completions", b'"type":"invalid_request_error"'),
        ("/v1/messages", b'"type":"error"'),
        ("/v1/runs", b'"code":"%s"'),
    ],
)
def test_what_headers_say_already_is_refused_in_the_clients_dialect_before_a_body_comes(folder, path, says):
    """A body of gigabytes, one that is packed, headers without a bound: no byte of a body is waited for."""
    refused = (
        (413, "body_too_large", request_head(path, "expect: 100-continue", length=9_999_999_999)),
        (415, "unsupported_media_type", request_head(path, "content-encoding: gzip", length=20)),
        (431, "headers_too_large", request_head(path, "x-large: " + "a" * 70_000)),
        (431, "headers_too_large", request_head(path, *(f"x-{number}: b" for number in range(12_000)))),
        (400, "invalid_request", request_head(path).replace(b"host: localhost\r\n", b"")),
        (400, "invalid_request", request_head(path, "Host: localhost")),
        (400, "invalid_request", request_head(path).replace(b"localhost", b"localhost/v1?@x")),
    )
    if path == "/v1/runs":
        refused = tuple((status, code, head.replace(b"POST", b"GET", 1)) for status, code, head in refused)

    async def main():
        async with serving(folder, drain_s=1.0) as served:
            for status, code, head in refused:
                reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
                writer.write(head)
                async with asyncio.timeout(5):
                    answer = await reader.readuntil(b"\r\n\r\n")
                    told = await reader.readexactly(int(re.search(rb"content-length: (\d+)", answer)[1]))
                writer.close()
                assert answer.startswith(b"HTTP/1.1 %d " % status), (code, answer)
                assert says.replace(b"%s", code.encode()) in told

    run(main())


@pytest.mark.promise("serve-bounded")
def test_headers_without_an_end_are_cut_off_at_a_size_and_the_rest_of_an_unwanted_body_is_none(folder):
    async def main():
        async with serving(folder) as served:
            begun = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx-a: "
            endless = await said_back(served, begun + b"a" * 4 * MAX_HEAD)
            assert endless.startswith(b"HTTP/1.1 431 ")
            last = request_head("/healthz", "connection: close", method="GET")
            large = 12_000_000
            answers = await said_back(served, request_head("/v1/chat/completions", length=large), b" " * large, last)
            assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"413", b"200"]

    run(main())


@pytest.mark.promise("serve-answers")
@pytest.mark.parametrize("upgrade", ["Upgrade: h2c", "upgrade:h2c", "UPGRADE: websocket", "Upgrade: TLS/1.0"])
def test_who_offers_another_protocol_beside_its_request_is_answered(folder, upgrade):
    """As Java's own client does with every request that is not encrypted."""
    body = json.dumps(ASKED).encode()
    offers = ("Connection: Upgrade, HTTP2-Settings", upgrade, "HTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAA")

    async def main():
        async with serving(folder) as served:
            head = request_head("/v1/agents/hello/runs", *offers, length=len(body))
            last = request_head("/healthz", "connection: close", method="GET")
            return await said_back(served, head, body, last)

    answers = run(main())
    assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"200", b"200"]
    assert b"391" in answers


@pytest.mark.promise("serve-answers")
def test_a_trailer_is_no_header_a_slash_too_many_no_redirect_and_a_probe_may_ask_for_the_head(folder):
    run_path, body = "/v1/agents/hello/runs", json.dumps(ASKED).encode()
    chunked = b"".join((f"POST {run_path} HTTP/1.1\r\nhost: localhost\r\n".encode(), b"connection: close\r\n"))
    chunked += b"transfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n" % (len(body), body)
    asks = {
        200: (
            chunked + b"x-request-timeout: 0\r\ncontent-type: text/plain\r\n\r\n",
            request_head(f"{run_path}/", "connection: close", length=len(body)) + body,
            request_head("/v1/runs/?limit=1", "connection: close", method="GET"),
            request_head("/healthz", "connection: close", method="HEAD"),
            request_head("/readyz", "connection: close", method="HEAD"),
        ),
        404: (request_head("/v1/nothing/", "connection: close", method="GET"),),
        415: (request_head(run_path, "connection: close", length=1).replace(b"application/json", b"a/b") + b"{",),
    }

    async def main():
        async with serving(folder) as served:
            return {
                status: [(await said_back(served, ask)).partition(b"\r\n\r\n") for ask in each]
                for status, each in asks.items()
            }

    told = run(main())
    for status, answers in told.items():
        assert [int(head[9:12]) for head, _, _ in answers] == [status] * len(asks[status])
    assert [body for _, _, body in told[200][-2:]] == [b"", b""]


@pytest.mark.promise("serve-refuses")
@pytest.mark.parametrize("path", ["/v1/responses/resp_1", "/v1/runs/x/events"])
def test_a_query_of_too_many_parameters_is_refused(folder, path):
    async def main():
        async with serving(folder) as served:
            query = "&".join(f"a{number}=1" for number in range(200))
            async with served.http.get(f"{path}?{query}") as answer:
                assert answer.status == 400

    run(main())


@pytest.mark.promise("serve-refuses")
def test_the_document_says_what_each_route_needs_and_how_it_refuses(folder):
    async def main():
        async with serving(folder) as served:
            document = (await served.get("/openapi.json"))[2]
            paths = [
                "/v1/runs?until=9914-07-06T08:17:29-23:24",
                "/v1/runs?since=0001-01-01T00:00:00%2B23:59",
                "/v1/runs?until=0.5",
                "/v1/runs?after=99999999999999999999",
                "/v1/runs?after=",
                "/v1/runs?after=1.5~7&order=newest",
            ]
            statuses = [(await served.get(path))[0] for path in paths]
            async with served.http.request("PATCH", "/v1/runs/x") as answer:
                return document, statuses, answer.headers["allow"]

    document, statuses, allow = run(main())
    assert "security" not in document  # no keys are kept
    for path, operations in document["paths"].items():
        for operation in operations.values():
            named = {each["name"] for each in operation["parameters"] if each["in"] == "path"} if "{" in path else set()
            assert named == set(re.findall(r"\{(\w+)\}", path))
            (kind,) = operation["responses"]["default"]["content"]
            assert kind in ("application/json", "application/problem+json")
    chat = document["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert chat["properties"]["temperature"] == {"type": ["number", "null"], "minimum": 0, "maximum": 2}
    assert statuses == [200, 400, 400, 400, 400, 200]
    assert allow == "DELETE, GET"


@pytest.mark.promise("serve-drains")
def test_a_server_that_is_told_to_stop_is_unready_at_once_and_ends_what_is_under_way(tmp_path):
    async def main():
        async with FaultServer({"m": SlowFirstToken(2.5, Healthy("at last"))}) as upstream:
            write(tmp_path, remote=model_at(upstream))
            async with serving(tmp_path, drain_notice_s=2.0, drain_s=20.0) as served:
                under_way = asyncio.create_task(served.run("remote"))
                await upstream.until_asked(1)
                served.server.should_exit = True
                statuses = {200}
                async with asyncio.timeout(10):
                    while 503 not in statuses:  # the server looks at it ten times a second
                        statuses.add((await served.get("/readyz"))[0])
                late = (await served.run("remote", query="?background"))[0]
                status, _, result = await under_way
                return statuses, late, status, result["answer"]

    assert run(main()) == ({200, 503}, 202, 200, "at last")


@pytest.mark.promise("serve-drains")
def test_who_has_no_answer_by_the_end_is_told_in_its_own_dialect_and_the_run_says_why(tmp_path):
    asks = [(f"silent{of}", stream) for of in ("", "/chain") for stream in (False, True)] + [("stalls/chain", True)]

    async def main():
        async with FaultServer({"silent": Silence(), "stalls": Stall(answer=Healthy("Many words. " * 60))}) as upstream:
            for name in ("silent", "stalls"):
                write(tmp_path, **{name: model_at(upstream, name).replace("model: m", f"model: {name}")})

            async def ask(served, name, stream):
                body = {"model": name, "messages": [{"role": "user", "content": "hi"}], "stream": stream}
                async with served.http.post("/v1/chat/completions", json=body) as answer:
                    return answer.status, '"code":"stopping"' in await answer.text()

            async with serving(tmp_path) as served:
                under_way = [asyncio.create_task(ask(served, *each)) for each in asks]
                await upstream.until_asked(len(asks))
                served.server.should_exit = True
                told = await asyncio.gather(*under_way)
            async with serving(tmp_path) as served:
                return told, (await served.get("/v1/runs"))[2]["runs"]

    told, runs = run(main())
    assert told == [(503, True)] * 4 + [(200, True)]
    assert [row["error"] for row in runs] == ["the server stopped before it had ended"] * 2


@pytest.mark.promise("serve-drains")
def test_who_stops_it_by_hand_waits_for_no_balancer(folder):
    async def main():
        async with serving(folder, drain_notice_s=3600.0, drain_s=3600.0) as served:
            served.server.handle_exit(signal.SIGINT, None)

    run(main())
