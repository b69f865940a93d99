"""What stands in the place of a link of a chain: the same to whoever asks, and below the same onion."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from shared_libs.atomic.llms.base import BaseLLMWrapper


class StandIn(BaseLLMWrapper):
    """A model of the same name, policy, price and abilities as the real one; its fallbacks are stood in for too."""

    def __init__(self, real: BaseLLMWrapper, stand_in: Callable[[BaseLLMWrapper], BaseLLMWrapper]) -> None:
        self._real = real
        self.provider = real.provider  # type: ignore[misc]
        self.rehearsal = real.rehearsal  # type: ignore[misc]
        self.native_tools = real.native_tools
        self.context_window = real.context_window
        fallbacks: Sequence[BaseLLMWrapper] = [
            fallback if isinstance(fallback, StandIn) else stand_in(fallback) for fallback in real.fallbacks
        ]
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

    @property
    def structured_output(self) -> bool:  # type: ignore[override]
        """Whether the model has a mode for it, as far as is known by now."""
        return self._real.structured_output
