"""
GenAI Factory under the name for applications: `genai_factory.X` is `shared_libs.X`, the very same module.

A project may have a `shared_libs` of its own. There that name is the project's, and `genai_factory.X` is loaded from
the copy of the code that a wheel holds, in which every `shared_libs` reads `genai_factory` (docs/distribution.md).
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder

# The command hears Ctrl-C once this has been read. `importlib.abc` alone, which nothing here needs to run, would bring
# `tempfile`, `pathlib`, `re` and their likes: four fifths of the time until then.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.abc import InspectLoader, MetaPathFinder
    from types import CodeType, ModuleType
else:
    InspectLoader = MetaPathFinder = object

_HERE = os.path.dirname(__file__)  # noqa: PTH120
_CODE = "shared_libs"
_MARK = "GenAI Factory"
_OWN = frozenset({"command"})
"""What is no part of `shared_libs`, and must not ask whose that is."""


class _Names(MetaPathFinder):
    """Finds `genai_factory.X`: as `shared_libs.X`, or in the copy; the first import decides which."""

    def __init__(self) -> None:
        self._shares: bool | None = None

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find one; see the module."""
        package, _, inner = name.partition(".")
        if package != __name__ or not inner:
            return None
        if inner in _OWN:
            return PathFinder.find_spec(name, [_HERE])
        if self._shares is None:
            self._shares = _is_ours()
        if self._shares:
            return _alias(name, f"{_CODE}.{inner}")
        if not os.path.isfile(os.path.join(_HERE, "atomic", "__init__.py")):  # noqa: PTH113, PTH118
            raise ImportError(
                f"{name} cannot be had: another package is called {_CODE} here, and this copy of genai-factory is a "
                "checkout; install it as a wheel (pip install, without -e)",
                name=name,
            )
        return PathFinder.find_spec(name, path or [_HERE])


class _Same(InspectLoader):
    """Gives the module of another name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module, which may exist."""
        module = import_module(self._name)
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Give it back what it was: the import system has just written another specification into it."""
        spec = module.__spec__
        assert spec is not None
        module.__spec__ = spec.loader_state

    def is_package(self, fullname: str) -> bool:
        """Tell whether it is a package."""
        return _found(self._name).submodule_search_locations is not None

    def get_code(self, fullname: str) -> CodeType | None:
        """Return the code, for `python -m`."""
        read = getattr(_found(self._name).loader, "get_code", None)
        return read(self._name) if read else None

    def get_source(self, fullname: str) -> str | None:
        """Return the text."""
        read = getattr(_found(self._name).loader, "get_source", None)
        return read(self._name) if read else None


def _alias(name: str, real: str) -> ModuleSpec | None:
    found = _spec_of(real)
    if found is None:
        return None
    is_package = found.submodule_search_locations is not None
    return ModuleSpec(name, _Same(real), origin=found.origin, is_package=is_package)


def _found(name: str) -> ModuleSpec:
    spec = _spec_of(name)
    assert spec is not None
    return spec


def _spec_of(name: str) -> ModuleSpec | None:
    from importlib.util import find_spec

    return find_spec(name)


def _is_ours() -> bool:
    """Whether `shared_libs` is the package of this distribution, all of it; the package of others is not imported."""
    module = sys.modules.get(_CODE)
    if module is None:
        spec = _spec_of(_CODE)
        if spec is None or spec.origin is None or _MARK not in _beginning(spec.origin):
            return False
        module = import_module(_CODE)
    return bool(getattr(module, "ALONE", False))


def _beginning(file: str) -> str:
    with open(file, "rb") as source:  # noqa: PTH123
        return source.read(200).decode(errors="replace")


__path__ = []  # nothing is found here past the finder; not even by a test runner that asks before it
sys.meta_path.insert(0, _Names())
