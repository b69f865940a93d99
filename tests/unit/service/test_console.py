"""The console over HTTP: what its files are, what they may do, and how a browser keeps its key."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
from importlib.resources import files

import pytest

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
    subprocess.run(["node", "build.mjs", str(tmp_path / "page")], cwd=source, capture_output=True, check=True)
    for name in KINDS:
        assert (tmp_path / "page" / name).read_bytes() == page_file(name), f"{name}: run `npm run build`, and commit it"


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
