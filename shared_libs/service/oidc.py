"""
Tokens of an identity provider (OpenID Connect): signed JWTs instead of keys of ours.

Only asymmetric signatures count, by keys that the provider publishes; they are kept for `FRESH_S`, and go on being good
for `STALE_S` while the provider does not answer. A token by a key that nobody knows asks the provider, at most once in
`UNKNOWN_S`. Trouble with the provider is 503: only proof makes a 401.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

from shared_libs.atomic.errors import FactoryError, MisuseError
from shared_libs.atomic.loading import load, needs
from shared_libs.observability.printable import printable
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
MOST_TRIED = 10
"""How many keys are tried for a token where several may have signed it."""

_NO_KEYS = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What came is JSON of another shape, or none."""
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
        self._keys: Sequence[dict[str, Any]] = ()
        self._made: dict[tuple[str | None, str], Sequence[jwt.PyJWK]] = {}
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

        unreadable = (jwt.PyJWTError, ValueError, TypeError, RecursionError)
        try:
            header = jwt.get_unverified_header(token)
        except unreadable as error:
            raise _wrong("it cannot be read") from error
        if header.get("alg") not in ALGORITHMS:
            raise _wrong(f"signatures are by {', '.join(ALGORITHMS)}")
        why: Exception | None = None
        for key in await self._keys_for(header.get("kid"), header["alg"]):
            try:
                return self._caller(self._read_token(token, key))
            except jwt.InvalidSignatureError as error:
                why = error  # providers may give two keys one name, or none
            except unreadable as error:
                raise _wrong(str(error)) from error
        raise _wrong("its key is none of the provider's" if why is None else str(why)) from why

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
        name = f"{claims['iss']}\n{claims['sub']}".encode("utf-8", "surrogatepass")
        who = hashlib.blake2b(name, digest_size=8).hexdigest()
        shown = printable(str(claims["sub"])[:100])
        return Caller(key_id=f"oidc-{who}", team=team, name=shown, scopes=tuple(mine))

    def _read_token(self, token: str, key: jwt.PyJWK) -> Mapping[str, Any]:
        import jwt

        told: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=ALGORITHMS,
            audience=self._settings.audience,
            issuer=self._settings.issuer,
            leeway=LEEWAY_S,
            options={"require": ["exp", "iss", "aud", "sub"]},
        )
        return told

    async def _keys_for(self, kid: str | None, alg: str) -> Sequence[jwt.PyJWK]:
        """Return the keys that may have signed a token; whoever comes with a known one waits for no provider."""
        now = asyncio.get_running_loop().time
        age_s = now() - self._read_at
        may_ask = now() - self._asked_at > UNKNOWN_S
        known = self._fitting(kid, alg)
        if known and age_s <= STALE_S:
            if age_s > FRESH_S and may_ask:
                self._refresh()
        elif may_ask or age_s > FRESH_S:
            try:
                await asyncio.shield(self._refresh())
            except ProviderDown as error:
                _log.warning("%s", error)
                raise Problem(
                    "store_unavailable", "the identity provider does not answer; try again", retry_after_s=1.0
                ) from error
            known = self._fitting(kid, alg)
        return known

    def _fitting(self, kid: str | None, alg: str) -> Sequence[jwt.PyJWK]:
        """Return the published keys of a name, of any where the token names none, that can sign so."""
        import jwt

        if (kid, alg) not in self._made:
            made = []
            for each in self._keys:
                if each.get("alg") in (None, alg) and (kid is None or each.get("kid") == kid):
                    with contextlib.suppress(
                        jwt.PyJWTError, *_NO_KEYS
                    ):  # of a kind that does not sign so, or that nobody reads
                        made.append(jwt.PyJWK.from_dict(each, algorithm=alg))
            if not made:
                return ()
            self._made[kid, alg] = made[:MOST_TRIED]
        return self._made[kid, alg]

    def _refresh(self) -> asyncio.Task[None]:
        """Read the provider's keys, once for all who wait."""
        if self._reading is None:
            self._reading = asyncio.get_running_loop().create_task(self._read())
            self._reading.add_done_callback(self._is_read)
        return self._reading

    def _is_read(self, task: asyncio.Task[None]) -> None:
        self._reading = None
        if not task.cancelled():
            task.exception()  # whoever waits hears of it; where nobody does, what is known goes on

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        self._asked_at = loop.time()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                found = [each for each in await self._published() if _signs(each)]
        except (aiohttp.ClientError, TimeoutError, MisuseError, *_NO_KEYS) as error:
            why = str(error) or type(error).__name__
            raise ProviderDown(f"the identity provider {self._settings.issuer}: {why}") from error
        if not found:  # that there is none proves nothing against a token
            raise ProviderDown(f"the identity provider {self._settings.issuer} publishes no keys")
        self._keys, self._made, self._read_at = found, {}, loop.time()

    async def _published(self) -> Any:
        url = self._settings.jwks
        async with aiohttp.ClientSession() as http:
            if url is None:
                told = await _json(http, f"{self._settings.issuer.rstrip('/')}/.well-known/openid-configuration")
                url = str(told["jwks_uri"])
                _check_address(url)
            return (await _json(http, url))["keys"]


async def _json(http: aiohttp.ClientSession, url: str) -> Any:
    told = bytearray()
    async with http.get(url, allow_redirects=False) as answer:
        answer.raise_for_status()
        async for part in answer.content.iter_any():
            told += part
            if len(told) > MAX_BYTES:
                raise ValueError(f"more than {MAX_BYTES:,} bytes")
    return msgspec.json.decode(told)


def _signs(told: Any) -> bool:
    """Whether a published key is one for signatures, so far as it says what it is for."""
    if not isinstance(told, dict) or told.get("use", "sig") != "sig":
        return False
    uses = told.get("key_ops", ["verify"])
    return isinstance(uses, list) and "verify" in uses


def _check_address(url: str) -> None:
    """Keys that came over a line anybody can write on prove nothing."""
    parts = urlsplit(url)
    if parts.hostname and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))):
        return
    raise MisuseError(f"oidc: {url[:200]!r} is no https address")


def _wrong(why: str) -> Problem:
    return Problem("unauthorized", f"this is no valid token: {why}")
