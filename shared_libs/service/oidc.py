"""
Tokens of an identity provider (OpenID Connect): signed JWTs instead of keys of ours.

Only asymmetric signatures count, by keys that the provider publishes; they are kept for `FRESH_S`, and go on being good
for `STALE_S` while the provider does not answer. A token by a key that nobody knows asks the provider, at most once in
`UNKNOWN_S`. Trouble with the provider is 503: only proof makes a 401.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

from shared_libs.atomic.errors import FactoryError, MisuseError
from shared_libs.atomic.loading import load, needs
from shared_libs.service.callers import Caller
from shared_libs.service.edge import is_loopback
from shared_libs.service.problems import Problem

if TYPE_CHECKING:
    import jwt

    from shared_libs.service.settings import OidcSettings

_log = logging.getLogger("shared_libs.service")

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"]
"""A shared secret is nobody's proof: no HMAC, and no `none`."""

LEEWAY_S = 60.0
FRESH_S = 600.0
STALE_S = 3600.0
UNKNOWN_S = 60.0
TIMEOUT_S = 5.0
MAX_BYTES = 1_000_000

_NO_KEYS = (ValueError, LookupError, TypeError, AttributeError)  # what came is JSON of another shape, or none
_TEAM = re.compile(r"[A-Za-z0-9._-]{1,64}")


class ProviderDown(FactoryError):
    """The identity provider does not answer, or not with keys."""


class OidcTokens:
    """
    Says who has a token.

    Args:
        settings: whose tokens count, and which of their claims say what.

    Raises:
        MisuseError: the extra is not installed, or an address is not `https`.

    """

    def __init__(self, settings: OidcSettings) -> None:
        needs("jwt", "`oidc`")
        needs("cryptography", "`oidc`")
        for url in filter(None, (settings.issuer, settings.jwks)):
            _check_address(url)
        self._settings = settings
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._read_at = self._asked_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    async def caller(self, token: str) -> Caller:
        """
        Say who has a token.

        Raises:
            Problem: it is not valid, or the provider does not answer.

        """
        await load("jwt")
        import jwt

        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError as error:
            raise _wrong("it cannot be read") from error
        if header.get("alg") not in ALGORITHMS:
            raise _wrong(f"signatures are by {', '.join(ALGORITHMS)}")
        key = await self._key(str(header.get("kid", "")))
        if key is None:
            raise _wrong("its key is none of the provider's")
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=ALGORITHMS,
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.PyJWTError as error:
            raise _wrong(str(error)) from error
        return self._caller(claims)

    async def aclose(self) -> None:
        """End what is under way."""
        if self._reading is not None:
            self._reading.cancel()

    def _caller(self, claims: Mapping[str, Any]) -> Caller:
        settings = self._settings
        team, told = claims.get(settings.team_claim), claims.get(settings.scopes_claim, "")
        if not isinstance(team, str) or not _TEAM.fullmatch(team):
            raise Problem("forbidden", f"the token's claim {settings.team_claim!r} names no team")
        scopes = told.split() if isinstance(told, str) else told
        if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in scopes):
            raise Problem("forbidden", f"the token's claim {settings.scopes_claim!r} is no list of scopes")
        mine = [
            scope.removeprefix(settings.scopes_prefix) for scope in scopes if scope.startswith(settings.scopes_prefix)
        ]
        # whoever it is has limits and a queue of their own, by a name that tells nobody who it is
        who = hashlib.blake2b(f"{claims['iss']}\n{claims['sub']}".encode(), digest_size=8).hexdigest()
        return Caller(key_id=f"oidc-{who}", team=team, name=str(claims["sub"])[:100], scopes=tuple(mine))

    async def _key(self, kid: str) -> jwt.PyJWK | None:
        clock = asyncio.get_running_loop().time
        age_s = clock() - self._read_at
        unknown = kid not in self._keys
        if age_s > FRESH_S or (unknown and clock() - self._asked_at > UNKNOWN_S):
            try:
                await self._refresh()
            except ProviderDown as error:
                if unknown or age_s > STALE_S:
                    _log.warning("%s", error)
                    raise Problem(
                        "store_unavailable", "the identity provider does not answer; try again", retry_after_s=1.0
                    ) from error
        return self._keys.get(kid)

    async def _refresh(self) -> None:
        """Read the provider's keys, once for all who wait."""
        if self._reading is None:
            self._reading = asyncio.get_running_loop().create_task(self._read())
            self._reading.add_done_callback(self._is_read)
        await asyncio.shield(self._reading)

    def _is_read(self, task: asyncio.Task[None]) -> None:
        self._reading = None
        if not task.cancelled():
            task.exception()  # whoever waits hears of it

    async def _read(self) -> None:
        import jwt

        loop = asyncio.get_running_loop()
        self._asked_at = loop.time()
        keys = {}
        try:
            async with asyncio.timeout(TIMEOUT_S):
                found = await self._published()
            for each in found:
                try:
                    keys[str(each.get("kid", ""))] = jwt.PyJWK.from_dict(each)
                except jwt.PyJWTError:
                    continue  # of a kind that nobody here reads
        except (aiohttp.ClientError, TimeoutError, MisuseError, *_NO_KEYS) as error:
            why = str(error) or type(error).__name__
            raise ProviderDown(f"the identity provider {self._settings.issuer}: {why}") from error
        self._keys, self._read_at = keys, loop.time()

    async def _published(self) -> Any:
        url = self._settings.jwks
        async with aiohttp.ClientSession() as http:
            if url is None:
                told = await _json(http, f"{self._settings.issuer.rstrip('/')}/.well-known/openid-configuration")
                url = str(told["jwks_uri"])
                _check_address(url)
            return (await _json(http, url))["keys"]


async def _json(http: aiohttp.ClientSession, url: str) -> Any:
    async with http.get(url, allow_redirects=False) as answer:
        answer.raise_for_status()
        return msgspec.json.decode(await answer.content.read(MAX_BYTES))


def _check_address(url: str) -> None:
    """Keys that came over a line anybody can write on prove nothing."""
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or "")):
        return
    raise MisuseError(f"oidc: {url[:200]!r} is no https address")


def _wrong(why: str) -> Problem:
    return Problem("unauthorized", f"this is no valid token: {why}")
