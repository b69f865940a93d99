"""Real documents for the examples: the manual that every Python carries for its own `help`."""

from __future__ import annotations

import sys
from importlib import import_module

from shared_libs.atomic.errors import ToolError
from shared_libs.retrieval.collection import Collection
from shared_libs.retrieval.types import Document
from shared_libs.tools.datasets import cache_dir

NAME = "python-reference"


def python_reference() -> Collection:
    """
    Return the collection of the manual, in the cache; what it holds is what `reference_documents` gives.

    It is searched by words, so that nothing has to be installed.
    """
    folder = cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{NAME}-{sys.version_info[0]}.{sys.version_info[1]}.db"
    return Collection(NAME, tenant="examples", stores=f"sqlite:///{file}")


def reference_documents() -> list[Document]:
    """
    Return the manual: one document for each of its topics.

    Raises:
        ToolError: this Python was installed without it.

    """
    try:
        topics: dict[str, str] = import_module("pydoc_data.topics").topics
    except ImportError as error:
        raise ToolError(
            "this Python carries no manual (pydoc_data); use one of python.org, or index a folder"
        ) from error
    return [
        Document(source=f"python:{name}", title=text.lstrip().split("\n", 1)[0], text=text)
        for name, text in sorted(topics.items())
    ]
