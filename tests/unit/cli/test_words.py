"""What a user says to `factory`, rightly or wrongly, and what it says back."""

from __future__ import annotations

import os
import stat

import pytest

from shared_libs.cli import main


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.yaml").write_text("name: a\nllm: {provider: openai, model: m}\n")
    return tmp_path


def said(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    out, err = capsys.readouterr()
    return caught.value.code, out, err


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_the_version_is_told(capsys, option):
    code, out, _ = said(capsys, option)
    assert code == 0
    assert out.startswith("genai-factory 0.")


@pytest.mark.parametrize("words", [("help",), ("help", "run")])
def test_help_is_a_word_too(capsys, words):
    code, out, _ = said(capsys, *words)
    assert (code, out) == (0, said(capsys, *words[1:], "--help")[1])


@pytest.mark.parametrize(
    ("arguments", "usage", "hint"),
    [
        (("rnu", "agent.yaml", "Hi."), "usage: factory [", "'rnu' is no command; allowed: "),
        (("rnu",), "usage: factory [", "did you mean 'run'?"),
        (("run", "a.yaml", "Hi.", "--tmeout", "3"), "usage: factory run [", "did you mean '--timeout'?"),
        (("run", "a.yaml", "What", "does", "--verbose", "do?"), "usage: factory run [", "stands in quotes"),
        (("simulate", "a.yaml", "--sed", "3"), "usage: factory simulate [", "did you mean '--seed'?"),
        (("check",), "usage: factory check [", "PATH"),
        (("--json", "run", "a.yaml", "Hi."), "usage: factory [", "behind their command: factory run … --json"),
        (("--verison",), "usage: factory [", "not understood: --verison; did you mean '--version'?"),
        (("-v",), "usage: factory [", "not understood: -v"),
        (("help", "rnu"), "usage: factory [", "did you mean 'run'?"),
    ],
)
def test_what_is_not_understood_is_told_by_the_command_it_was_said_to(capsys, arguments, usage, hint):
    code, out, err = said(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(usage)
    assert hint in err


def test_a_question_needs_no_quotes(factory):
    agent = factory.agent("echo")
    assert factory("run", agent, "What", "is", "17", "-", "3?", "--timeout", "9")[:2] == (
        0,
        "1 so far, last: What is 17 - 3?\n",
    )


def test_a_run_ends_with_a_line_of_what_it_took_and_json_has_none(factory):
    agent = factory.agent("look", "look")
    err = factory("run", agent, "Go")[2]
    assert err.splitlines()[-1].split("s  ")[1] == "answered · 2 model requests · 1 tool call"
    assert factory("run", agent, "Go", "--json")[2] == ""


@pytest.mark.parametrize("name", ["played/echo", "echo"])
def test_a_model_of_the_chain_is_chosen_by_its_name(factory, name):
    agent = "name: a\nllm: {chain: [{provider: played, model: silent}, {provider: played, model: echo}]}\n"
    (factory.folder / "agent.yaml").write_text(agent)
    assert factory("run", "agent.yaml", "Hi.", "-m", name)[:2] == (0, "1 so far, last: Hi.\n")


def test_a_model_beside_the_chain_is_asked_under_its_policy_and_the_chain_needs_no_keys(factory):
    (factory.folder / "agent.yaml").write_text(
        "name: a\nllm: {chain: [{provider: openai, model: m, api_key: '${NO_SUCH_KEY}'}], retry: {attempts: 1}}\n"
    )
    assert factory("run", "agent.yaml", "Hi.", "-m", "played/echo")[:2] == (0, "1 so far, last: Hi.\n")
    (factory.folder / "bare.yaml").write_text("name: a\ntools: [calculator]\n")
    assert factory("run", "bare.yaml", "Hi.", "--model", "played/echo")[0] == 0
    code, _, err = factory("run", "bare.yaml", "Hi.", "-m", "playd/echo")
    assert code == 2
    assert "the model 'playd/echo' is not known" in err
    assert "played/MODEL" in err
    assert "17 * 23 = 391" in factory("run", "bare.yaml", "What is 17 * 23?", "-m", "rehearsal/hello")[1]


def test_the_words_to_the_model_may_be_others(factory):
    agent = factory.agent("system")
    assert "You are a pirate." in factory("run", agent, "Hi.", "--system", "You are a pirate.")[1]
    assert factory("run", agent, "Hi.")[1] != ""


def test_variables_come_from_the_environment_then_from_here_then_from_beside_the_definition(factory):
    inner = factory.folder / "inner"
    inner.mkdir()
    (inner / "agent.yaml").write_text(
        "name: a\nllm: {provider: played, model: system}\ninstructions: '${ONE} ${TWO} ${THREE}'\n"
    )
    (factory.folder / ".env").write_text("ONE=here\nTWO=here\n")
    (inner / ".env").write_text("ONE=beside\nTWO=beside\nexport THREE='beside # not a comment'\n")
    factory.environment["ONE"] = "environment"
    code, out, err = factory("run", "inner/agent.yaml", "Hi.")
    assert (code, out) == (0, "environment here beside # not a comment\n"), err


def test_a_virtual_environment_called_env_is_none_of_ours_and_a_broken_file_is_told_without_its_text(factory):
    (factory.folder / ".env").mkdir()
    assert factory("run", factory.agent("echo"), "Hi.")[0] == 0
    (factory.folder / ".env").rmdir()
    (factory.folder / ".env").write_bytes(b"OPENAI_API_KEY=sk-secret\xff\n")
    code, _, err = factory("run", "agent.yaml", "Hi.")
    assert (code, err) == (2, ".env cannot be read: it is not UTF-8\n")


def test_a_line_of_an_env_that_is_none_is_left_out_and_told_by_its_place_alone(here, capsys, monkeypatch):
    monkeypatch.setenv("KEPT", "")
    monkeypatch.delenv("KEPT")
    (here / ".env").write_bytes(b"\xef\xbb\xbfOPENAI_API_KEY sk-secret\r\nKEPT='yes'\r\n")
    assert main(["check", "good.yaml"]) == 0
    assert capsys.readouterr().err == "note: .env:1: is left out; a line is NAME=value\n"
    assert os.environ["KEPT"] == "yes"


def test_init_makes_what_runs_at_once_and_overwrites_nothing(factory):
    code, out, err = factory("init", "new")
    assert code == 0, err
    new = factory.folder / "new"
    assert {path.name for path in new.iterdir()} == {"agent.yaml", "agent.scenario.yaml", ".env"}
    assert stat.S_IMODE((new / ".env").stat().st_mode) == 0o600
    assert 'factory run new/agent.yaml "What is 17 * 23?"' in out
    code, out, err = factory("run", "new/agent.yaml", "What is 17 * 23?")
    assert (code, out.partition("\n")[0]) == (0, "17 * 23 = 391."), err
    assert factory("scenario", "new")[0] == 0
    assert factory("check", "new")[0] == 0
    code, _, err = factory("init", "new")
    assert code == 2
    assert "new/agent.yaml, new/agent.scenario.yaml, new/.env are there already" in err


def test_init_leaves_an_env_that_is_there(factory):
    (factory.folder / ".env").write_text("KEY=mine\n")
    assert factory("init")[0] == 0
    assert (factory.folder / ".env").read_text() == "KEY=mine\n"


def test_init_says_where_it_cannot_write(factory):
    (factory.folder / "file").write_text("")
    code, _, err = factory("init", "file/inner")
    assert code == 2
    assert "cannot be written" in err
    assert [path.name for path in factory.folder.iterdir()] == ["file"]
