"""Providers. Each is loaded when it is first named, and its SDK when it is first used."""

from typing import TYPE_CHECKING, Any

from shared_libs.atomic.llms.base import BaseLLMWrapper

if TYPE_CHECKING:
    from shared_libs.atomic.llms.anthropic_llm import AnthropicLLM
    from shared_libs.atomic.llms.local_llm import LocalLLM
    from shared_libs.atomic.llms.ollama_llm import OllamaLLM
    from shared_libs.atomic.llms.openai_llm import OpenAILLM
    from shared_libs.atomic.llms.rehearsal_llm import RehearsalLLM
    from shared_libs.atomic.llms.scripted_llm import ScriptedLLM, Turn

_HOMES = {
    "AnthropicLLM": "anthropic_llm",
    "LocalLLM": "local_llm",
    "OllamaLLM": "ollama_llm",
    "OpenAILLM": "openai_llm",
    "RehearsalLLM": "rehearsal_llm",
    "ScriptedLLM": "scripted_llm",
    "Turn": "scripted_llm",
}

__all__ = [
    "AnthropicLLM",
    "BaseLLMWrapper",
    "LocalLLM",
    "OllamaLLM",
    "OpenAILLM",
    "RehearsalLLM",
    "ScriptedLLM",
    "Turn",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
