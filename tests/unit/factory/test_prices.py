"""What models cost: the shipped table, the one beside a definition, snapshots, and never a guess."""

from __future__ import annotations

import pytest

from shared_libs.atomic import ConfigError, Price
from shared_libs.cli import main
from shared_libs.factory import agent_from_dict, check_file, load_agent
from shared_libs.factory.prices import Prices, shipped_prices
from shared_libs.factory.registry import LLMS

MINI = Price(input=0.75, cached_input=0.075, output=4.5)
AGENT = "name: a\nllm: {{provider: openai, model: {model}, api_key: k}}\nlimits: {{max_cost_usd: 0.1}}\n"

pytestmark = pytest.mark.promise("cost-true")


@pytest.fixture(autouse=True)
def _no_address_in_the_environment(monkeypatch):
    for name in ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("model", ["gpt-5.4-mini", "gpt-5.4-mini-2026-03-17", "gpt-5.4-mini-20260317"])
def test_a_name_stands_for_its_dated_snapshots(model):
    assert shipped_prices().of("openai", model) == MINI


@pytest.mark.parametrize(
    "model",
    [
        *("gpt-5.4-mini-latest", "gpt-5.4-mini-high", "gpt-5.4-min", "my-gpt-5.4-mini", "GPT-5.4-mini", ""),
        *("gpt-5.4-mini-2026", "gpt-5.4-mini-2026-99-17", "gpt-5.4-mini-2026-03-17-eu", "-2026-03-17"),
    ],
)
def test_a_similar_name_is_another_model(model):
    assert shipped_prices().of("openai", model) is None
    assert shipped_prices().of("ollama", "gpt-5.4-mini") is None


def test_an_exact_name_is_before_its_snapshot_rule_and_both_before_any_model():
    dear, cheap, free = (Price(input=price, output=price) for price in (2.0, 1.0, 0.0))
    prices = Prices({"openai": {"m": cheap, "m-2025-01-01": dear, "*": free}})
    assert [prices.of("openai", name) for name in ("m-2025-01-01", "m-2025-06-01", "n")] == [dear, cheap, free]


def test_every_shipped_price_is_plausible():
    for provider, rows in shipped_prices().rows.items():
        for name, price in rows.items():
            if provider == "local":
                assert price == Price(input=0, output=0), name
                continue
            assert price.cached_input is not None, name
            assert 0 < price.cached_input < price.input < price.output, name
            assert price.cache_write is None or price.input < price.cache_write < price.output, name


def test_the_factory_prices_what_has_no_price_of_its_own():
    own = {"input": 1.0, "output": 2.0}
    chain = [
        {"provider": "openai", "model": "gpt-5.4-mini", "api_key": "k"},
        {"provider": "openai", "model": "gpt-5.4-mini", "api_key": "k", "price": own},
        {"provider": "anthropic", "model": "claude-sonnet-4-5-20250929", "api_key": "k"},
        {"provider": "openai", "model": "gpt-5.4-mini", "api_key": "k", "base_url": "http://127.0.0.1:1/v1"},
        {"provider": "openai", "model": "gpt-5.4-mini", "api_key": "k", "base_url": "https://api.openai.com/v1/"},
        {"provider": "openai", "model": "unheard-of", "api_key": "k"},
    ]
    llm = agent_from_dict({"name": "a", "llm": {"chain": chain}}).llm
    sonnet = Price(input=3.0, cached_input=0.3, cache_write=3.75, hour_cache_write=6.0, output=15.0)
    assert [model.price for model in (llm, *llm.fallbacks)] == [MINI, Price(1.0, 2.0), sonnet, None, MINI, None]


def test_an_address_in_the_environment_is_another_address(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    llm = agent_from_dict({"name": "a", "llm": {"provider": "openai", "model": "gpt-5.4-mini", "api_key": "k"}}).llm
    assert llm.price is None


def test_a_table_beside_the_definition_wins(write):
    write("openai:\n  gpt-5.4-mini: {input: 1, output: 2, cache_write: 1.5}\nollama: {'*': 0}\n", "prices.yaml")
    assert load_agent(write(AGENT.format(model="gpt-5.4-mini"))).llm.price == Price(1.0, 2.0, cache_write=1.5)
    assert load_agent(write(AGENT.format(model="gpt-5.4"))).llm.price.input == 2.5
    local = load_agent(write("name: a\nllm: {provider: ollama, model: qwen3}\n"))
    assert local.llm.price == Price(0.0, 0.0)


def test_a_wrong_table_is_told_with_its_places(write):
    write(
        "openia:\n  m: 0\nopenai:\n  a: {input: 1, outputs: 2}\n  b: free\n  c: {input: -1, output: 1}\n  d: null\n"
        "anthropic: 3\nollama: {e: true}\n",
        "prices.yaml",
    )
    providers, keys = ", ".join(LLMS.names()), ("cache_write", "cached_input", "hour_cache_write", "input", "output")
    told = [
        f"prices.yaml:1:1: openia: is no provider; allowed: {providers}; did you mean 'openai'?",
        "prices.yaml:4:6: openai.a.output: is missing; dollars per million output tokens",
        f"prices.yaml:4:17: openai.a.outputs: unknown key; allowed: {', '.join(keys)}; did you mean 'output'?",
        "prices.yaml:5:6: openai.b: expected a mapping, got text 'free'",
        "prices.yaml:6:14: openai.c.input: expected a number from 0, got the number -1",
        "prices.yaml:7:6: openai.d: expected a mapping, got nothing; give a value or remove the key",
        "prices.yaml:8:12: anthropic: expected a mapping of models, got the number 3",
        "prices.yaml:9:13: ollama.e: expected a mapping, got true",
    ]
    assert check_file("prices.yaml") == told
    path = write(AGENT.format(model="m"))
    assert check_file(path) == told
    with pytest.raises(ConfigError) as caught:
        load_agent(path)
    assert list(caught.value.problems) == told


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n", "prices.yaml:1:1: expected a mapping of providers, got a list"),
        ("", "prices.yaml:1:1: the file is empty"),
        ("openai: {a: {input: 1, output: 2}, a: {input: 3, output: 4}}", "prices.yaml:1:36: openai.a: "),
    ],
)
def test_a_table_is_a_mapping_without_repetition(write, text, said):
    write(text, "prices.yaml")
    assert check_file("prices.yaml")[0].startswith(said)


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("gpt-5.4-mini", []),
        (
            "unheard-of",
            [
                (
                    "max_cost_usd (line 3) does not count openai/unheard-of: the price is unknown; "
                    "give the model a `price`, or list it in prices.yaml"
                )
            ],
        ),
    ],
)
def test_a_limit_in_dollars_over_a_model_without_a_price_is_told(write, capsys, model, told):
    path = write(AGENT.format(model=model))
    notes, built = [], []
    assert check_file(path, on_note=notes.append) == []
    load_agent(path, on_note=built.append)
    assert (notes, built) == (told, told)
    assert main(["check", path]) == 0
    printed = capsys.readouterr()
    assert printed.out == "agent.yaml: ok\n"
    assert printed.err == "".join(f"agent.yaml: note: {note}\n" for note in told)


def test_without_a_limit_in_dollars_a_price_may_be_unknown(write):
    notes = []
    text = "name: a\nllm: {provider: openai, model: unheard-of, api_key: k}\n"
    assert check_file(write(text), on_note=notes.append) == []
    assert notes == []
