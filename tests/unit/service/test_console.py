"""The console over HTTP: what its files are, what they may do, and how a browser keeps its key."""

from __future__ import annotations

import asyncio
import gzip
import re
import shutil
import subprocess
from importlib.resources import files

import pytest

from shared_libs.atomic.resilience.policy import Breaker
from shared_libs.observability.run_file import SCRIPTS
from shared_libs.observability.run_file import page_file as trace_file
from shared_libs.service.callers import ANYONE
from shared_libs.service.console import KINDS, page_file
from shared_libs.service.key_format import Key
from shared_libs.service.key_rows import KeyRow
from shared_libs.service.key_store import FileKeys
from tests.service import HELLO, serving, write
from tests.support import run

SOURCE = files("shared_libs.service.console").joinpath("source")


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path, hello=HELLO)


@pytest.mark.promise("console-page")
def test_the_page_is_small_and_may_run_and_ask_nothing_but_its_own(folder):
    async def main():
        found = {}
        async with serving(folder) as served:
            for path in ("/", "/console.js", "/console.css"):
                async with served.http.get(path, headers={"accept-encoding": "gzip"}, auto_decompress=False) as answer:
                    found[path] = answer.headers, await answer.read()
            tag = found["/"][0]["etag"]
            async with served.http.get("/", headers={"if-none-match": tag}) as again:
                return found, again.status

    found, again = run(main())
    assert sum(len(body) for _, body in found.values()) <= 60_000
    for headers, _ in found.values():
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert (policy["script-src"], policy["style-src"], policy["connect-src"]) == ("'self'", "'self'", "'self'")
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
    assert again == 304
    whole = b"".join(gzip.decompress(body) for _, body in found.values()).decode()
    addresses = set(re.findall(r"https?://[\w.-]+", whole))
    assert {address.removeprefix("http://") for address in addresses} <= {"www.w3.org"}  # names of XML, never asked


@pytest.mark.promise("console-page")
@pytest.mark.skipif(shutil.which("npm") is None, reason="the console is built by npm, which is not here")
def test_the_page_is_what_its_source_makes(tmp_path):
    source = tmp_path / "source"
    shutil.copytree(str(SOURCE), source, ignore=shutil.ignore_patterns("node_modules"))
    installed = subprocess.run(["npm", "ci"], cwd=source, capture_output=True, text=True, check=False)
    if installed.returncode:
        pytest.skip(f"npm could not install what builds the console: {installed.stderr[-200:]}")
    subprocess.run(["npm", "run", "check"], cwd=source, capture_output=True, check=True)
    folders = [str(tmp_path / name) for name in ("page", "trace")]
    subprocess.run(["node", "build.mjs", *folders], cwd=source, capture_output=True, check=True)
    built = {name: (tmp_path / "page" / name, page_file(name).decode()) for name in KINDS}
    built |= {name: (tmp_path / "trace" / name, trace_file(name)) for name in SCRIPTS}
    for name, (file, kept) in built.items():
        assert file.read_text() == kept, f"{name}: run `npm run build`, and commit it"


@pytest.mark.promise("console-session")
def test_a_browser_keeps_its_key_where_no_script_reads_it_and_no_other_page_sends_it(folder):
    key = Key.new()
    row = KeyRow(id=key.id, hash=key.hash(""), team="ops", scopes=("runs:read",))

    async def main():
        await FileKeys(folder / "keys.yaml").keep(row)
        async with serving(folder) as served:
            unknown = (await served.get("/v1/session"))[0]
            bearer = {"authorization": f"Bearer {key}"}
            async with served.http.post("/v1/session", headers=bearer) as answer:
                cookie = answer.headers["set-cookie"]
            kept = {"cookie": f"other=1; {cookie.partition(';')[0]}"}
            page = {**kept, "x-factory-console": "1"}
            foreign = (await served.get("/v1/runs", **kept))[0]
            ours = (await served.get("/v1/runs", **page))[0]
            who = (await served.get("/v1/session", **page))[2]
            async with served.http.delete("/v1/session", headers=page) as answer:
                forgotten = answer.headers["set-cookie"]
            return unknown, cookie, foreign, ours, who, forgotten

    unknown, cookie, foreign, ours, who, forgotten = run(main())
    assert (unknown, foreign, ours) == (401, 401, 200)
    assert {"HttpOnly", "SameSite=Strict", "Max-Age=28800", "Path=/"} <= set(cookie.split("; "))
    assert (who["team"], who["open"], who["scopes"]) == ("ops", False, ["runs:read"])
    assert "Max-Age=0" in forgotten
    assert str(key) not in str(who)


