"""Keys: what they look like, where they are kept, what they open, and what an outage of their store costs."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import timedelta

import msgspec
import pytest

from shared_libs.service.callers import Caller
from shared_libs.service.key_format import Key
from shared_libs.service.key_rows import KeyRow, now
from shared_libs.service.key_store import FileKeys, KeyStoreError, key_store
from shared_libs.service.keys import FAILURES, FAILURES_WINDOW_S, FRESH_S, MOST_GUESSES, STALE_S, Door
from shared_libs.service.problems import Problem
from shared_libs.service.routers.answers import session_of, shown_session
from tests.service import ASKED, HELLO, serving, write
from tests.support import run, run_virtual

STORES = ["file", "sqlite", "postgres"]


@pytest.fixture(params=STORES)
def place(request, tmp_path):
    if request.param == "file":
        return "keys.yaml"
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'keys.db'}"
    return f"postgresql://owner@{request.getfixturevalue('postgres')}"


def row_of(key, **more):
    return KeyRow(**{"id": key.id, "hash": key.hash(""), "created_at": now()} | more)


def scope_of(key=None, client="1.2.3.4", **headers):
    told = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    told += [(b"authorization", f"Bearer {key}".encode())] if key else []
    return {"headers": told, "client": (client, 1), "method": "GET", "path": "/v1/runs"}


@pytest.mark.promise("keys-safe")
def test_a_key_is_known_by_its_form_and_one_wrong_character_shows():
    key = Key.new()
    text = str(key)
    assert Key.read(text) == key
    assert key.secret not in repr(key)
    for index in range(len(text)):
        other = "x" if text[index] != "x" else "y"
        assert Key.read(text[:index] + other + text[index + 1 :]) is None
    wrong = ("", "fk_", text + "x", text[:-1], f" {text}", "fk_é", key.hash(""))
    assert [Key.read(one) for one in wrong] == [None] * 7
    assert key.fits(key.hash("p"), "p")
    assert not key.fits(key.hash("p"), "")


@pytest.mark.promise("keys-kept")
def test_keys_are_kept_found_replaced_and_listed(place, tmp_path):
    first, second = Key.new(), Key.new()
    row = row_of(first, team="ops", scopes=("runs:read",), budget_usd=1.5, expires_at=now() + timedelta(days=1))

    async def main():
        store, other = key_store(place, tmp_path), key_store(place, tmp_path)
        nothing = await store.find(first.id)
        await store.keep(row)
        await store.keep(row_of(second))
        found = await other.find(first.id)
        await store.keep(msgspec.structs.replace(row, revoked_at=now()))
        revoked = await other.find(first.id)
        every = await other.every()
        await store.aclose()
        await other.aclose()
        return nothing, found, revoked, {each.id for each in every}

    nothing, found, revoked, every = asyncio.run(main())
    assert (nothing, found) == (None, row)
    assert revoked.why_not(now()) == "revoked"
    assert {first.id, second.id} <= every


@pytest.mark.promise("keys-safe")
def test_a_file_of_keys_holds_no_key_and_is_its_owners(tmp_path):
    key = Key.new()

    async def main():
        keys = FileKeys(tmp_path / "keys.yaml")
        told = [await keys.aopen()]
        await keys.keep(row_of(key))
        return [*told, await keys.aopen()]

    nobody, somebody = run(main())
    assert "has no key" in nobody
    assert not somebody
    file = tmp_path / "keys.yaml"
    assert key.secret not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0
    file.write_text("keys: [")
    with pytest.raises(KeyStoreError, match="not valid YAML"):  # a server with it does not start
        run(FileKeys(file).aopen())


class Kept:
    """A store of keys that fails when it is told to."""

    def __init__(self, *rows):
        self.rows = {row.id: row for row in rows}
        self.fails = False
        self.asked = self.at_once = self.most = 0

    async def find(self, key_id):
        self.asked += 1
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await asyncio.sleep(0.01)
        self.at_once -= 1
        if self.fails:
            raise KeyStoreError("down")
        return self.rows.get(key_id)

    async def aclose(self):
        pass


async def refusal(door, scope, needs="runs:read"):
    try:
        await door.admit(scope, needs)
    except Problem as problem:
        return problem.kind.status, problem.code
    return None


@pytest.mark.promise("keys-outage")
def test_an_outage_of_the_store_is_never_a_401_and_known_keys_go_on_for_five_minutes():
    known, fresh = Key.new(), Key.new()

    async def main():
        store = Kept(row_of(known), row_of(fresh))
        door = Door(store)
        await door.admit(scope_of(known), "runs:read")
        store.fails = True
        told = [await refusal(door, scope_of(fresh))]
        await asyncio.sleep(STALE_S - 10)
        told.append(await refusal(door, scope_of(known)))
        await asyncio.sleep(20)
        told.append(await refusal(door, scope_of(known)))
        store.fails = False
        told += [await refusal(door, scope_of(known)), await refusal(door, scope_of(fresh))]
        return told

    assert run_virtual(main()) == [(503, "store_unavailable"), None, (503, "store_unavailable"), None, None]


@pytest.mark.promise("keys-kept")
def test_a_revoked_key_opens_nothing_within_seconds_and_the_store_is_asked_once_for_many():
    key = Key.new()

    async def main():
        store = Kept(row_of(key))
        door = Door(store)
        await asyncio.gather(*(door.admit(scope_of(key), "runs:read") for _ in range(50)))
        asked = store.asked
        store.rows[key.id] = row_of(key, revoked_at=now())
        before = await refusal(door, scope_of(key))
        await asyncio.sleep(FRESH_S)
        return asked, before, await refusal(door, scope_of(key))

    assert run_virtual(main()) == (1, None, (401, "unauthorized"))


@pytest.mark.promise("keys-safe")
def test_who_shows_wrong_keys_is_slowed_down_and_asks_the_store_in_turn_while_a_valid_key_opens():
    key = Key.new()

    async def main():
        store = Kept(row_of(key))
        door = Door(store)
        told = [await refusal(door, scope_of(Key.new())) for _ in range(FAILURES + 5)]
        guesses = [asyncio.ensure_future(refusal(door, scope_of(Key.new()))) for _ in range(2 * MOST_GUESSES)]
        elsewhere = await refusal(door, scope_of(Key.new(), client="5.6.7.8"))
        most = store.most
        await asyncio.wait(guesses)
        before = store.asked
        valid = await refusal(door, scope_of(key))  # nobody has read it yet, and its address is that of who guesses
        await asyncio.sleep(FAILURES_WINDOW_S)
        return told, before, most, valid, elsewhere, await refusal(door, scope_of(Key.new()))

    told, asked, most, valid, elsewhere, later = run_virtual(main())
    assert told == [(401, "unauthorized")] * FAILURES + [(429, "too_many_failures")] * 5
    assert asked == FAILURES + 5 + 1 + MOST_GUESSES
    assert most == 2  # one who guesses, and one from elsewhere
    assert (valid, elsewhere, later) == (None, (401, "unauthorized"), (401, "unauthorized"))


@pytest.mark.promise("keys-safe")
def test_only_the_headers_of_a_request_open_the_door(caplog):
    key = Key.new()
    row = row_of(key)

    async def main():
        door = Door(Kept(row))
        wrong = [
            {"headers": [], "client": None, "method": "GET", "path": f"/v1/runs?key={key}"},
            scope_of(row.hash),
            scope_of(f"fk_{key.id}_{row.hash[:43]}_000000"),
            scope_of(host=f"x/#@{key}"),
            scope_of(authorization=f"Basic {key}"),
            scope_of(authorization="Bearer"),
            {**scope_of(key), "headers": scope_of(key)["headers"] * 2},
            scope_of(x_api_key=f"{key} "),
        ]
        right = [scope_of(key), scope_of(x_api_key=str(key)), scope_of(authorization=f"bearer  {key}")]
        return [await refusal(door, one) for one in wrong], [await refusal(door, one) for one in right]

    with caplog.at_level(logging.INFO):
        wrong, right = run_virtual(main())
    assert wrong == [(401, "unauthorized")] * 8
    assert right == [None] * 3
    assert key.secret not in caplog.text
    assert caplog.text.count("denied: ") == len(wrong)


def test_scopes_open_what_they_name_and_nothing_else():
    caller = Caller(scopes=("agents:run:hello", "models:gpt*", "runs:read"))
    assert [caller.may(what) for what in ("agents:run:hello", "models:gpt-5", "runs:read")] == [True] * 3
    assert [caller.may(what) for what in ("agents:run:hell", "agents:run", "models:x", "runs:cancel")] == [False] * 4
    assert [caller.may_some(what) for what in ("agents:run", "models", "runs:read")] == [True, True, True]
    assert [caller.may_some(what) for what in ("runs:cancel", "agents", "collections")] == [False, True, False]


@pytest.mark.promise("keys-teams")
def test_a_session_of_one_team_has_no_other_callers_name():
    callers = [Caller(team=team) for team in ("", "a", "b")]
    names = {(who.team, session_of(who, told)) for who in callers for told in ("s", "a/s", "/s", "/a/s", "b/a/s")}
    assert len({kept for _, kept in names}) == len(names) == 15
    assert all(shown_session(who, session_of(who, told)) == told for who in callers for told in ("s", "a/s"))


@pytest.mark.promise("keys-teams")
def test_what_is_one_teams_is_not_there_for_another(tmp_path):
    keys = {team: Key.new() for team in ("a", "b")}
    reader, expired, operator = Key.new(), Key.new(), Key.new()
    write(tmp_path, hello=HELLO.replace("[calculator]", "[{use: calculator, needs_approval: true}]"))

    async def main():
        store = key_store("keys.yaml", tmp_path)
        for team, key in keys.items():
            await store.keep(row_of(key, team=team))
        await store.keep(row_of(reader, team="a", scopes=("runs:read",)))
        await store.keep(row_of(expired, team="a", expires_at=now()))
        await store.keep(row_of(operator, team="b", scopes=("service:read", "agents:run:other")))
        async with serving(tmp_path, key=str(keys["a"])) as served:
            _, _, mine = await served.run(body=ASKED | {"session_id": "s"})
            run_id, other = mine["run_id"], f"Bearer {keys['b']}"
            row = await served.get(f"/v1/runs/{run_id}")
            refused = []
            for method, path in (
                ("GET", ""),
                ("DELETE", ""),
                ("GET", "/events"),
                ("POST", "/decisions"),
            ):
                async with served.http.request(
                    method,
                    f"/v1/runs/{run_id}{path}",
                    headers={"authorization": other},
                    json={"decisions": {mine["pending"][0]["call_id"]: True}} if method == "POST" else None,
                ) as answer:
                    refused.append((answer.status, json.loads(await answer.read())["code"]))
            pages = [
                len((await served.get("/v1/runs?session_id=s", authorization=f"Bearer {keys[team]}"))[2]["runs"])
                for team in ("a", "b")
            ]
            limited = [
                (await served.run(authorization=f"Bearer {reader}"))[::2],
                (await served.get("/v1/agents", authorization=f"Bearer {reader}"))[::2],
                (await served.get(f"/v1/runs/{run_id}", authorization=f"Bearer {reader}"))[0],
                (await served.get("/v1/runs", authorization=f"Bearer {expired}"))[0],
                (await served.get("/v1/runs", authorization="Bearer nothing"))[0],
            ]
            targets = [
                list((await served.get("/v1/status", authorization=f"Bearer {key}"))[2]["targets"])
                for key in (keys["a"], operator)
            ]
            served.http.headers.clear()
            open_ones = [(await served.get(path))[0] for path in ("/healthz", "/openapi.json")]
            (tmp_path / "wrong.yaml").write_text("name: [")
            await served.service.catalogue.load()
            open_ones.append((await served.get("/readyz"))[2])
            return row, refused, pages, limited, targets, open_ones

    row, refused, pages, limited, targets, open_ones = run(main())
    assert targets == [["hello"], []]
    assert (row[2]["session_id"], row[2]["team"]) == ("s", "a")
    assert refused == [(404, "not_found")] * 4
    assert pages == [1, 0]
    assert [status for status, _ in limited[:2]] == [403, 403]
    assert limited[0][1]["scope"] == "agents:run"
    assert limited[2:] == [200, 401, 401]
    assert open_ones == [200, 200, {"status": "ready", "entries": 2, "runs": 0, "refused": 1}]


@pytest.mark.promise("keys-safe")
@pytest.mark.parametrize(
    ("host", "server", "served"),
    [
        ("localhost:8000", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("[::1]:8000", "::1", True),
        ("testserver", "testserver", True),
        ("evil.example:8000", "127.0.0.1", False),
        ("localhost.evil.example", "127.0.0.1", False),
        ("127.0.0.1.evil.example", "127.0.0.1", False),
    ],
)
def test_without_keys_a_page_whose_name_leads_here_is_not_served(host, server, served):
    scope = scope_of(host=host) | {"server": (server, 8000)}
    beside = scope_of(host="localhost:8000", origin=f"http://{host}") | {"server": (server, 8000)}
    if served:
        assert run(Door().admit(scope, "runs:read"))
        assert run(Door().admit(beside, "runs:read"))
        return
    with pytest.raises(Problem, match="own name"):
        run(Door().admit(scope, "runs:read"))
    with pytest.raises(Problem, match="only pages of this machine"):
        run(Door().admit(beside, "runs:read"))


@pytest.mark.promise("serve-keys")
@pytest.mark.parametrize(
    "origin", ["null", "file://", "https://evil.example", "http://127.0.0.1@evil.example", "http://a.b:1"]
)
def test_without_keys_no_page_of_another_place_asks(origin):
    with pytest.raises(Problem, match="only pages"):
        run(Door().admit(scope_of(host="localhost", origin=origin) | {"server": ("127.0.0.1", 8000)}, "runs:read"))
