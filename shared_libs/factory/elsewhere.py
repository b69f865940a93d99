"""
What people call things who come from elsewhere, and where those stand in a definition.

The hint behind an unknown key or name. A name of another library, server or tool costs a line of data here.
"""

from __future__ import annotations

from collections.abc import Collection

from shared_libs.factory.problems import Path, nearest
from shared_libs.factory.spec import AgentSpec, LimitsSpec, LinkCommon, LLMSpec, MemorySpec


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_REQUEST_FIELDS = _names(
    """
    extra_body extra_headers extra_query frequency_penalty guided_json logit_bias logprobs max_completion_tokens
    max_output_tokens max_tokens metadata min_p modalities n num_ctx num_predict parallel_tool_calls presence_penalty
    reasoning reasoning_effort repetition_penalty response_format seed service_tier stop stop_sequences store
    temperature text thinking tool_choice top_k top_logprobs top_p user verbosity
    """
)
"""What a request of some provider may hold: `options` of a model."""

_CALLED = {
    "": {
        "instructions": (
            "backstory goal instruction persona preamble prompt role system systemMessage systemPrompt "
            "system_instruction system_message system_prompt"
        ),
        "llm": "client language_model lm model_config model_settings models",
        "tools": "actions functions plugins toolkits",
        "tools (use: mcp)": "mcp mcpServers mcp_servers servers",
        "memory": "checkpointer history persistence session store",
        "output_schema": "output output_model output_type response_model response_schema",
        "collections": "documents knowledge knowledge_base rag retriever vector_store vectorstore",
    },
    "llm": {
        "options": "generation_config kwargs model_kwargs parameters params settings",
        "chain": "fallback fallback_models fallbacks",
        "retry": "max_retries num_retries retries",
        "rate_limit": "max_rpm rate_limits requests_per_minute rpm tokens_per_minute tpm",
        "api_key": "anthropic_api_key apiKey apikey key openai_api_key token",
        "base_url": "api_base azure_endpoint baseURL base_uri endpoint host openai_api_base url",
        "provider": "api_type type vendor",
        "model": "deployment model_id model_name",
        "attempt_timeout_s": "request_timeout timeout timeout_s timeout_seconds",
        "context_window": "context context_length max_context max_model_len",
    },
    "limits": {
        "max_steps": "max_iter max_iterations max_loops max_turns recursion_limit steps",
        "timeout_s": "deadline deadline_s max_execution_time max_time timeout timeout_seconds",
        "max_cost_usd": "budget cost_limit max_budget max_cost",
        "max_tool_calls": "max_calls tool_calls_limit",
    },
    "memory": {
        "url": "connection_string database database_url dsn path uri",
        "window": "history_length k last_n limit max_messages",
        "compact": "compaction summarise summarize summary",
    },
    "tools": {
        "use": "kind tool type",
        "command": "args cmd executable",
        "url": "connection_string database database_url dsn endpoint uri",
        "timeout_s": "timeout timeout_seconds",
        "root": "dir directory folder path",
    },
}
"""By section, our keys and the names that they have elsewhere."""

_OPENAI_COMPATIBLE = _names(
    """
    azure azure_openai baseten cerebras cohere dashscope deepinfra deepseek fireworks gemini github google groq
    huggingface hyperbolic jan lepton litellm llama.cpp llama_cpp llamacpp lm_studio lmstudio localai mistral mistralai
    moonshot nebius nvidia nvidia_nim openai_compatible openrouter perplexity qwen sambanova sglang tgi together
    together_ai vertex vertex_ai vllm xai zai zhipu
    """
)
"""Servers that speak OpenAI's chat completions."""

_PROVIDERS = {
    "anthropic": "claude",
    "openai": "chatgpt gpt open_ai openai_chat responses",
    "local": "gguf transformers",
}


_OTHER_KINDS = {
    "scenario": "a scenario; `factory scenario` plays it, and its `agent` names a definition",
    "cassette": "a cassette; a scenario names it as its `cassette`",
    "apiVersion": "a manifest of Kubernetes",
    "services": "a compose file",
}
"""By a key that no definition has: what a file that has neither `name` nor `llm` is."""


