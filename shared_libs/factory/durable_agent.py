"""What the `durable` section makes of an agent."""

from __future__ import annotations

from typing import Any

from shared_libs.agents import ReActAgent
from shared_libs.agents.run import Run
from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.scope import current_scope


class DurableAgent(ReActAgent[Any]):
    """An agent whose definition says `durable`: it runs where its facts are kept, and nowhere else."""

    def _new_run(self, *arguments: Any, **more: Any) -> Run:
        scope = current_scope()
        if scope.journal is None and not scope.call_id:  # asked by a tool it is a part of another's run
            raise MisuseError(
                f"agent {self.name} is durable, and nothing keeps its facts here: submit it (`factory submit`, "
                "`factory run`, the service), or take `durable` out of its definition"
            )
        return super()._new_run(*arguments, **more)
