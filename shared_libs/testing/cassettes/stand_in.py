"""What stands in the place of a link of a chain: the same to whoever asks, and below the same onion."""

from __future__ import annotations

from collections.abc import Sequence

from shared_libs.atomic.llms.base import BaseLLMWrapper


class StandIn(BaseLLMWrapper):
    """A model of the same name, policy, price and abilities as the real one."""

    def __init__(self, real: BaseLLMWrapper, fallbacks: Sequence[BaseLLMWrapper]) -> None:
        self._real = real
        self.provider = real.provider  # type: ignore[misc]
        self.rehearsal = real.rehearsal  # type: ignore[misc]
        self.native_tools = real.native_tools
        self.structured_output = real.structured_output
        self.context_window = real.context_window
        super().__init__(
            real.model, resilience=real.resilience, fallbacks=fallbacks, price=real.price, options=real.options
        )

    @property
    def name(self) -> str:
        """The model as a cassette calls it."""
        return f"{self.provider}/{self.model}"

    @property
    def embeds(self) -> bool:
        """Whether the model has embeddings."""
        return self._real.embeds
