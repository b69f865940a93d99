"""What a model sees of an answer: so many rows, so many characters, values as JSON has them."""

from __future__ import annotations

import datetime as dt
import decimal
from collections.abc import Iterable
from typing import Any

MAX_CELL = 2_000
"""Characters of one value that reach the model."""


class Rows:
    """
    The rows of one answer, as many as are shown.

    Args:
        most: how many rows.
        chars: how many characters; the last row is whole.

    """

    def __init__(self, most: int, chars: int) -> None:
        self._most = most
        self._chars = chars
        self._rows: list[list[Any]] = []
        self._size = 0
        self._more = False

    @property
    def most(self) -> int:
        """How many rows have to be asked for, so that it shows whether there are more."""
        return self._most + 1

    def take(self, row: Iterable[Any]) -> bool:
        """Take a row; false when no further one is shown."""
        cells = [_cell(value) for value in row]
        self._size += sum(len(str(cell)) + 4 for cell in cells)
        self._more = len(self._rows) == self._most or (bool(self._rows) and self._size > self._chars)
        if not self._more:
            self._rows.append(cells)
        return not self._more

    def answer(self, columns: list[str]) -> dict[str, Any]:
        """Return the answer; a note tells where there is more."""
        answer: dict[str, Any] = {"columns": columns, "rows": self._rows}
        if self._more:
            answer["note"] = f"only the first {len(self._rows)} rows are shown; aggregate, or add a LIMIT"
        return answer


def _cell(value: Any) -> Any:
    """One value as the model reads it, cut where it is long."""
    if value is None or isinstance(value, int | float | bool):
        return value
    if isinstance(value, bytes | memoryview):
        return f"[{len(value)} bytes]"
    if isinstance(value, decimal.Decimal):
        return float(value) if decimal.Decimal(repr(float(value))) == value else str(value)
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    shown = str(value)
    if len(shown) > MAX_CELL:
        return f"{shown[:MAX_CELL]}… [{len(shown)} characters]"
    return value if isinstance(value, list | dict) else shown
