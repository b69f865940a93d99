"""Every broken file is answered by one line per problem: where, which key, what is allowed, the nearest name."""

from __future__ import annotations

import pytest

from shared_libs.atomic import ConfigError, MisuseError
from shared_libs.factory import check_file, load_agent
from shared_libs.factory.registry import LLMS, MEMORIES, TOOLS
from shared_libs.factory.spec import MemorySpec

HEAD = "name: a\nllm: {provider: fake, model: m}\n"
LIMITS = "max_cost_usd, max_repeats, max_steps, max_tokens, max_tool_calls, reserve_s, timeout_s"
POLICY = [
    "attempt_timeout_s",
    "breaker",
    "first_token_timeout_s",
    "hedge_after_s",
    "idle_timeout_s",
    "rate_limit",
    "retry",
    "strategy",
]
SECTION = ", ".join(sorted([*POLICY, "chain"]))
ALONE = ", ".join(sorted([*POLICY, "api_key", "base_url", "context_window", "model", "options", "price", "provider"]))
COMMON = [
    *("cpu_limit_s", "description", "isolation", "max_observation_chars", "memory_limit_mb", "name", "needs_approval"),
    *("sequential", "timeout_s", "use"),
]
WEATHER = ", ".join(sorted([*COMMON, "days", "password", "place", "units"]))
TOOL_NAME = "what the model calls the tool (letters, digits, '_', '-'): by default its own name; needed for a second"
TOP = "collections, description, durable, instructions, limits, llm, memory, name, output_schema, protocol, tools"
OWN_TOOL = (
    "code is not named in a definition: pass the tool in Python, load_agent(path, tools=[…]), "
    "or register it in a package by an entry point of the group 'genai_factory'"
)

