"""A context variable that has a value for as long as a `with` block."""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import Generic, TypeVar

T = TypeVar("T")


class holds(Generic[T]):  # noqa: N801 - used like a function, a class because it is on the path of every call
    """Have a context variable hold a value inside a `with` block."""

    __slots__ = ("_token", "_value", "_variable")

    def __init__(self, variable: ContextVar[T], value: T) -> None:
        self._variable = variable
        self._value = value
        self._token: Token[T]

    def __enter__(self) -> T:
        self._token = self._variable.set(self._value)
        return self._value

    def __exit__(self, *_: object) -> None:
        try:  # noqa: SIM105 - on the path of every call
            self._variable.reset(self._token)
        except ValueError:  # in another context: what waited here is being freed, after its loop was closed under it
            pass
