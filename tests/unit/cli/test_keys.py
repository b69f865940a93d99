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


@pytest.mark.parametrize(
    "arguments",
    [["revoke", "nothing"], ["new", "--budget", "-1"], ["new", "--team", "a b"], ["new", "--keys", "x://y"]],
)
def test_what_cannot_be_is_one_line(factory, arguments):
    code, out, err = factory(*arguments)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1, err