def hint_for_file(written: object) -> str:
    """Say what a file is that was taken for the definition of an agent, or ""."""
    if not isinstance(written, dict) or {"name", "llm"} & written.keys():
        return ""
    if any(isinstance(value, dict) and "fault" in value for value in written.values()):
        return "a script of faults; `factory faults --script` serves it"
    return next((kind for key, kind in _OTHER_KINDS.items() if key in written), "")


def hint_for_key(path: Path, allowed: Collection[str]) -> str:
    """
    Say where an unknown key belongs, or "".

    Args:
        path: where it stands; the last part is the key.
        allowed: the keys that may stand beside it.

    """
    key, section = str(path[-1]), _section(path)
    own = next((ours for ours, names in _CALLED.get(section, {}).items() if key in names.split()), "")
    if own.partition(" ")[0] in allowed:
        return f"that is `{own}` here"
    if section == "llm" and (policy := own or key) in LLMSpec.model_fields:
        return f"it stands under `llm`, beside `chain`, as `{policy}`"
    if section == "llm" and "options" in allowed and (field := _request_field(key, allowed)):
        return f"'{field}' belongs under `options`, as every field of a request"
    return _elsewhere(key, section) if section in ("", "llm", "limits", "memory") else ""


def _elsewhere(key: str, section: str) -> str:
    """Say which other section has the key, by our name for it or another."""
    if section == "" and key in _REQUEST_FIELDS:
        return f"'{key}' belongs to the model: `llm: {{options: {{{key}: …}}}}`"
    others: list[tuple[str, str]] = [(where, key) for where, keys in _keys().items() if key in keys]
    tables = [("limits", _CALLED["limits"]), *_CALLED.items()]  # who says `timeout` means the run
    others += [(where, ours) for where, table in tables for ours, names in table.items() if key in names.split()]
    where, ours = next(((where, ours) for where, ours in others if where not in (section, "tools")), ("", ""))
    if where:
        return f"it stands under `{where}`" + (f", as `{ours}`" if ours != key else "")
    return f"it stands in the definition itself, as `{ours}`" if ours else ""


def _request_field(key: str, allowed: Collection[str]) -> str | None:
    """Return the field that is meant: by its name, or nearly, where it is no mistyped key of ours."""
    if key in _REQUEST_FIELDS:
        return key
    return None if nearest(key, allowed) else nearest(key, _REQUEST_FIELDS)


def hint_for_tool(name: str) -> str:
    """Say how a tool of one's own is given, where a name looks like a place in code; else ""."""
    if not any(mark in name for mark in ".:/"):
        return ""
    return (
        "code is not named in a definition: pass the tool in Python, load_agent(path, tools=[…]), or register it "
        "in a package by an entry point of the group 'genai_factory'"
    )


def hint_for_provider(name: str) -> str:
    """Say which provider speaks to a server of that name, or ""."""
    plain = name.lower().replace("-", "_").replace(" ", "_")
    if plain in _OPENAI_COMPATIBLE:
        return f"{name} speaks OpenAI's API: provider openai, with its address as `base_url`"
    known = next((ours for ours, names in _PROVIDERS.items() if plain in names.split()), None)
    if known is None and "/" in name:
        return "a model is named by two keys: `provider`, and `model`"
    return f"that is provider {known}" if known else ""


def _section(path: Path) -> str:
    """Name the section a key stands in: "" for the definition itself, "llm" for every model too."""
    names = [part for part in path[:-1] if isinstance(part, str)]
    if names and names[-1] in ("chain", "llm", "embedder", "reranker"):
        return "llm"
    return ".".join(names)


def _keys() -> dict[str, set[str]]:
    """The keys of the sections, in the order in which a key is looked for."""
    return {
        "llm": {*LLMSpec.model_fields, *LinkCommon.model_fields, "provider"},
        "limits": {*LimitsSpec.model_fields},
        "memory": {*MemorySpec.model_fields},
        "": {*AgentSpec.model_fields},
    }
