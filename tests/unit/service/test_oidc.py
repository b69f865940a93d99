"""Tokens of an identity provider: what opens, what does not, and what the provider's absence costs."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from shared_libs.atomic.errors import MisuseError
from shared_libs.service.oidc import FRESH_S, STALE_S, UNKNOWN_S, OidcTokens
from shared_libs.service.problems import Problem
from shared_libs.service.server import make_server
from shared_libs.service.settings import OidcSettings, load_settings
from tests.service import HELLO, serving, write
from tests.support import run, run_virtual

SECRETS = {
    "a": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "b": ec.generate_private_key(ec.SECP256R1()),
}
ALGORITHMS = {"a": "RS256", "b": "ES256"}


def published(kid):
    made = jwt.algorithms.get_default_algorithms()[ALGORITHMS[kid]].to_jwk(SECRETS[kid].public_key(), as_dict=True)
    return made | {"kid": kid, "use": "sig"}


@asynccontextmanager
async def provider(kids=("a",)):
    """An identity provider that counts how often its keys are asked for; `kids` are those that it publishes."""
    state = {"asked": [], "down": [], "kids": list(kids)}

    async def configuration(request):
        return web.json_response({"jwks_uri": f"http://{request.host}/keys"})

    async def keys(_):
        state["asked"].append(time.time())
        if state["down"]:
            raise web.HTTPServiceUnavailable
        answer = web.StreamResponse()
        await answer.prepare(_)
        told = json.dumps({"keys": [*map(published, state["kids"]), {"kty": "unheard of", "kid": "x"}, None]}).encode()
        for part in (told[:100], told[100:]):  # as it comes over a line
            await answer.write(part)
            await asyncio.sleep(0)
        return answer

    app = web.Application()
    app.router.add_get("/.well-known/openid-configuration", configuration)
    app.router.add_get("/keys", keys)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", state
    finally:
        await runner.cleanup()


def token(issuer, kid="a", key=None, algorithm=None, **claims):
    told = {"iss": issuer, "aud": "factory", "sub": "ann", "exp": time.time() + 60, "team": "ops", "scope": "runs:read"}
    told = {name: value for name, value in (told | claims).items() if value is not None}
    named = {} if kid is None else {"kid": kid}
    return jwt.encode(told, key or SECRETS[kid or "a"], algorithm or ALGORITHMS[kid or "a"], headers=named)


async def outcome(tokens, text):
    try:
        return await tokens.caller(text)
    except Problem as problem:
        return problem.kind.status


@pytest.mark.promise("serve-oidc")
def test_only_a_token_that_the_provider_signed_for_us_opens():
    async def main():
        async with provider(("a", "b")) as (issuer, _):
            tokens = OidcTokens(OidcSettings(issuer=issuer, audience="factory", scopes_prefix="f:"))
            right = await tokens.caller(token(issuer, scope="f:runs:read openid f:agents:run:*"))
            elliptic = await tokens.caller(token(issuer, kid="b", scope=["f:runs:read"]))
            wrong = [
                token(issuer, aud="another"),
                token("https://another"),
                token(issuer, exp=time.time() - 120),
                token(issuer, exp=None),
                token(issuer, sub=None),
                token(issuer, nbf=time.time() + 600),
                token(issuer, key=rsa.generate_private_key(public_exponent=65537, key_size=2048)),
                token(issuer, key="x" * 40, algorithm="HS256"),  # signed with what everybody knows
                jwt.encode({"iss": issuer, "sub": "ann"}, None, "none"),
                token(issuer, kid="b", key=SECRETS["a"], algorithm="RS256"),
                "a.b.c",
                "..",
            ]
            statuses = [await outcome(tokens, each) for each in wrong]
            teams = [await outcome(tokens, token(issuer, team=team)) for team in (None, "", "a/b", 7)]
            skewed = await outcome(tokens, token(issuer, exp=time.time() - 30))
            await tokens.aclose()
            return right, elliptic, statuses, teams, skewed

    right, elliptic, statuses, teams, skewed = run(main())
    assert (right.team, right.name, right.scopes) == ("ops", "ann", ("runs:read", "agents:run:*"))
    assert right.key_id == elliptic.key_id
    assert "ann" not in right.key_id
    assert elliptic.scopes == ("runs:read",)
    assert statuses == [401] * 12
    assert teams == [403] * 4
    assert skewed.team == "ops"


@pytest.mark.promise("serve-oidc")
def test_the_provider_is_asked_once_for_many_and_its_absence_is_never_a_401():
    async def main():
        async with provider() as (issuer, state):
            tokens = OidcTokens(OidcSettings(issuer=issuer, audience="factory"))
            state["down"].append(True)
            told = [await outcome(tokens, token(issuer))]
            state["down"].clear()
            tokens = OidcTokens(OidcSettings(issuer=issuer, audience="factory"))
            state["asked"].clear()
            told += [(await outcome(tokens, token(issuer))).team for _ in range(20)]
            told += [await outcome(tokens, token(issuer, kid="b")) for _ in range(20)]
            await tokens.aclose()
            return told, len(state["asked"])

    told, asked = run(main())
    assert told == [503] + ["ops"] * 20 + [401] * 20
    assert asked == 1  # a key that nobody knows asks again a minute later


class Published(OidcTokens):
    """Tokens of a provider whose list of keys is at hand: `keys`, or what it fails with; `held` keeps it waiting."""

    def __init__(self, *keys, failure=None):
        super().__init__(OidcSettings(issuer=ISSUER, audience="factory"))
        self.published, self.failure, self.held, self.asked = list(keys), failure, None, 0

    async def _published(self):
        self.asked += 1
        if self.held is not None:
            await self.held.wait()
        if self.failure is not None:
            raise self.failure
        return self.published


ISSUER = "https://login.example.com"
ANOTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PLAIN = published("a")
OF_ANOTHER = jwt.algorithms.RSAAlgorithm.to_jwk(ANOTHER.public_key(), as_dict=True) | {"kid": "a"}


@pytest.mark.promise("serve-oidc")
@pytest.mark.parametrize(
    ("keys", "signed", "status"),
    [
        ([PLAIN], {"algorithm": "PS256"}, 200),  # a key that does not say how it signs, as most do not
        ([PLAIN], {"algorithm": "RS512"}, 200),
        ([PLAIN | {"alg": "RS256"}], {"algorithm": "RS512"}, 401),
        ([OF_ANOTHER, PLAIN], {}, 200),  # two of one name, while one takes the place of the other
        ([PLAIN, OF_ANOTHER], {}, 200),
        ([PLAIN], {"kid": None}, 200),  # a provider of one key need not name it
        ([PLAIN | {"kid": "b"}, None, {}, 5, {"kty": "RSA", "kid": "a", "n": 5, "e": []}], {}, 401),
        ([PLAIN | {"use": "enc"}, OF_ANOTHER], {}, 401),
        ([PLAIN | {"key_ops": ["encrypt"]}, OF_ANOTHER], {}, 401),
        ([PLAIN | {"key_ops": 5}], {}, 503),
        ([], {}, 503),  # none at all proves nothing
        ([PLAIN], {"sub": "a\ud800"}, 200),
        ([PLAIN], {"exp": float("inf")}, 401),
        ([PLAIN], {"aud": [["factory"]]}, 401),
    ],
)
def test_what_providers_publish_and_sign_with(keys, signed, status):
    async def main():
        got = await outcome(Published(*keys), token(ISSUER, **signed))
        return got if isinstance(got, int) else 200

    assert run_virtual(main()) == status


@pytest.mark.promise("serve-oidc")
def test_who_has_a_token_by_a_known_key_waits_for_no_provider():
    async def main():
        tokens, loop = Published(PLAIN), asyncio.get_running_loop()
        told = [await outcome(tokens, token(ISSUER, exp=time.time() + 9999))]
        text = token(ISSUER, exp=time.time() + 9999)
        tokens.held = asyncio.Event()  # it answers no more
        await asyncio.sleep(FRESH_S + 1)
        at = loop.time()
        told += [await outcome(tokens, text) for _ in range(5)]
        waited_s = loop.time() - at
        await asyncio.sleep(1)
        asked = tokens.asked
        tokens.held.set()
        tokens.published = []
        await asyncio.sleep(UNKNOWN_S + 1)
        told += [await outcome(tokens, text) for _ in range(2)]  # an empty list takes nothing away
        await asyncio.sleep(STALE_S)
        return [each.team for each in told], waited_s, asked, await outcome(tokens, text)

    teams, waited_s, asked, at_last = run_virtual(main())
    assert (teams, waited_s, asked, at_last) == (["ops"] * 8, 0, 2, 503)


@pytest.mark.promise("serve-oidc")
def test_a_token_opens_what_its_scopes_say_and_no_key_is_needed_beside(tmp_path):
    async def main():
        async with provider() as (issuer, _):
            text = f"oidc: {{issuer: '{issuer}', audience: factory}}\n"
            write(tmp_path, hello=HELLO, service=text)
            async with serving(tmp_path, key=token(issuer, scope="agents:run:hello")) as served:
                ran = (await served.run())[0]
                read = (await served.get("/v1/runs"))[0]
                none = (await served.get("/v1/runs", authorization="Bearer nothing"))[0]
                return ran, read, none

    assert run(main()) == (200, 403, 401)


def test_an_address_that_anybody_can_write_on_is_refused_and_a_provider_allows_an_open_address(tmp_path):
    with pytest.raises(MisuseError, match="no https address"):
        OidcTokens(OidcSettings(issuer="http://login.example.com", audience="factory"))
    text = f"store: 'sqlite:///{tmp_path}/runs.db'\noidc: {{issuer: 'https://login.example.com', audience: factory}}\n"
    write(tmp_path, hello=HELLO, service=text)
    assert make_server(load_settings(tmp_path), host="0.0.0.0") is not None
