"""Single vectors: what is one, and what it is worth in a comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shared_libs.atomic.errors import MisuseError

if TYPE_CHECKING:
    import numpy as np


def check_vector(vector: np.ndarray, width: int | None = None) -> None:
    """
    Check one vector.

    Raises:
        MisuseError: it is empty, of another length, or holds what is no finite number.

    """
    import numpy as np

    try:
        with np.errstate(over="ignore"):  # stores keep float32: what is too large for it is infinite
            row = np.asarray(vector, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise MisuseError(f"a vector is a list of numbers: {error}") from None
    if row.ndim != 1 or not len(row) or (width is not None and len(row) != width):
        raise MisuseError(f"a vector of shape {row.shape} where one of {width or 'any'} numbers belongs")
    if not np.isfinite(row).all():
        raise MisuseError("a vector holds what is no finite number (NaN or infinite)")


def of_length_one(vector: Any) -> np.ndarray:
    """Return a vector of length one as float32, however long or short it was; one without direction stays as it is."""
    import numpy as np

    row = np.asarray(vector, dtype=np.float64)  # squares of what float32 holds are beyond it
    return (row / (float(np.linalg.norm(row)) or 1.0)).astype("<f4")
