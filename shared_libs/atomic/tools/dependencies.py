"""
What a tool takes of the run it is called in, and not of the model: `deps: Deps[T]`.

Whoever starts a run gives the object (`async_run(…, deps=…)`). It never leaves the process, no model is told of it, and
no model can give it.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterable
from typing import Annotated, Any, NamedTuple, TypeVar

from shared_libs.atomic.errors import MisuseError

T = TypeVar("T")


class _OfTheRun:
    """Marks a parameter."""

    def __repr__(self) -> str:
        return "of the run"


Deps = Annotated[T, _OfTheRun()]
"""
The type of a parameter of a tool that gets what the run was given as `deps`: `shop: Deps[Shop]`.

To a type checker it is the type itself. With a default it may be missing.
"""


class Dependency(NamedTuple):
    """A parameter that gets the run's `deps`; `kind` is its type, `required` whether there have to be any."""

    parameter: str
    kind: Any
    required: bool
    bare: bool
    """Whether it has no default, and so is given None where there are none and None is one of its types."""

    def check(self, tool: str, deps: Any) -> None:
        """
        Refuse what a run gives.

        Raises:
            MisuseError: it is nothing, or of another type.

        """
        name = getattr(self.kind, "__name__", str(self.kind))
        if deps is None:
            if self.required:
                raise MisuseError(
                    f"tool {tool} takes {self.parameter}: Deps[{name}] from the run; pass deps={name}(…) to the run "
                    "or to the agent"
                )
            return
        if not any(_fits(kind, deps) for kind in (typing.get_args(self.kind) if _is_union(self.kind) else [self.kind])):
            raise MisuseError(f"tool {tool} takes {self.parameter}: Deps[{name}]; deps is a {type(deps).__name__}")


def _fits(kind: Any, deps: Any) -> bool:
    kind = typing.get_origin(kind) or kind
    try:
        return not inspect.isclass(kind) or isinstance(deps, kind)
    except TypeError:  # a protocol or TypedDict that cannot be asked
        return True


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def dependencies_in(parameters: Iterable[inspect.Parameter]) -> tuple[Dependency, ...]:
    """The parameters, of those with real types, that get the run's `deps`."""
    found = []
    for parameter in parameters:
        kind, optional = _kind_of(parameter.annotation)
        if kind is not None:
            bare = parameter.default is parameter.empty
            found.append(Dependency(parameter.name, kind, bare and not optional, bare))
    return tuple(found)


def is_of_the_run(annotation: Any) -> bool:
    """Whether it is `Deps[…]`, whose type is no JSON's business."""
    return any(isinstance(part, _OfTheRun) for part in getattr(annotation, "__metadata__", ()))


def _kind_of(annotation: Any) -> tuple[Any, bool]:
    """The type inside `Deps[…]`, and whether None may stand for it; (None, False) for any other annotation."""
    if is_of_the_run(annotation):
        kind = typing.get_args(annotation)[0]
        return kind, _is_union(kind) and type(None) in typing.get_args(kind)
    if _is_union(annotation):
        for part in typing.get_args(annotation):
            kind, _ = _kind_of(part)
            if kind is not None:
                return kind, type(None) in typing.get_args(annotation)
    return None, False
