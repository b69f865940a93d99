"""What an MCP client may read: the documents of collections, and the runs that its calls have begun."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from shared_libs.atomic.errors import FactoryError
from shared_libs.service.endpoint import Call
from shared_libs.service.problems import Problem
from shared_libs.service.routers.runs import find_run, shown
from shared_libs.service.streams import encode

if TYPE_CHECKING:
    import mcp_types as types
    from mcp.server import ServerRequestContext

CALL = "factory.call"
"""Where the request's `Call` stands in its scope, for what it asks of the MCP server."""

PAGE = 100
"""Documents of a page."""

_DOCUMENT = "factory://collections/{name}/documents/{document}"
_RUN = "factory://runs/{run_id}"
_URI = re.compile(r"factory://(?:runs/(?P<run>[^/]+)|collections/(?P<name>[^/]+)/documents/(?P<document>[^/]+))")


def call_of(context: ServerRequestContext[Any, Any]) -> Call:
    """Return the request."""
    request: Any = context.request
    call: Call = request.scope[CALL]
    return call


async def list_documents(
    context: ServerRequestContext[Any, Any], params: types.PaginatedRequestParams | None
) -> types.ListResourcesResult:
    """List the documents of the collections that the key may read, by collection."""
    import mcp_types as types

    call = call_of(context)
    found: list[types.Resource] = []
    at, _, after = map(unquote, ((params and params.cursor) or "").partition("/"))
    library = call.service.library
    try:
        names = [row.name for row in await library.visible(call.caller) if row.name >= at]
        for name in names:
            collection = library.find(call.caller, name, "read")
            rows = await collection.async_documents(after=after if name == at else "", limit=PAGE - len(found))
            for row in rows:
                uri = _DOCUMENT.format(name=quote(name, safe=""), document=quote(row.id, safe=""))
                found.append(types.Resource(uri=uri, name=row.source, title=row.title or None, mime_type="text/plain"))
            if len(found) == PAGE:
                cursor = f"{quote(name, safe='')}/{quote(rows[-1].id, safe='')}"
                return types.ListResourcesResult(resources=found, next_cursor=cursor)
    except FactoryError as error:
        raise _wrong(str(error)) from None
    return types.ListResourcesResult(resources=found)


async def list_templates(
    context: ServerRequestContext[Any, Any], _: types.PaginatedRequestParams | None
) -> types.ListResourceTemplatesResult:
    """Say how what can be read is named."""
    import mcp_types as types

    may = call_of(context).caller.may_some
    listed: list[types.ResourceTemplate] = []
    if may("collections:read"):
        told = "The text of a document of a collection; `retrieve_NAME` finds passages of them."
        listed.append(types.ResourceTemplate(uri_template=_DOCUMENT, name="document", description=told))
    if may("runs:read"):
        told = "How a run went: answer, steps, calls, times. The result of a tool that is an agent names its run."
        listed.append(types.ResourceTemplate(uri_template=_RUN, name="run", description=told))
    return types.ListResourceTemplatesResult(resource_templates=listed)


async def read_resource(
    context: ServerRequestContext[Any, Any], params: types.ReadResourceRequestParams
) -> types.ReadResourceResult:
    """Read a document or a run; what is not there for the key is not there."""
    import mcp_types as types

    try:
        kind, text = await _read(call_of(context), params.uri)
    except FactoryError as error:
        raise _wrong(str(error), uri=params.uri) from None
    content = types.TextResourceContents(uri=params.uri, mime_type=kind, text=text)
    return types.ReadResourceResult(contents=[content])


async def _read(call: Call, uri: str) -> tuple[str, str]:
    named = _URI.fullmatch(uri)
    if named is None:
        raise Problem("not_found", f"there is no resource {uri[:200]!r}; resources/templates/list says what there is")
    if named["run"]:
        call.caller.need("runs:read")
        row = await find_run(call.service, unquote(named["run"]), call.caller)
        return "application/json", encode(shown(row, call.caller)).decode()
    collection = call.service.library.find(call.caller, unquote(named["name"]), "read")
    text = await collection.async_text(unquote(named["document"]))
    if text is None:
        raise Problem("not_found", f"there is no such document in {collection.name!r}")
    return "text/plain", text


def _wrong(told: str, **facts: str) -> Exception:
    from mcp.shared.exceptions import MCPError
    from mcp_types import INVALID_PARAMS

    return MCPError(INVALID_PARAMS, told, facts or None)
