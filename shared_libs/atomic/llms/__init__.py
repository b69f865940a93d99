"""Providers. Each is loaded when it is first named, and its SDK when it is first used."""

from typing import TYPE_CHECKING

from shared_libs.atomic.llms.base import BaseLLMWrapper
from shared_libs.lazy import lazy

if TYPE_CHECKING:
    from shared_libs.atomic.llms.anthropic_llm import AnthropicLLM
    from shared_libs.atomic.llms.local_embeddings import LocalEmbeddings
    from shared_libs.atomic.llms.local_llm import LocalLLM
    from shared_libs.atomic.llms.ollama_llm import OllamaLLM
    from shared_libs.atomic.llms.openai_llm import OpenAILLM
    from shared_libs.atomic.llms.rehearsal_llm import RehearsalLLM
    from shared_libs.atomic.llms.rerank_llm import RerankLLM
    from shared_libs.atomic.llms.scripted_llm import ScriptedLLM, Turn

_HOMES = {
    "AnthropicLLM": "anthropic_llm",
    "LocalEmbeddings": "local_embeddings",
    "LocalLLM": "local_llm",
    "OllamaLLM": "ollama_llm",
    "OpenAILLM": "openai_llm",
    "RehearsalLLM": "rehearsal_llm",
    "RerankLLM": "rerank_llm",
    "ScriptedLLM": "scripted_llm",
    "Turn": "scripted_llm",
}

__all__ = [
    "AnthropicLLM",
    "BaseLLMWrapper",
    "LocalEmbeddings",
    "LocalLLM",
    "OllamaLLM",
    "OpenAILLM",
    "RehearsalLLM",
    "RerankLLM",
    "ScriptedLLM",
    "Turn",
]

__getattr__ = lazy(__name__, _HOMES)
