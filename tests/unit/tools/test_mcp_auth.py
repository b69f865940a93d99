"""A program's credentials at an MCP server: given to the one authorization server that is named, and to nobody else."""

from __future__ import annotations

import base64
from contextlib import asynccontextmanager

import httpx2
import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from yarl import URL

from shared_libs.atomic import MisuseError, ToolError
from shared_libs.tools.mcp import MCPToolset
from tests.support import run

SECRET = "of-the-program-1"


class Site:
    """An MCP server and its authorization server, at one address."""

    def __init__(self) -> None:
        self.granted: list[str] = []
        self.asked: list[dict[str, str]] = []
        self.agreed: list[dict[str, str]] = []
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

    async def authorize(self, request):
        """Somebody agrees at once, as far as they are known."""
        self.agreed.append(dict(request.query))
        answer = {"state": request.query["state"]} | ({"error": self.refuses} if self.refuses else {"code": "c1"})
        raise web.HTTPFound(str(URL(request.query["redirect_uri"]) % answer))

    async def register(self, request):
        return web.json_response(await request.json() | {"client_id": "registered"}, status=201)

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
    app.router.add_post("/register", site.register)
    app.router.add_get("/authorize", site.authorize)
    resource = lambda request: web.json_response(  # noqa: E731
        {"resource": f"{site.issuer}/mcp", "authorization_servers": [site.issuer]}
    )
    server = lambda request: web.json_response(  # noqa: E731
        {
            "issuer": site.issuer,
            "authorization_endpoint": f"{site.issuer}/authorize",
            "token_endpoint": f"{site.issuer}/token",
            "registration_endpoint": f"{site.issuer}/register",
            "code_challenge_methods_supported": ["S256"],
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


async def listed(source: MCPToolset) -> list[str]:
    try:
        return [tool.name for tool in await source.async_list()]
    finally:
        await source.aclose()


def test_a_program_may_sign_with_its_key():
    key = generate_private_key(SECP256R1())
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    async def main():
        async with serving() as site:
            source = given(site, client_secret="", private_key=text, algorithm="ES256")
            return await listed(source), site.asked[0], site.issuer

    names, asked, issuer = run(main())
    assert names == ["a"]
    signed = jwt.decode(asked["client_assertion"], key.public_key(), algorithms=["ES256"], audience=issuer)
    assert (signed["iss"], signed["sub"]) == ("me", "me")


def test_a_host_may_say_who_the_user_is():
    async def main():
        async with serving() as site:
            source = given(site)

            async def identity(issuer, resource):
                return f"{issuer} {resource}"

            source.identity = identity
            return await listed(source), site.asked[0], site.issuer

    names, asked, issuer = run(main())
    assert names == ["a"]
    assert asked["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    assert asked["assertion"] == f"{issuer} {issuer}/mcp"


async def browse(address):
    """A person who agrees, without a browser: where the site leads back to is the answer."""
    async with httpx2.AsyncClient() as client:
        return (await client.get(address)).headers["location"]


@pytest.mark.parametrize("known", [{}, {"client_id": "me", "client_secret": SECRET}])
def test_a_person_signs_in_by_a_hook_of_the_host(known):
    async def main():
        async with serving() as site:
            source = MCPToolset(url=f"{site.issuer}/mcp", auth={"redirect_uri": "http://127.0.0.1:1/back", **known})
            source.sign_in = browse
            return await listed(source), site.agreed, site.asked

    names, agreed, asked = run(main())
    assert names == ["a"]
    assert [one["client_id"] for one in agreed] == [known.get("client_id", "registered")]
    assert [(one["grant_type"], one["code"]) for one in asked] == [("authorization_code", "c1")]


@pytest.mark.parametrize(("hook", "said"), [(None, "set `sign_in`"), (browse, "nobody signed in: access_denied")])
def test_where_nobody_signs_in_it_is_told(hook, said):
    async def main():
        async with serving() as site:
            site.refuses = "access_denied"
            source = MCPToolset(url=f"{site.issuer}/mcp", auth={"redirect_uri": "http://127.0.0.1:1/back"})
            source.sign_in = hook
            with pytest.raises(ToolError, match=said):
                await listed(source)

    run(main())


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
        ({"issuer": "https://a", "client_id": "b"}, "auth needs client_secret or private_key"),
        ({"redirect_uri": ""}, "auth needs redirect_uri"),
        ({"redirect_uri": "http://127.0.0.1/", "issuer": "https://a"}, "does not know 'issuer'"),
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
