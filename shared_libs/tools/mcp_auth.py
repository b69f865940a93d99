"""
How an MCP server at an address is told who we are: OAuth 2.1 with the credentials of a program, as MCP specifies it.

The credentials go to the one authorization server that is named, whatever the MCP server says; a token is kept in
memory, for the connections of one tool, and is asked for anew when it is over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.loading import importing

with importing("mcp", "an MCP server"):
    from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
    from mcp.shared.auth import OAuthClientInformationFull, OAuthToken

_NEEDED = ("issuer", "client_id", "client_secret")
_METHODS = {"basic": "client_secret_basic", "post": "client_secret_post"}
_ALLOWED = (*_NEEDED, "method")


class Credentials:
    """
    Credentials of a program, and the token they were given last.

    Args:
        given: `issuer`, `client_id` and `client_secret`; `method`, how they are sent: "basic" (the default) or "post".
            Which scopes are asked for, the MCP server says.
        hide: told every token, which no error may show.

    Raises:
        MisuseError: a key is missing or not known, or a value is not valid.

    """

    def __init__(self, given: Mapping[str, str], hide: Callable[[str], None]) -> None:
        if missing := [key for key in _NEEDED if not given.get(key)]:
            raise MisuseError(f"auth needs {missing[0]}; allowed are {', '.join(_ALLOWED)}")
        if unknown := [key for key in given if key not in _ALLOWED]:
            raise MisuseError(f"auth does not know {unknown[0]!r}; allowed are {', '.join(_ALLOWED)}")
        if given.get("method", "basic") not in _METHODS:
            raise MisuseError(f"auth.method is {' or '.join(_METHODS)}, not {given['method']!r}")
        if urlsplit(given["issuer"]).scheme not in ("http", "https"):
            raise MisuseError("auth.issuer is the http:// or https:// address of the authorization server")
        self._given = given
        self._hide = hide
        self._tokens: OAuthToken | None = None

    def provider(self, url: str) -> Any:
        """Return what puts a token on the requests to an address, of one connection."""
        given = self._given
        return ClientCredentialsOAuthProvider(
            url,
            self,
            given["client_id"],
            given["client_secret"],
            token_endpoint_auth_method=_METHODS[given.get("method", "basic")],  # type: ignore[arg-type]
            issuer=given["issuer"],
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
        """Nothing: who we are is given."""
        return None

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        """Keep nothing, as above."""