SECRET = HELLO + "instructions: 'Use the key sk-abcdefghijklmnopqrstuvwxyz0123456789ABCD.'\n"


@pytest.mark.promise("console-shows")
def test_an_agents_definition_is_told_without_its_secrets_and_with_what_checking_it_has_said(tmp_path):
    folder = write(tmp_path, hello=SECRET)

    async def main():
        async with serving(folder) as served:
            good = await served.get("/v1/agents/hello")
            (folder / "hello.yaml").write_text(SECRET.replace("tools:", "toolz:"))
            await served.service.catalogue.load()
            return good, await served.get("/v1/agents/hello"), await served.get("/v1/agents/nobody")

    (_, _, good), (_, _, broken), (unknown, _, _) = run(main())
    assert (good["file"], good["problems"], unknown) == ("hello.yaml", [], 404)
    assert "rehearses" in good["notes"][0]
    assert "llm: {provider: rehearsal, script: hello}" in good["definition"]
    assert "sk-abcdef" not in good["definition"]
    assert "toolz" in broken["problems"][0]
    assert "toolz" in broken["definition"]


@pytest.mark.promise("console-shows")
def test_slots_queues_refusals_models_and_breakers_are_told(folder):
    write(folder, service="slots: 1\n")

    async def main():
        async with serving(folder) as served:
            await served.run()
            late = await served.run(x_request_timeout="0.000001")
            agent = served.service.catalogue.find(ANYONE, "hello").agent
            for _ in range(5):
                agent.llm.health.breaker.failed(Breaker(), asyncio.get_running_loop().time())
            return late[0], (await served.get("/v1/status"))[2]

    late, told = run(main())
    target, model = told["targets"]["hello"], told["models"][0]
    assert (target["slots"], target["taken"], target["waiting"], target["queues"]) == (1, 0, 0, {})
    assert late == 503
    assert target["refused"] == {"deadline_unreachable": 1}
    assert (model["breaker"], model["used_by"], model["opens_at"]) == ("open", ["hello"], 5)
    assert 29 < model["asked_again_in_s"] <= 30


@pytest.mark.promise("console-shows")
def test_keys_are_told_with_what_is_left_of_their_budgets_and_of_another_team_nothing(folder):
    keys = {name: Key.new() for name in ("ops", "lab", "all")}

    async def main():
        for team, key in keys.items():
            scopes = ("keys:read", "agents:run:*")
            row = KeyRow(
                id=key.id, hash=key.hash(""), team=team * (team != "all"), scopes=scopes, budget_usd=2.0,
                requests_per_minute=60,
            )  # fmt: skip
            await FileKeys(folder / "keys.yaml").keep(row)
        async with serving(folder, key=str(keys["ops"])) as served:
            await served.run()
            mine = (await served.get("/v1/keys"))[2]
            every = (await served.get("/v1/keys", authorization=f"Bearer {keys['all']}"))[2]
            return mine, every

    mine, every = run(main())
    assert [key["id"] for key in mine["keys"]] == [keys["ops"].id]
    assert len(every["keys"]) == 3
    assert not any("hash" in key for key in every["keys"])
    limits = {limit["unit"]: limit for limit in mine["keys"][0]["limits"]}
    assert (limits["usd"]["limit"], limits["usd"]["left"]) == (2.0, 2.0)
    assert (limits["requests"]["limit"], limits["requests"]["left"]) == (60, 59)
