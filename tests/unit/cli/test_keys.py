"""`factory keys`: made, listed, rotated and revoked."""

from __future__ import annotations

import json

import pytest

from shared_libs.cli import main
from shared_libs.service.key_format import Key


@pytest.fixture
def factory(tmp_path, monkeypatch, capsys):
    (tmp_path / "configs").mkdir()
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        code = main(["keys", *arguments])
        told = capsys.readouterr()
        return code, told.out, told.err

    return call


@pytest.mark.promise("keys-kept")
def test_a_key_is_shown_once_listed_without_it_rotated_and_revoked(factory):
    code, out, err = factory("new", "--team", "ops", "--name", "ci", "--budget", "5", "--days", "30")
    key = Key.read(out.strip())
    assert (code, key is not None) == (0, True)
    assert "shown once" in err
    fresh = Key.read(factory("new", "--rotates", key.id, "--overlap", "1")[1].strip())
    code, _, err = factory("revoke", fresh.id)
    assert (code, "is revoked" in err) == (0, True)
    out = factory("list", "--json")[1]
    assert key.secret not in out
    rows = {row["id"]: row for row in json.loads(out)}
    assert (rows[fresh.id]["team"], rows[fresh.id]["budget_usd"]) == ("ops", 5)
    assert rows[fresh.id]["revoked_at"]
    assert "expires_at" not in rows[fresh.id]
    assert rows[key.id]["expires_at"]
    code, out, _ = factory("list")
    assert (code, "revoked" in out, key.secret in out) == (0, True, False)


def test_a_file_is_meant_from_the_working_directory(factory, tmp_path):
    assert factory("new", "--keys", "own.yaml")[0] == 0
    assert (tmp_path / "own.yaml").is_file()
    assert factory("list", "--keys", "own.yaml", "--json")[1].count('"id"') == 1


def test_a_file_that_does_not_hold_is_bad_configuration(factory, tmp_path, capsys):
    """A server with it told so by a traceback, and ended with what means partial."""
    (tmp_path / "own.yaml").write_text("kys: []\n")
    code, _, err = factory("list", "--keys", "own.yaml")
    assert (code, "own.yaml:1:1: " in err) == (2, True)
    assert main(["serve", "--keys", "own.yaml"]) == 2
    assert capsys.readouterr().err == err


@pytest.mark.parametrize(
    "arguments",
    [["revoke", "nothing"], ["new", "--budget", "-1"], ["new", "--team", "a b"], ["new", "--keys", "x://y"]],
)
def test_what_cannot_be_is_one_line(factory, arguments):
    code, out, err = factory(*arguments)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1, err


@pytest.mark.parametrize(
    ("scope", "hint"),
    [
        ("agent:run:hello", "did you mean 'agents:run:'?"),
        ("runs:raed", "did you mean 'runs:read'?"),
        ("nope", "; what does: agents:run:, models:, "),
        ("x*", "; what does: "),
    ],
)
def test_a_scope_that_opens_nothing_is_told_and_kept_for_an_application_has_its_own(factory, scope, hint):
    code, out, err = factory("new", "--scope", scope, "--scope", "runs:*", "--scope", "*", "--scope", "agents:run:a")
    assert (code, len(out.splitlines())) == (0, 1)
    notes = [line for line in err.splitlines() if line.startswith("note: ")]
    assert len(notes) == 1, err
    assert hint in notes[0]


@pytest.mark.parametrize("arguments", [["--days", "1e300"], ["--days", "-1"], ["--overlap", "nan"], ["--days", "soon"]])
def test_a_time_that_no_calendar_has_is_told_as_its_option(factory, capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        factory("new", *arguments)
    assert caught.value.code == 2
    assert f"argument {arguments[0]}: a positive number of " in capsys.readouterr().err


def test_the_first_command_of_a_new_user_may_be_a_key(factory, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "new"))
    for name in ("XDG_DATA_HOME", "FACTORY_RUNS"):
        monkeypatch.delenv(name, raising=False)
    code, out, err = factory("new")
    assert (code, len(out.splitlines())) == (0, 1), err
