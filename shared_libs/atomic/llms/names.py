"""Models by their names: "provider/model", with the providers that definitions know."""

from __future__ import annotations

import inspect
from typing import Any

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.nearest import names_like
from shared_libs.atomic.registry import Builtin, Registry

LLMS = Registry(
    "llm",
    {
        "anthropic": Builtin("shared_libs.atomic.llms.anthropic_llm", "AnthropicLLM"),
        "local": Builtin("shared_libs.atomic.llms.local_llm", "LocalLLM"),
        "local-embeddings": Builtin("shared_libs.atomic.llms.local_embeddings", "LocalEmbeddings"),
        "ollama": Builtin("shared_libs.atomic.llms.ollama_llm", "OllamaLLM"),
        "openai": Builtin("shared_libs.atomic.llms.openai_llm", "OpenAILLM"),
        "rerank": Builtin("shared_libs.atomic.llms.rerank_llm", "RerankLLM"),
        "rehearsal": Builtin("shared_libs.atomic.llms.rehearsal_llm", "RehearsalLLM"),
    },
)
"""Models by the name of their provider."""


def named_by(provider: str) -> tuple[str, bool]:
    """
    Return the setting that stands behind the slash of a name (the first of the provider's), and whether it has to.

    Raises:
        MisuseError: the provider cannot be used here.

    """
    first = next(iter(inspect.signature(LLMS.load(provider)).parameters.values()))
    needed = first.default is inspect.Parameter.empty and first.kind is not inspect.Parameter.VAR_KEYWORD
    return (first.name if needed else "model"), needed


def model_named(name: str) -> Any:
    """
    Make the model of a name such as "openai/gpt-5.4-mini", with its key from the environment.

    Raises:
        MisuseError: there is no such provider, or it cannot be used here; tells the nearest name.

    """
    provider, _, model = name.partition("/")
    if provider not in LLMS:
        near = names_like(provider, LLMS.names())
        meant = f"{near[0]}/{model or 'MODEL'}" if near else f"openai/{name}"
        raise MisuseError(
            f'{name!r} is no name of a model; it is "provider/model", with one of {", ".join(LLMS.names())}; '
            f"did you mean {meant!r}?"
        )
    make = LLMS.load(provider)
    if not model and named_by(provider)[1]:
        raise MisuseError(f'{name!r} names no model; write "{provider}/MODEL"')
    return make(model) if model else make()
