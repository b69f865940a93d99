"""
How an MCP server at an address is told who we are: OAuth 2.1, as MCP specifies it.

The credentials of a program go to the one authorization server that is named, whatever the MCP server says. A person
signs in where the MCP server leads, by a hook of the host. A token is kept in memory, for the connections of one tool,
and is asked for anew when it is over.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from shared_libs.atomic.errors import MisuseError, ToolError
from shared_libs.atomic.loading import importing

with importing("mcp", "an MCP server"):
    from mcp.client.auth import OAuthClientProvider
    from mcp.client.auth.extensions.client_credentials import (
        ClientCredentialsOAuthProvider,
        PrivateKeyJWTOAuthProvider,
        SignedJWTParameters,
    )
    from mcp.client.auth.extensions.identity_assertion import IdentityAssertionOAuthProvider
    from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

SignIn = Callable[[str], Awaitable[str]]
"""Given the address where somebody agrees, gives the one that the browser is led back to, with its code."""

Identity = Callable[[str, str], Awaitable[str]]
"""Given the authorization server and the MCP server, gives what a company's identity provider says of the user."""

_METHODS = {"basic": "client_secret_basic", "post": "client_secret_post"}
_SECRETS = ("client_secret", "private_key")
_OF_A_PROGRAM = ("issuer", "client_id", *_SECRETS, "method", "algorithm")
_OF_A_PERSON = ("redirect_uri", "client_id", "client_secret", "method", "client_metadata_url", "scope")


class Credentials:
    """
    Who we are, and the token that was given last.

    Args:
        given: of a program `issuer` and `client_id`; with `client_secret`, and `method`, how it is sent ("basic", the
            default, or "post"), or with `private_key` (PEM) and `algorithm` (RS256). Where a person signs in,
            `redirect_uri`, to which the browser is led back, and what is registered, if anything is: `client_id` and
            `client_secret`, or `client_metadata_url`. Which scopes are asked for, the MCP server says; else `scope`.
        hide: told every token, which no error may show.

    Raises:
        MisuseError: a key is missing or not known, or a value is not valid.

    """

    def __init__(self, given: Mapping[str, str], hide: Callable[[str], None]) -> None:
        self._by_a_person = "redirect_uri" in given
        allowed = _OF_A_PERSON if self._by_a_person else _OF_A_PROGRAM
        needed = ("redirect_uri",) if self._by_a_person else ("issuer", "client_id")
        missing = [key for key in needed if not given.get(key)]
        if not missing and not self._by_a_person and not any(map(given.get, _SECRETS)):
            missing = [" or ".join(_SECRETS)]
        if missing:
            raise MisuseError(f"auth needs {missing[0]}; allowed are {', '.join(allowed)}")
        if unknown := [key for key in given if key not in allowed]:
            raise MisuseError(f"auth does not know {unknown[0]!r}; allowed are {', '.join(allowed)}")
        if given.get("method", "basic") not in _METHODS:
            raise MisuseError(f"auth.method is {' or '.join(_METHODS)}, not {given['method']!r}")
        if not self._by_a_person and urlsplit(given["issuer"]).scheme not in ("http", "https"):
            raise MisuseError("auth.issuer is the http:// or https:// address of the authorization server")
        self._given = given
        self._hide = hide
        self._tokens: OAuthToken | None = None
        self._client: OAuthClientInformationFull | None = None
        if self._by_a_person and given.get("client_id"):
            how = _METHODS[given.get("method", "basic")] if given.get("client_secret") else "none"
            told: Any = {**given, "redirect_uris": [given["redirect_uri"]], "token_endpoint_auth_method": how}
            self._client = OAuthClientInformationFull.model_validate(told)

    def provider(self, url: str, sign_in: SignIn | None, identity: Identity | None) -> Any:
        """
        Return what puts a token on the requests to an address, of one connection.

        Raises:
            ToolError: a person has to sign in, and nobody says how.

        """
        given = self._given
        if self._by_a_person:
            if sign_in is None:
                raise ToolError("somebody has to sign in there; set `sign_in` of this toolset")
            return self._of_a_person(url, sign_in)
        who: Any = {"server_url": url, "storage": self, "client_id": given["client_id"], "issuer": given["issuer"]}
        if given.get("private_key"):
            key: Any = {"signing_key": given["private_key"], "signing_algorithm": given.get("algorithm", "RS256")}
            signed = SignedJWTParameters(issuer=given["client_id"], subject=given["client_id"], **key)
            return PrivateKeyJWTOAuthProvider(assertion_provider=signed.create_assertion_provider(), **who)
        who |= {
            "client_secret": given["client_secret"],
            "token_endpoint_auth_method": _METHODS[given.get("method", "basic")],
        }
        if identity is not None:
            return IdentityAssertionOAuthProvider(assertion_provider=identity, **who)
        return ClientCredentialsOAuthProvider(**who)

    def _of_a_person(self, url: str, sign_in: SignIn) -> Any:
        led_back = ""

        async def leave(address: str) -> None:
            nonlocal led_back
            led_back = await sign_in(address)

        async def come_back() -> AuthorizationCodeResult:
            said = dict(parse_qsl(urlsplit(led_back).query))
            if "code" not in said:
                raise ToolError(f"nobody signed in: {said.get('error_description') or said.get('error') or 'no code'}")
            return AuthorizationCodeResult(code=said["code"], state=said.get("state"), iss=said.get("iss"))

        about: Any = {
            "client_name": "genai-factory",
            "redirect_uris": [self._given["redirect_uri"]],
            "grant_types": ["authorization_code", "refresh_token"],
            "scope": self._given.get("scope"),
        }
        metadata = OAuthClientMetadata.model_validate(about)
        return OAuthClientProvider(
            url, metadata, self, leave, come_back, client_metadata_url=self._given.get("client_metadata_url")
        )

    async def get_tokens(self) -> OAuthToken | None:
        """The token that was given last; the library's name for it."""
        return self._tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        """Keep a token; the library's name for it."""
        self._tokens = tokens
        for token in (tokens.access_token, tokens.refresh_token):
            if token:
                self._hide(token)

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        """Who we are, where that was given or registered; the library's name for it."""
        return self._client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        """Keep what was registered; the library's name for it."""
        self._client = client_info
        if client_info.client_secret:
            self._hide(client_info.client_secret)
