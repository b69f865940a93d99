"""A program's credentials at an MCP server: given to the one authorization server that is named, and to nobody else."""

from __future__ import annotations

import base64
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from shared_libs.atomic import MisuseError, ToolError
from shared_libs.tools.mcp import MCPToolset
from tests.support import run

SECRET = "of-the-program-1"


class Site:
    """An MCP server and its authorization server, at one address."""

    def __init__(self) -> None:
        self.granted: list[str] = []
        self.asked: list[dict[str, str]] = []
        self.refuses = ""
        self.issuer = ""

    async def token(self, request):
        form = dict(await request.post())
        form["authorization"] = request.headers.get("authorization", "")
        self.asked.append(form)
        if self.refuses:
            return web.json_response({"error": self.refuses}, status=400)
        self.granted.append(f"token-{len(self.granted)}-of-the-server")
        return web.json_response({"access_token": self.granted[-1], "token_type": "Bearer", "expires_in": 3600})

    async def mcp(self, request):
        if not self.granted or request.headers.get("authorization") != f"Bearer {self.granted[-1]}":
            words = f'Bearer resource_metadata="{self.issuer}/.well-known/oauth-protected-resource/mcp"'
            return web.json_response({"error": "invalid_token"}, status=401, headers={"WWW-Authenticate": words})
        asked = await request.json()
        if "id" not in asked:
            return web.Response(status=202)
        said = {
            "initialize": {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}},
            "tools/list": {"tools": [{"name": "a"}]},
        }.get(asked["method"])
        refused = {"code": -32000, "message": f"called with {request.headers['authorization']}"}
        reply = {"error": refused} if said is None else {"result": said}
        return web.json_response({"jsonrpc": "2.0", "id": asked["id"]} | reply)


@asynccontextmanager
async def serving():
    site = Site()
    app = web.Application()
    app.router.add_post("/mcp", site.mcp)
    app.router.add_post("/token", site.token)
    resource = lambda request: web.json_response(  # noqa: E731
        {"resource": f"{site.issuer}/mcp", "authorization_servers": [site.issuer]}
    )
    server = lambda request: web.json_response(  # noqa: E731
        {
            "issuer": site.issuer,
            "authorization_endpoint": f"{site.issuer}/authorize",
            "token_endpoint": f"{site.issuer}/token",
            "response_types_supported": ["code"],
        }
    )

    async def answer(request):
        return resource(request) if "protected-resource" in request.path else server(request)

    app.router.add_get("/.well-known/{rest:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    place = web.TCPSite(runner, "127.0.0.1", 0)
    await place.start()
    site.issuer = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield site
    finally:
        await runner.cleanup()


def given(site: Site, **more: str) -> MCPToolset:
    auth = {"issuer": site.issuer, "client_id": "me", "client_secret": SECRET, **more}
    return MCPToolset(url=f"{site.issuer}/mcp", auth=auth)


def test_a_token_is_got_once_and_anew_when_it_is_not_taken_any_more():
    async def main():
        async with serving() as site:
            source = given(site)
            try:
                (tool,) = await source.async_list()
                first = await tool.async_run({})
                site.granted.append("another")  # the one we have is not taken any more
                second = await tool.async_run({})
                return site.asked, first, second, site.granted
            finally:
                await source.aclose()

    asked, first, second, granted = run(main())
    basic = "Basic " + base64.b64encode(f"me:{SECRET}".encode()).decode()
    assert [(one["grant_type"], one["authorization"]) for one in asked] == [("client_credentials", basic)] * 2
    assert first.content == second.content
    assert first.content.endswith("refused the call of a: called with Bearer ***")
    assert len(granted) == 3


def test_the_secret_is_sent_in_the_form_where_the_method_says_so():
    async def main():
        async with serving() as site:
            source = given(site, method="post")
            try:
                return [tool.name for tool in await source.async_list()], site.asked[0]
            finally:
                await source.aclose()

    names, asked = run(main())
    assert names == ["a"]
    assert (asked["client_id"], asked["client_secret"], asked["authorization"]) == ("me", SECRET, "")


@pytest.mark.promise("secrets-masked")
@pytest.mark.parametrize(("refuses", "issuer"), [("invalid_client", ""), ("", "https://elsewhere.example")])
def test_what_is_refused_or_leads_elsewhere_is_told_and_gets_no_credentials(refuses, issuer):
    async def main():
        async with serving() as site:
            site.refuses = refuses
            source = given(site, **({"issuer": issuer} if issuer else {}))
            try:
                with pytest.raises(ToolError) as caught:
                    await source.async_list()
                return str(caught.value), site.asked
            finally:
                await source.aclose()

    told, asked = run(main())
    assert (refuses or "elsewhere.example") in told
    assert SECRET not in told
    assert bool(asked) == bool(refuses)


@pytest.mark.parametrize(
    ("auth", "said"),
    [
        ({}, "auth needs issuer"),
        ({"issuer": "https://a", "client_id": "b"}, "auth needs client_secret"),
        ({"issuer": "https://a", "client_id": "b", "client_secret": "c", "scopes": "d"}, "does not know 'scopes'"),
        ({"issuer": "https://a", "client_id": "b", "client_secret": "c", "method": "jwt"}, "basic or post"),
        ({"issuer": "a.b", "client_id": "b", "client_secret": "c"}, "https:// address"),
    ],
)
def test_credentials_that_cannot_be_are_refused(auth, said):
    with pytest.raises(MisuseError, match=said):
        MCPToolset(url="https://h/mcp", auth=auth)
    with pytest.raises(MisuseError, match="auth goes with `url`"):
        MCPToolset(command=["x"], auth={"issuer": "https://a"})