BROKEN = {
    "unknown key": (HEAD + "toolz: []\n", [f"3:1: toolz: unknown key; allowed: {TOP}; did you mean 'tools'?"]),
    "no name": (
        "llm: {provider: fake, model: m}\n",
        ["1:1: name: is missing; the agent's name: letters, digits, '.', '_' and '-'"],
    ),
    "no model": ("name: a\n", ["1:1: llm: is missing; give `chain`, or `provider` and `model`"]),
    "an empty model": ("name: a\nllm:\n", ["2:5: llm: is missing; give `chain`, or `provider` and `model`"]),
    "a model that is a word": ("name: a\nllm: gpt\n", ["2:6: llm: expected a mapping, got text 'gpt'"]),
    "bad name": (
        "name: my agent\nllm: {provider: fake, model: m}\n",
        ["1:7: name: 'my agent' does not fit; the agent's name: letters, digits, '.', '_' and '-'"],
    ),
    "wrong type": (HEAD + "instructions: 5\n", ["3:15: instructions: expected text, got the number 5"]),
    "empty value": (HEAD + "tools:\n", ["3:7: tools: expected a list, got nothing; give a value or remove the key"]),
    "text for a number": (
        HEAD + 'limits: {timeout_s: "60"}\n',
        ["3:21: limits.timeout_s: expected a number, got text '60'"],
    ),
    "yes is text": (
        HEAD + "tools:\n  - {use: ready, sequential: yes}\n",
        ["4:30: tools[0].sequential: expected true or false, got text 'yes'"],
    ),
    "negative limit": (
        HEAD + "limits:\n  max_steps: -1\n",
        ["4:14: limits.max_steps: expected a number from 1, got the number -1"],
    ),
    "fraction of a step": (
        HEAD + "limits: {max_steps: 1.5}\n",
        ["3:21: limits.max_steps: expected a whole number, got the number 1.5"],
    ),
    "zero time": (
        HEAD + "limits: {timeout_s: 0}\n",
        ["3:21: limits.timeout_s: expected a number above 0, got the number 0"],
    ),
    "endless time": (HEAD + "limits: {timeout_s: .inf}\n", ["3:21: limits.timeout_s: .inf is not a finite number"]),
    "mistyped limit": (
        HEAD + "limits: {max_step: 3}\n",
        [f"3:10: limits.max_step: unknown key; allowed: {LIMITS}; did you mean 'max_steps'?"],
    ),
    "reserve eats the time": (
        HEAD + "limits: {timeout_s: 5, reserve_s: 6}\n",
        ["3:35: limits.reserve_s: 6 leaves nothing of timeout_s, 5; allowed: less than that"],
    ),
    "unknown protocol": (
        HEAD + "protocol: txt\n",
        ["3:11: protocol: 'txt' is not known; allowed: auto, native, text; did you mean 'text'?"],
    ),
    "unknown provider": (
        "name: a\nllm:\n  chain:\n    - {provider: fke, model: m}\n",
        ["4:18: llm.chain[0].provider: 'fke' is no provider; allowed: {llms}; did you mean 'fake'?"],
    ),
    "no provider": (
        "name: a\nllm:\n  chain:\n    - {model: m}\n",
        ["4:7: llm.chain[0].provider: is missing; who serves the model"],
    ),
    "neither chain nor provider": (
        "name: a\nllm: {chian: []}\n",
        [
            "2:6: llm.chain: is missing; the models, in the order in which they are asked",
            f"2:7: llm.chian: unknown key; allowed: {SECTION}; did you mean 'chain'?",
        ],
    ),
    "empty chain": (
        "name: a\nllm: {chain: []}\n",
        ["2:14: llm.chain: expected a list that is not empty, got an empty list"],
    ),
    "key of the short form": (
        "name: a\nllm: {provider: fake, model: m, stratgy: race}\n",
        [f"2:33: llm.stratgy: unknown key; allowed: {ALONE}; did you mean 'strategy'?"],
    ),
    "unknown strategy": (
        "name: a\nllm: {provider: fake, model: m, strategy: rase}\n",
        ["2:43: llm.strategy: 'rase' is not known; allowed: hedged, race, sequential; did you mean 'race'?"],
    ),
    "no tries": (
        "name: a\nllm: {provider: fake, model: m, retry: {attempts: 0}}\n",
        ["2:51: llm.retry.attempts: expected a number from 1, got the number 0"],
    ),
    "negative price": (
        "name: a\nllm: {provider: fake, model: m, price: {input: -1, output: 2, cache: 3}}\n",
        [
            "2:48: llm.price.input: expected a number from 0, got the number -1",
            (
                "2:63: llm.price.cache: unknown key; allowed: cache_write, cached_input, hour_cache_write, "
                "input, output; did you mean 'cache_write'?"
            ),
        ],
    ),
    "unknown tool": (
        HEAD + "tools: [wether]\n",
        ["3:9: tools[0].use: 'wether' is no tool; allowed: {tools}; did you mean 'weather'?"],
    ),
    "dotted path": (
        HEAD + "tools:\n  - use: os.system\n",
        [f"4:10: tools[0].use: 'os.system' is no tool; allowed: {{tools}}; {OWN_TOOL}"],
    ),
    "tool without a name": (HEAD + "tools: [{timeout_s: 3}]\n", ["3:9: tools[0].use: is missing; which tool"]),
    "tool that is a number": (HEAD + "tools: [3]\n", ["3:9: tools[0]: expected a mapping, got the number 3"]),
    "option of a tool": (
        HEAD + "tools:\n  - {use: weather, plac: x}\n",
        [
            "4:5: tools[0].place: is missing; where, in plain words of any language",
            f"4:20: tools[0].plac: unknown key; allowed: {WEATHER}; did you mean 'place'?",
        ],
    ),
    "one of two types": (
        HEAD + "tools:\n  - {use: weather, place: x, days: z}\n",
        ["4:36: tools[0].days: expected a whole number or a list, got text 'z'"],
    ),
    "inside a list": (
        HEAD + "tools:\n  - {use: weather, place: x, days: [1, z]}\n",
        ["4:40: tools[0].days[1]: expected a whole number, got text 'z'"],
    ),
    "refused by the tool": (
        HEAD + "tools:\n  - {use: weather, place: x, days: 0}\n",
        ["4:5: tools[0]: no days for x,"],
    ),
    "an option refused by the tool": (
        HEAD + "tools:\n  - {use: weather, place: x, days: 12}\n",
        ["4:36: tools[0].days: days must not be a dozen"],
    ),
    "one tool twice": (
        HEAD + "tools:\n  - ready\n  - ready\n",
        ["5:5: tools[1]: a second tool named 'ready' (see line 4); give one another `name`"],
    ),
    "bad tool name": (
        HEAD + "tools: [{use: ready, name: a b}]\n",
        [f"3:28: tools[0].name: 'a b' does not fit; {TOOL_NAME}"],
    ),
    "unknown memory": (
        HEAD + "memory: {url: 'mysql://u:hidden@h/x', windw: 3}\n",
        [
            "3:15: memory.url: no memory is kept at such an address; allowed: {memories}",
            "3:39: memory.windw: unknown key; allowed: {memory_keys}; did you mean 'window'?",
        ],
    ),
    "missing variable": (
        HEAD + "memory: {url: '${NOT_SET}'}\n",
        ["3:15: memory.url: the environment variable NOT_SET is not set; set it, or write ${NOT_SET:-default}"],
    ),
    "no variable": (
        HEAD + "instructions: 'use ${a b} or ${'\n",
        ["3:15: instructions: ${a b} names no variable; write ${NAME}, ${NAME:-default}, or $${ for the characters"],
    ),
    "variable for a number": (
        HEAD + "limits: {timeout_s: '${HOME:-x}'}\n",
        ["3:21: limits.timeout_s: expected a number, got text '${HOME:-x}'; a variable always gives text"],
    ),
    "key twice": (
        HEAD + "limits: {max_steps: 1}\nlimits: {max_steps: -2}\n",
        ["4:1: limits: the key stands twice, first on line 3"],
    ),
    "a list": ("- name: a\n", ["1:1: expected a mapping, got a list"]),
    "nothing": ("# only a comment\n", ["1:1: the file is empty"]),
}


