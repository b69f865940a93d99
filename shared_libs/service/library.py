"""
The collections of documents there are: those that definitions describe, and any other that a team makes.

A team has its own documents under every name, whatever definition describes the collection; only where a definition
names a `tenant` itself do all who may ask share that one's.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from shared_libs.factory.library import default_embedder
from shared_libs.retrieval import Collection
from shared_libs.retrieval.stores import DEFAULT_URL, open_stores
from shared_libs.retrieval.types import CollectionRow
from shared_libs.service.callers import Caller
from shared_libs.service.catalogue import Catalogue
from shared_libs.service.problems import Problem

NOBODYS = "default"
"""Whose documents those are that come without a key's team; agents and the command line name it so, too."""

_OF_ITS_NAME = "team:default"
"""Whose those of a team are that is called so as well: no team's name has a colon."""

MOST = 500
"""Collections whose times are remembered."""

Right = Literal["read", "write"]


class Library:
    """
    Finds collections for callers.

    Args:
        catalogue: what the definitions describe.
        url: where collections are kept that no definition describes.

    Raises:
        MisuseError: no collection is kept at such an address.

    """

    def __init__(self, catalogue: Catalogue, url: str | None = None) -> None:
        if url is not None:
            open_stores(url)  # only whether they could be: whoever starts the service is told, and no client
        self._catalogue = catalogue
        self._url = DEFAULT_URL if url is None else url
        self._own: Collection | None = None
        self._used: OrderedDict[tuple[str, str], tuple[Collection, Collection]] = OrderedDict()

    def find(self, caller: Caller, name: str, right: Right) -> Collection:
        """
        Return a collection by its name; whether it has any documents, it says itself.

        Raises:
            Problem: the caller may not use it; one that it may not even see is not there.
            MisuseError: it is no name of a collection.

        """
        if not caller.may(f"collections:{right}:{name}"):
            if right == "write" and caller.may(f"collections:read:{name}"):
                raise Problem("forbidden", f"the key may read the collection {name[:80]!r}, and not change it")
            raise no_collection(name)
        described = self._catalogue.collections.get(name)
        made_by = self._made_here(name) if described is None else described.collection
        tenant = (described and described.tenant) or _tenant(caller)
        known = self._used.get((tenant, name))
        if known is None or known[0].stores is not made_by.stores:
            known = self._used[tenant, name] = made_by, made_by.of(tenant)
            while len(self._used) > MOST:
                self._used.popitem(last=False)
        return known[1]

    async def visible(self, caller: Caller) -> list[CollectionRow]:
        """Return what there is for a caller, by name, without sizes."""
        tenant = _tenant(caller)
        found = {row.name: row for row in await self._default().stores.documents.async_collections(tenant)}
        for name in self._catalogue.collections:
            found.pop(name, None)
            if caller.may(f"collections:read:{name}"):
                row = await self.find(caller, name, "read").async_describe()
                found[name] = row or CollectionRow(name=name)
        return [row for name, row in sorted(found.items()) if caller.may(f"collections:read:{name}")]

    async def aclose(self) -> None:
        """Close what no definition describes; the rest is the catalogue's."""
        self._used.clear()
        if self._own is not None:
            await self._own.aclose()

    def _made_here(self, name: str) -> Collection:
        shared = self._default()
        return Collection(name, tenant=NOBODYS, stores=shared.stores, embedder=shared.embedder)

    def _default(self) -> Collection:
        if self._own is None:
            self._own = Collection("default", tenant=NOBODYS, stores=self._url, embedder=default_embedder())
        return self._own


def _tenant(caller: Caller) -> str:
    return _OF_ITS_NAME if caller.team == NOBODYS else caller.team or NOBODYS


def no_collection(name: str) -> Problem:
    """Say that a collection is not there, or not for this caller."""
    return Problem("not_found", f"there is no collection {name[:80]!r}; POST /v1/collections/NAME/index makes one")
