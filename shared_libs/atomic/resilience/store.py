"""The port to where a limit is counted for several processes at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from shared_libs.atomic.resilience.policy import RateLimit


@runtime_checkable
class LimitStore(Protocol):
    """
    Counts the use of models for everybody who has the same store.

    It may fail and it may hang: whoever asks bounds every call, and goes on with the limit of its own process.
    """

    async def take(self, model: str, limit: RateLimit, places: int) -> Sequence[float]:
        """
        Book one request to the model if the limit has room, and return nothing; it has to be sent at once.

        Without room nothing is booked: returned are the seconds until each of the next `places` places opens at the
        earliest, soonest first.
        """

    async def book(self, model: str, tokens: int) -> None:
        """Book the tokens that an answer used."""

    async def aclose(self) -> None:
        """Close the connections of the running event loop; using the store afterwards opens them again."""