@pytest.mark.promise("config-told")
@pytest.mark.usefixtures("plugin")
def test_a_broken_definition_is_told_line_by_line(write):
    known = {
        "{llms}": LLMS.names(),
        "{tools}": TOOLS.names(),
        "{memories}": sorted(f"{name}:" for name in MEMORIES.names()),
        "{memory_keys}": sorted(MemorySpec.model_fields),
    }
    for case, (text, expected) in BROKEN.items():
        lines = [f"agent.yaml:{line}" for line in expected]
        for mark, names in known.items():
            lines = [line.replace(mark, ", ".join(names)) for line in lines]
        path = write(text)
        assert check_file(path) == lines, case
        with pytest.raises(ConfigError) as caught:
            load_agent(path)
        assert caught.value.problems == tuple(lines), case


@pytest.mark.promise("config-told")
@pytest.mark.usefixtures("plugin")
def test_all_problems_of_a_file_come_at_once_in_its_order(write):
    text = (
        "name: 1\nllm:\n  chain:\n    - {provider: fake, modle: x}\n    - {provider: none}\n  strategy: none\n"
        "tools: [nowhere]\nlimits: {max_steps: 0}\nmore: 1\n"
    )
    places = [line.split(": ")[:2] for line in check_file(write(text))]
    assert places == [
        ["agent.yaml:1:7", "name"],
        ["agent.yaml:4:7", "llm.chain[0].model"],
        ["agent.yaml:4:24", "llm.chain[0].modle"],
        ["agent.yaml:5:18", "llm.chain[1].provider"],
        ["agent.yaml:6:13", "llm.strategy"],
        ["agent.yaml:7:9", "tools[0].use"],
        ["agent.yaml:8:21", "limits.max_steps"],
        ["agent.yaml:9:1", "more"],
    ]


def test_thousands_of_problems_are_cut(write):
    lines = check_file(write(HEAD + "".join(f"k{index}: 1\n" for index in range(1000))))
    assert len(lines) == 101
    assert lines[-1].startswith("and 90")


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("a.scenario.yaml", "scenario: s\nagent: a.yaml\n", "a scenario; `factory scenario` plays it, "),
        ("a.cassette.yaml", "cassette: 1\nrequests: []\n", "a cassette; a scenario names it"),
        ("faults.yaml", "m: {fault: cut}\n", "a script of faults; `factory faults --script` serves it"),
        ("prices.yaml", "openai: {m: {input: 1, output: 2}}\n", "what models cost; "),
        ("compose.yaml", "services: {web: {image: nginx}}\n", "a compose file"),
        ("pod.yaml", "apiVersion: v1\nkind: Pod\n", "a manifest of Kubernetes"),
    ],
)
def test_a_file_of_another_kind_is_told_as_what_it_is_and_not_key_by_key(name, text, kind, tmp_path):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_agent(path)
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(f"{path}:1:1: no definition of an agent, but {kind}")


@pytest.mark.parametrize("given", [{"name": "a"}, None])
def test_data_in_the_place_of_a_path_is_told(given):
    with pytest.raises(MisuseError, match="agent_from_dict takes data"):
        load_agent(given)


def test_what_a_merge_key_would_bring_is_not_missed(write):
    text = "name: a\nllm:\n  chain:\n    - &l {provider: openai, model: m}\n    - {<<: *l, model: n}\n"
    assert [line.partition(": ")[2] for line in check_file(write(text))] == [
        "llm.chain[1]: merge keys (<<) are not allowed; write the keys out"
    ]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("agnet.yaml", "agnet.yaml: there is no such file; did you mean 'agent.yaml'?"),
        ("./agent.yml", "agent.yml: there is no such file; did you mean './agent.yaml'?"),
        ("nowhere.yaml", "nowhere.yaml: there is no such file"),
        (".", ".: is a folder; name the YAML file in it"),
        ("a\nb.yaml", "a\\nb.yaml: there is no such file; did you mean 'agent.yaml'?"),
        ("nul\0.yaml", "nul\\x00.yaml: cannot be read: embedded null byte"),
    ],
)
def test_a_file_that_cannot_be_read(name, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "agent.yaml").touch()
    assert check_file(name) == [line]
