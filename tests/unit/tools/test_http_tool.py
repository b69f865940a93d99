"""The http tool over real connections: what it sends, what it reads, and what it refuses."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import zlib

import pytest

from shared_libs.atomic import Deadline, MisuseError
from shared_libs.atomic.scope import Scope, use_deadline, use_scope
from shared_libs.tools.http_tool import HttpTool
from tests.support import run, run_virtual
from tests.wire_server import Play, WireServer, reply

SECRET = 'tok-12/34"56'


def redirect(target, status=302):
    return reply(b"", status, "text/plain", Location=target)


def page(text, **headers):
    return reply(text.encode(), 200, "text/html; charset=utf-8", **headers)


async def _asked(plays, arguments, **options):
    async with WireServer(plays) as server:
        here = f"127.0.0.1:{server.port}"
        tool = HttpTool(**{"allow": [f"http://{here}"], **options})
        arguments = {"url": f"http://{here}/", **arguments}
        arguments["url"] = arguments["url"].replace("HERE", here)
        try:
            return await tool.async_run(arguments), server
        finally:
            await tool.aclose()


def ask(*plays, **arguments):
    options = arguments.pop("options", {})
    return run(_asked(plays, arguments, **options))


def test_a_page_is_read_as_text():
    result, server = ask(page("<h1>Tea</h1><p>3 &euro; <a href='/more'>more</a>"))
    here = f"http://127.0.0.1:{server.port}"
    assert result.content == f"200 OK, text/html, {here}/\n\n# Tea\n\n3 € [more]({here}/more)"
    assert not result.is_error


def test_a_text_without_a_charset_is_read_by_a_guess_that_is_told():
    text = "会議は月曜日の午前十時に始まります。資料を忘れないでください。"
    result, _ = ask(reply(text.encode("shift_jis"), 200, "text/plain"))
    told = "[no charset is given; it is read as cp932, which is a guess]"
    assert result.content.split("\n\n", 1)[1] == f"{text}\n{told}"


def test_json_is_left_as_it_is():
    body = b'{"b": 1.10,  "a": [ "\xc3\xa9" ]}'
    result, _ = ask(reply(body))
    assert result.content.split("\n\n", 1)[1] == body.decode()


def test_what_is_sent():
    (result, server) = ask(reply({"ok": True}), url="http://HERE/a%20b?q=1#part")
    assert not result.is_error
    (seen,) = server.requests
    assert seen.path == "/a%20b?q=1"
    assert 0 < float(seen.headers["x-request-timeout"]) <= 20
    assert seen.headers["user-agent"] == "genai-factory"
    assert "cookie" not in seen.headers


def test_the_time_left_is_sent_on():
    async def main():
        async with WireServer([reply({}), redirect("/two"), reply({})]) as server:
            url = f"http://127.0.0.1:{server.port}/"
            tool = HttpTool(allow=[f"127.0.0.1:{server.port}"])
            with use_deadline(Deadline.after(5)):
                await tool.async_run({"url": url})
            await tool.async_run({"url": url})
            return [float(seen.headers["x-request-timeout"]) for seen in server.requests]

    narrowed, own, after_redirect = run(main())
    assert 0 < narrowed <= 5
    assert 5 < after_redirect <= own <= 20


@pytest.mark.promise("journal-once")
def test_what_changes_something_carries_the_key_of_its_call():
    async def main(method):
        async with WireServer([reply({"ok": True})]) as server:
            here = f"http://127.0.0.1:{server.port}"
            tool = HttpTool(allow=[here], methods=["GET", "POST"])
            with use_scope(Scope(run_id="R", step=2)):
                await tool.async_run({"url": f"{here}/", "method": method}, call_id="c")
            await tool.aclose()
            return server.requests[0].headers.get("idempotency-key")

    assert (run(main("POST")), run(main("GET"))) == ("R/2/c", None)


def test_json_is_posted_where_the_owner_allows_it():
    options = {"methods": ["GET", "POST"]}
    result, server = ask(reply({"id": 7}), method="POST", body={"name": "é"}, options=options)
    assert '{"id": 7}' in result.content
    assert server.requests[0].body == {"name": "é"}
    assert server.requests[0].headers["content-type"] == "application/json"
    assert not HttpTool(allow=["a.com"], **options).idempotent
    assert HttpTool(allow=["a.com"]).idempotent


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        ({"method": "POST"}, {}, "Invalid arguments for http: "),
        ({"method": "HEAD"}, {"methods": ["GET", "POST"]}, "'HEAD' is not one of ['GET', 'POST']"),
        ({"body": {}}, {"methods": ["GET", "POST"]}, "a GET has no body"),
        ({"method": "POST", "offset": 3}, {"methods": ["GET", "POST"]}, "offset is for GET"),
        ({"offset": -1}, {}, "-1 is less than the minimum of 0"),
        ({"url": "http://localhost:1/"}, {}, "http://localhost on port 1 is not allowed; allowed: http://127.0.0.1:"),
        ({"headers": {"a": "b"}}, {}, "Invalid arguments for http"),
    ],
)
def test_a_call_that_does_not_fit_is_told(arguments, options, said):
    result, server = ask(reply({}), options=options, **arguments)
    assert result.is_error
    assert said in result.content
    assert not server.requests


@pytest.mark.parametrize(
    ("play", "said"),
    [
        (
            reply({"detail": "no such city"}, 404),
            '404 Not Found from http://127.0.0.1:PORT/\n\n{"detail": "no such city"}',
        ),
        (reply(b"<p>later", 503, "text/html", Retry_After="30"), "503 Service Unavailable (Retry-After: 30) from "),
        (reply(b"", 304, "text/plain"), "304 Not Modified from "),
        (reply(b"", 302, "text/plain"), "302 Found from "),
        (reply(b"\x89PNG\0", 200, "image/png"), "200 OK: image/png of 5 bytes is no text; this tool reads HTML, JSON"),
        (reply(b"%PDF-1.7", 200, "application/pdf"), "application/pdf of 8 bytes is no text"),
        (reply(b"ab\0c", 200, "text/plain"), "the answer is binary"),
        (reply(b"ab\0c", 200, "application/octet-stream"), "the answer is binary"),
        (reply({"a": 1}).cut(-3), "the answer broke off or cannot be decoded"),
        (reply(b"no gzip", 200, "text/plain", Content_Encoding="gzip"), "the answer broke off or cannot be decoded"),
        (Play([b"HTTP/1.1 200 OK\r\n"], "close"), "the server closed the connection"),
        (Play([], "reset"), "no answer from 127.0.0.1: "),
        (Play([b"no HTTP\r\n\r\n"], "close"), "no answer from 127.0.0.1: "),
        (Play([b"HTTP/1.1 200 OK\r\nA: " + b"x" * 100_000 + b"\r\n\r\n"], "close"), "no answer from 127.0.0.1: "),
    ],
)
def test_an_answer_that_is_none_is_told(play, said):
    result, server = ask(play)
    assert result.is_error
    assert server.connections == len(server.requests) == 1
    assert said.replace("PORT", str(server.port)) in result.content


def test_nobody_there_and_no_such_name_are_told():
    async def nowhere(host, port):
        raise OSError(-2, "Name or service not known")

    async def main():
        async with WireServer([]) as server:
            gone = server.port
        refused = await HttpTool(allow=[f"127.0.0.1:{gone}"]).async_run({"url": f"http://127.0.0.1:{gone}"})
        unknown = await HttpTool(allow=["*"], resolver=nowhere).async_run({"url": "https://no.example"})
        return refused.content, unknown.content

    assert run(main()) == (
        "no answer from 127.0.0.1: cannot connect (Connection refused)",
        "the name no.example cannot be resolved (Name or service not known)",
    )


def test_a_server_that_hangs_is_left_at_the_deadline():
    async def main():
        async with WireServer([reply({}).unfinished(), Play([], "hang")]) as server:
            tool = HttpTool(allow=[f"127.0.0.1:{server.port}"])
            results = []
            for _ in range(2):
                tool.timeout_s = 0.2
                results.append(await tool.async_run({"url": f"http://127.0.0.1:{server.port}/"}))
            await server.until(lambda: not server.open)
            return [(result.content, result.still_running) for result in results]

    assert run(main()) == [("http did not finish within its 0.2 s", False)] * 2


def test_a_long_answer_comes_in_parts_that_join():
    text = "".join(f"line {number}\n" for number in range(5_000))

    async def main():
        async with WireServer(lambda _: reply(text.encode(), kind="text/plain")) as server:
            tool = HttpTool(allow=[f"127.0.0.1:{server.port}"])
            parts, arguments = [], {"url": f"http://127.0.0.1:{server.port}/"}
            while True:
                result = await tool.async_run(arguments)
                assert len(result.content) <= tool.max_observation_chars
                _, body = result.content.split("\n\n", 1)
                body, _, note = body.partition("\n\n[characters ")
                parts.append(body)
                if not note:
                    break
                arguments["offset"] = int(note.rstrip("]").rpartition(" ")[2])
            past = await tool.async_run({**arguments, "offset": len(text)})
            return parts, past

    parts, past = run(main())
    assert len(parts) == 3
    assert "".join(parts) == text
    assert past.is_error
    assert past.content.startswith(f"offset {len(text)} is past the end")


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("identity", lambda data: data)]
)
def test_no_more_is_read_than_the_limit_however_it_is_packed(encoding, pack):
    bomb = pack(b"a" * 50_000_000)
    play = reply(bomb, 200, "text/plain", Content_Encoding=encoding)
    result, _ = ask(play, options={"max_bytes": 1_000})
    assert not result.is_error
    assert result.content.endswith(
        f"\n\n{'a' * 1000}\n\n[the answer is longer than 1000 bytes; what is behind them was not read]"
    )


def test_reading_stops_at_the_limit_though_more_is_to_come():
    endless = Play([b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n" + b"a" * 3_000], "hang")
    result, server = ask(endless, options={"max_bytes": 1_000})
    assert not result.is_error
    assert not server.open


def test_redirects_are_followed_and_counted():
    hop = [redirect("/a"), redirect("b", 307), redirect("/c", 308)]
    result, server = ask(*hop, reply({"x": 1}), options={"max_redirects": 3})
    assert [seen.path for seen in server.requests] == ["/", "/a", "/b", "/c"]
    assert f"http://127.0.0.1:{server.port}/c\n\n" in result.content
    result, server = ask(*hop, reply({"x": 1}), options={"max_redirects": 2})
    assert result.content == f"more than 2 redirects, the last one to http://127.0.0.1:{server.port}/c"
    assert len(server.requests) == 3


def test_a_post_is_not_repeated_by_a_redirect_unless_it_says_so():
    options = {"methods": ["GET", "POST"]}
    _, server = ask(redirect("/done", 303), reply({}), method="POST", body={"a": 1}, options=options)
    assert [(seen.path, seen.body) for seen in server.requests] == [("/", {"a": 1}), ("/done", None)]
    _, server = ask(redirect("/again", 307), reply({}), method="POST", body={"a": 1}, options=options)
    assert [(seen.path, seen.body) for seen in server.requests] == [("/", {"a": 1}), ("/again", {"a": 1})]
    result, server = ask(redirect("/done", 303), reply({}), body={"a": 1}, options={"methods": ["POST"]})
    assert result.content.startswith("it was done, and redirects to a page to GET")
    assert len(server.requests) == 1


@pytest.mark.promise("ssrf")
@pytest.mark.parametrize(
    "target",
    [
        *("http://169.254.169.254/latest/meta-data/", "http://10.0.0.1/", "http://[::1]:HOST/", "file:///etc/passwd"),
        *("//localhost:HOST/", "http://0x7f000001:HOST/", "http://127.0.0.1:1/", "http://me@127.0.0.1:HOST/"),
        *("http://2130706433/", "http://example.com/", "http://[", "javascript:alert(1)"),
    ],
)
def test_a_redirect_is_checked_like_a_url(target):
    async def main():
        async with WireServer([]) as server:
            port = str(server.port)
            server.plays = [redirect(target.replace("HOST", port)), reply({"reached": True})]
            tool = HttpTool(allow=[f"127.0.0.1:{port}"])
            return await tool.async_run({"url": f"http://127.0.0.1:{port}/"}), len(server.requests)

    result, requests = run(main())
    assert requests == 1
    assert result.is_error
    assert result.content.startswith("127.0.0.1 redirects to where this tool may not go: ")


@pytest.mark.promise("ssrf")
def test_a_name_is_resolved_once_a_hop_and_the_checked_address_is_used():
    """The name stands for a good address when it is checked, and would for another when it is used."""
    asked = []

    async def rebinding(host, port):
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    async def main():
        async with WireServer([reply({"n": 1})]) as server:
            allow = [f"rebind.example:{server.port}", f"127.0.0.1:{server.port}"]
            tool = HttpTool(allow=allow, resolver=rebinding)
            url = f"http://rebind.example:{server.port}/"
            first, second = await tool.async_run({"url": url}), await tool.async_run({"url": url})
            return first, second, server

    first, second, server = run(main())
    assert '{"n": 1}' in first.content
    assert second.content == (
        "the name rebind.example stands for a private address; only public addresses are allowed here"
    )
    assert asked == ["rebind.example"] * 2
    assert [seen.headers["host"] for seen in server.requests] == [f"rebind.example:{server.port}"]


@pytest.mark.promise("ssrf")
@pytest.mark.parametrize("found", [["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["::ffff:127.0.0.1"], ["169.254.169.254"]])
def test_a_name_of_an_address_inside_is_refused(found):
    async def inside(host, port):
        return found

    async def main():
        async with WireServer([reply({})]) as server:
            tool = HttpTool(allow=[f"*:{server.port}", f"127.0.0.1:{server.port}"], resolver=inside)
            result = await tool.async_run({"url": f"http://evil.example:{server.port}/"})
            return result, server.connections

    result, connections = run(main())
    assert result.content.startswith("the name evil.example stands for ")
    assert connections == 0


@pytest.mark.promise("ssrf")
def test_the_proxies_of_the_environment_are_not_used(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    result, _ = ask(reply({"direct": True}))
    assert "direct" in result.content


def test_cookies_are_not_kept():
    async def main():
        async with WireServer([reply(b"", 302, Location="/two", Set_Cookie="a=b"), reply({}), reply({})]) as server:
            tool = HttpTool(allow=[f"localhost:{server.port}"])
            for _ in range(2):
                await tool.async_run({"url": f"http://localhost:{server.port}/"})
            return [seen.headers for seen in server.requests]

    headers = run(main())
    assert len(headers) == 3
    assert not any("cookie" in seen for seen in headers)


def test_the_headers_of_the_owner_are_sent_and_stay_unseen():
    def echo(seen):
        token = seen.headers["authorization"].split()[1]
        if seen.path == "/error":
            return reply({"you sent": token}, 401)
        if seen.path == "/moved":
            return redirect(f"/there?t={token.replace('/', '%2F').replace(chr(34), '%22')}")
        return reply(json.dumps({"headers": seen.headers, "url": seen.path}).encode())

    async def main():
        async with WireServer(echo) as server:
            headers = {"Authorization": f"Bearer {SECRET}", "X-Team": "blue"}
            tool = HttpTool(allow=[f"http://127.0.0.1:{server.port}"], headers=headers)
            url = f"http://127.0.0.1:{server.port}"
            return [(await tool.async_run({"url": url + path})).content for path in ("/", "/error", "/moved")], server

    contents, server = run(main())
    assert [seen.headers["authorization"] for seen in server.requests] == [f"Bearer {SECRET}"] * 4
    assert "blue" in contents[0]
    for content in contents:
        assert "[secret]" in content
        assert not any(part in content for part in ("tok-12", "34\\", "%2F34", '"56'))


@pytest.mark.promise("ssrf")
def test_headers_do_not_follow_a_redirect_to_another_host():
    async def main():
        async with WireServer([reply({})]) as other, WireServer([]) as server:
            target = f"http://127.0.0.1:{other.port}/"
            server.plays = [redirect(target)]
            allow = [f"http://127.0.0.1:{port}" for port in (server.port, other.port)]
            tool = HttpTool(allow=allow, headers={"X-Api-Key": SECRET})
            await tool.async_run({"url": f"http://127.0.0.1:{server.port}/"})
            return server.requests[0].headers, other.requests[0].headers

    sent, followed = run(main())
    assert sent["x-api-key"] == SECRET
    assert "x-api-key" not in followed


def test_headers_are_not_sent_in_the_clear_unless_the_owner_wrote_http():
    async def main():
        async with WireServer([]) as server:
            tool = HttpTool(allow=[f"127.0.0.1:{server.port}"], headers={"X-Api-Key": SECRET})
            return await tool.async_run({"url": f"http://127.0.0.1:{server.port}/"}), server.connections

    result, connections = run(main())
    assert result.content == "this tool sends headers of its owner, and those over https only; write https://…"
    assert connections == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"allow": []}, "allow: give a list of hosts"),
        ({"methods": []}, "methods: give some of GET, POST, PUT, PATCH, DELETE"),
        ({"methods": ["TRACE"]}, "methods: give some of"),
        ({"max_bytes": 0}, "max_bytes is a whole number from 1, not 0"),
        ({"max_redirects": -1}, "max_redirects is a whole number from 0, not -1"),
        ({"headers": {"Host": "b.com"}}, "headers: Host is set by the tool itself"),
        ({"headers": {"A\r\nB": "x"}}, "headers: 'A\\r\\nB' cannot be sent"),
        ({"headers": {"A": f"x\r\n{SECRET}"}}, "headers: 'A' cannot be sent"),
        ({"allow": ["a.com", "*"], "headers": {"A": "b"}}, "headers: with '*' in `allow` they would be sent to every"),
    ],
)
def test_options_that_cannot_work_are_refused(options, said):
    with pytest.raises(MisuseError) as caught:
        HttpTool(**{"allow": ["a.com"], **options})
    assert said in str(caught.value)
    assert SECRET not in str(caught.value)


def test_the_model_is_told_where_it_may_go():
    spec = HttpTool(allow=["api.example.com", "*.example.org"]).spec
    assert spec.description.endswith("Allowed: api.example.com, *.example.org.")
    assert set(spec.parameters["properties"]) == {"url", "offset"}
    spec = HttpTool(allow=["*"], methods=["POST"]).spec
    assert spec.description.endswith("Allowed: any public host on its usual port.")
    assert set(spec.parameters["properties"]) == {"url", "body"}


@pytest.mark.promise("loop-per-client")
def test_one_tool_serves_many_calls_and_two_loops():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    tool = HttpTool(allow=[f"localhost:{port}"])

    async def main():
        async with WireServer(lambda seen: reply(seen.path.encode(), kind="text/plain"), port=port):
            calls = [tool.async_run({"url": f"http://localhost:{port}/{number}"}) for number in range(20)]
            return [result.content.rpartition("/")[2] for result in await asyncio.gather(*calls)]

    assert run(main()) == run(main()) == [str(number) for number in range(20)]


def test_a_lookup_that_hangs_ends_at_the_deadline():
    async def silent(host, port):
        await asyncio.Event().wait()

    async def main():
        tool = HttpTool(allow=["*"], resolver=silent)
        return await tool.async_run({"url": "https://slow.example/"}), asyncio.get_running_loop().time()

    result, ended = run_virtual(main())
    assert result.content == "http did not finish within its 20 s"
    assert ended == pytest.approx(20)
