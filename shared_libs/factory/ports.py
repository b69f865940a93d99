"""What may stand between an agent and the outside: the place where a test puts its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shared_libs.atomic.llms.base import BaseLLMWrapper
from shared_libs.atomic.memory.base import BaseMemory
from shared_libs.atomic.tools.base import BaseTool
from shared_libs.atomic.tools.toolset import Toolset


class Ports:
    """
    Gets everything by which an agent reaches the outside, and gives back what takes its place; here, the same.

    Each link of a chain passes on its own, so that what takes its place stands under the policy of the definition.
    The agents that a definition calls pass here too; `agent` is the name of the one that is built.
    """

    needs_keys: bool = True
    """Whether the models are asked for real; without, no key and no address of the definition has to have a value."""

    def model(self, llm: BaseLLMWrapper, agent: str) -> BaseLLMWrapper:
        """Take the place of a link of a chain, or of a model beside it."""
        return llm

    def tool(self, tool: BaseTool | Toolset, agent: str) -> BaseTool | Toolset:
        """Take the place of a tool, or of a source of tools."""
        return tool

    def memory(self, memory: BaseMemory, agent: str) -> BaseMemory:
        """Take the place of the memory."""
        return memory


OUTSIDE = Ports()
"""Nothing between: the agent as it is."""


def without_secrets(written: Any) -> Any:
    """Return a definition whose models need no variable: each has a key that means nothing, and its own address."""
    if isinstance(written, list):
        return [without_secrets(item) for item in written]
    if not isinstance(written, Mapping):
        return written
    data = {key: without_secrets(value) for key, value in written.items()}
    if "provider" in data:
        data |= {"api_key": "unused"} if "api_key" in data else {}
        if "${" in str(data.get("base_url", "")):
            del data["base_url"]
    return data
