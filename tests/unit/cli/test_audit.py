"""`factory audit`: what `factory keys` has done is listed, and whether the log is whole is told."""

from __future__ import annotations

import json
import sqlite3

import pytest

from shared_libs.cli import main


@pytest.fixture
def factory(tmp_path, monkeypatch, capsys):
    (tmp_path / "configs").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FACTORY_RUNS", f"sqlite:///{tmp_path / 'runs.db'}")

    def call(*arguments):
        code = main([*arguments])
        told = capsys.readouterr()
        return code, told.out, told.err

    return call


@pytest.mark.promise("audit-kept")
def test_keys_that_are_made_rotated_and_revoked_are_noted_and_a_changed_row_is_found(factory, tmp_path):
    key = factory("keys", "new", "--team", "ops", "--name", "ci")[1].strip()
    fresh = factory("keys", "new", "--rotates", key.split("_")[1])[1].strip()
    factory("keys", "revoke", fresh.split("_")[1])
    code, out, _ = factory("audit", "list", "--json")
    entries = [json.loads(line) for line in out.splitlines()]
    assert [entry["action"] for entry in entries] == ["key.made", "key.made", "key.rotated", "key.revoked"]
    assert [entry["object"].partition(":")[2] for entry in entries[:2]] == [key.split("_")[1], fresh.split("_")[1]]
    assert entries[0]["facts"] == {"team": "ops", "name": "ci", "scopes": "*"}
    assert all(entry["actor"].startswith("user:") and entry["after"] != entry.get("before") for entry in entries)
    assert (code, key.split("_", 2)[2] in out) == (0, False)
    assert "key.rotated key:" in factory("audit", "list", "--after", "2")[1].splitlines()[0]
    code, out, _ = factory("audit", "verify")
    head = out.split()[-1]
    assert (code, out.startswith("4 rows follow from each other")) == (0, True)
    assert factory("audit", "verify", "--seen", head)[0] == 0
    with sqlite3.connect(tmp_path / "runs.db") as database:
        database.execute("DROP TRIGGER factory_audit_update")
        database.execute("UPDATE factory_audit SET told = replace(told, 'ops', 'dev') WHERE seq = 1")
    database.close()
    code, out, err = factory("audit", "verify", "--seen", head)
    assert (code, out) == (1, "")
    assert "row 1 does not follow" in err
    assert factory("audit", "verify", "--seen", "4:x")[0] == 2


def test_where_no_runs_are_kept_keys_are_made_and_no_log_is(factory, monkeypatch):
    monkeypatch.setenv("FACTORY_RUNS", "off")
    code, _, err = factory("keys", "new")
    assert (code, "no audit log is kept" in err) == (0, True)
    code, _, err = factory("audit", "verify")
    assert (code, "FACTORY_RUNS is off: name a place" in err) == (2, True)
