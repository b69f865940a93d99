"""The root of the error tree, and misuse: what plain data itself raises; the tree as a whole is in `errors`."""

from __future__ import annotations

from typing import Any


class FactoryError(Exception):
    """Root of everything this library raises on purpose."""

    def __reduce__(self) -> Any:
        # exceptions with keyword-only arguments do not pickle by themselves: rebuild without calling __init__
        return _rebuilt, (type(self), *self.args), self.__dict__


def _rebuilt(kind: type[FactoryError], *args: Any) -> FactoryError:
    error = kind.__new__(kind, *args)
    error.args = args  # those that are an OSError as well take them in __init__
    return error


class MisuseError(FactoryError, ValueError):
    """The caller did something that can never work; the text says what is allowed."""
