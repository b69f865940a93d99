"""Tools that are known only once somebody is asked: those of a server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from shared_libs.atomic.alarm import Expiry
from shared_libs.atomic.errors import DeadlineExceeded, ToolError
from shared_libs.atomic.scope import current_deadline, use_deadline
from shared_libs.atomic.supervise import BodyCancelled, LeftRunning, supervise
from shared_libs.atomic.tools.base import BaseTool


class Toolset:
    """
    A source of tools; it stands among an agent's `tools`, and every run asks it what there is.

    Declare `name`, which stands in errors, and write `_list`. `timeout_s`, `sequential`, `needs_approval` and
    `max_observation_chars` are meant for each of its tools. One that `gives_way` leaves out a tool whose name the agent
    has already; of any other two of one name are an error.
    """

    name: str = ""
    timeout_s: float = 30.0
    sequential: bool = False
    needs_approval: bool = False
    max_observation_chars: int = 32_000
    gives_way: bool = False
    _left_running: LeftRunning | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    @final
    async def async_list(self) -> Sequence[BaseTool]:
        """
        Return the tools there are, within `timeout_s` and half of what the current deadline leaves.

        Half, so that a run whose server is silent has time for an answer without it.

        Raises:
            ToolError: they cannot be had; the text says why.
            asyncio.CancelledError: the caller was cancelled.

        """
        limit = current_deadline().narrowed(min(self.timeout_s, current_deadline().remaining() / 2))
        expiry = Expiry(limit.at, f"{self.name} did not list its tools in time")
        if self._left_running is None:
            self._left_running = LeftRunning()
        if self._left_running.full:
            raise ToolError(f"{self.name} was not asked for its tools: {self._left_running}")
        try:
            with use_deadline(limit):
                left = self._left_running
                return await supervise(self._list(), expiry, what="tool", name=self.name, left_running=left)
        except DeadlineExceeded as error:
            raise ToolError(str(error)) from error
        except BodyCancelled as error:
            raise ToolError(f"{self.name} was cancelled from within") from error
        except ToolError:
            raise
        except Exception as error:
            raise ToolError(f"{self.name} failed: {type(error).__name__}: {error}") from error

    async def aopen(self) -> None:
        """
        List the tools once, before a run's clock starts.

        Raises:
            ToolError: they cannot be had.

        """
        await self.async_list()

    async def aclose(self) -> None:
        """Release what it holds; using it afterwards opens it again."""

    async def _list(self) -> Sequence[BaseTool]:
        """Ask for the tools; it must not ask again while nothing has changed. Raise `ToolError` to say what failed."""
        raise NotImplementedError(f"{type(self).__name__} has no _list")
