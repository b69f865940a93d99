"""Who comes from another library, and calls things as it does, is told where they stand here."""

from __future__ import annotations

import pytest

from shared_libs.factory import check_file

ALONE = "name: a\nllm: {provider: fake, model: m, KEY: 1}\n"
LINK = "name: a\nllm: {chain: [{provider: fake, model: m, KEY: 1}]}\n"
TOP = "name: a\nllm: {provider: fake, model: m}\nKEY: 1\n"
LIMITS = "name: a\nllm: {provider: fake, model: m}\nlimits: {KEY: 1}\n"
MEMORY = "name: a\nllm: {provider: fake, model: m}\nmemory: {KEY: 1}\n"
TOOL = "name: a\nllm: {provider: fake, model: m}\ntools: [{use: sql, url: 'sqlite:///a.db', KEY: 1}]\n"

HINTS = [
    (ALONE, "temperature", "'temperature' belongs under `options`, as every field of a request"),
    (LINK, "max_tokens", "'max_tokens' belongs under `options`, as every field of a request"),
    (ALONE, "temprature", "'temperature' belongs under `options`, as every field of a request"),
    (ALONE, "modle", "did you mean 'model'?"),
    (ALONE, "timeout", "that is `attempt_timeout_s` here"),
    (ALONE, "api_base", "that is `base_url` here"),
    (ALONE, "max_retries", "that is `retry` here"),
    (LINK, "retry", "it stands under `llm`, beside `chain`, as `retry`"),
    (LINK, "timeout", "it stands under `llm`, beside `chain`, as `attempt_timeout_s`"),
    (ALONE, "tools", "it stands in the definition itself, as `tools`"),
    (TOP, "model", "it stands under `llm`"),
    (TOP, "temperature", "'temperature' belongs to the model: `llm: {options: {temperature: …}}`"),
    (TOP, "system_prompt", "that is `instructions` here"),
    (TOP, "max_steps", "it stands under `limits`"),
    (TOP, "max_iterations", "it stands under `limits`, as `max_steps`"),
    (TOP, "timeout", "it stands under `limits`, as `timeout_s`"),
    (TOP, "fallbacks", "it stands under `llm`, as `chain`"),
    (TOP, "mcp_servers", "that is `tools (use: mcp)` here"),
    (TOP, "output_type", "that is `output_schema` here"),
    (LIMITS, "recursion_limit", "that is `max_steps` here"),
    (MEMORY, "connection_string", "that is `url` here"),
    (TOOL, "dsn", "that is `url` here"),
]


@pytest.mark.promise("config-told")
@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(("text", "key", "hint"), HINTS)
def test_a_key_of_elsewhere_is_told_its_place_here(text, key, hint, write):
    written = text.replace("KEY", key).replace(f"{key}: 1", f"{key}: x" if key != "tools" else "tools: []")
    assert [line for line in check_file(write(written)) if line.endswith(f"; {hint}")], check_file(write(written))


@pytest.mark.promise("config-told")
@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("provider", "hint"),
    [
        ("vllm", "vllm speaks OpenAI's API: provider openai, with its address as `base_url`"),
        ("LM-Studio", "LM-Studio speaks OpenAI's API: provider openai, with its address as `base_url`"),
        ("claude", "that is provider anthropic"),
        ("openai/gpt-5.4-mini", "a model is named by two keys: `provider`, and `model`"),
        ("opnai", "did you mean 'openai'?"),
    ],
)
def test_a_provider_of_elsewhere_is_told_its_name_here(provider, hint, write):
    (line,) = check_file(write(f"name: a\nllm: {{provider: {provider}, model: m}}\n"))
    assert line.endswith(f"; {hint}")


@pytest.mark.promise("config-told")
@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("llm: {provider: openai, model: m, api_key: $MY_KEY}", "llm.api_key: '$MY_KEY' is no variable but text"),
        (
            (
                "llm: {provider: openai, model: m}\n"
                "tools: [{use: mcp, url: 'https://a/mcp', headers: {Authorization: Bearer $TOK}}]"
            ),
            "tools[0].headers.Authorization: '$TOK' is no variable but text; write ${TOK}",
        ),
        (
            "llm: {provider: openai, model: m}\nmemory: {url: 'postgresql://me:$SECRET@db/x'}",
            "memory.url: '$SECRET' is no variable but text; write ${SECRET}",
        ),
    ],
)
def test_a_variable_as_a_shell_writes_it_is_told(line, told, write):
    assert any(told in problem for problem in check_file(write(f"name: a\n{line}\n")))


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize("text", ["Prices are in $USD.", "It costs $5.", "Write $HOME, not ~.", "$"])
def test_a_dollar_in_prose_or_in_a_password_is_a_dollar(text, write):
    written = f"name: a\ninstructions: '{text}'\nllm: {{provider: openai, model: m, api_key: 'pa$WORD1'}}\n"
    assert not any("is no variable" in problem for problem in check_file(write(written)))
