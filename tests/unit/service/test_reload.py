"""Definitions that are changed while they are served."""

from __future__ import annotations

import pytest

from shared_libs.service.catalogue import Catalogue
from tests.service import HELLO, serving, write
from tests.support import run


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path, hello=HELLO)


@pytest.mark.promise("serve-reload")
def test_a_broken_file_keeps_what_it_gave_and_shows(folder):
    async def main():
        async with serving(folder, reload_s=600.0) as served:
            catalogue = served.service.catalogue
            before = catalogue.find(caller(), "hello")
            (folder / "hello.yaml").write_text("name: hello\nllm: {provider: nonsense}\n")
            (folder / "second.yaml").write_text(HELLO.replace("hello\n", "second\n", 1))
            changed = [await catalogue.load(), await catalogue.load()]
            broken = (await served.get("/readyz"), [entry.name for entry in catalogue.visible(caller())])
            same = catalogue.find(caller(), "hello") is before
            (folder / "hello.yaml").write_text(HELLO)  # as it was
            (folder / "third.yaml").write_text((folder / "second.yaml").read_text())
            twice = []
            for name in ("second", "third"):
                await catalogue.load()
                twice.append(list(catalogue.problems))
                (folder / f"{name}.yaml").unlink()
            await catalogue.load()
            mended = (await served.get("/readyz"), [entry.name for entry in catalogue.visible(caller())])
            return changed, broken, same, twice, mended, (await served.run())[2]["status"]

    changed, ((status, _, ready), names), same, twice, ((_, _, mended), after), answered = run(main())
    assert twice == [["third.yaml"], []]
    assert changed == [True, False]
    assert same
    assert (status, ready["status"]) == (200, "ready")
    assert "provider" in ready["problems"]["hello.yaml"][0]
    assert names == ["hello", "hello/chain", "second", "second/chain"]
    assert (mended["problems"], after, answered) == ({}, ["hello", "hello/chain"], "answered")


def caller():
    from shared_libs.service.callers import ANYONE

    return ANYONE


@pytest.mark.promise("serve-reload")
def test_what_is_replaced_closes_when_its_last_user_has_gone(folder):
    async def main():
        async with serving(folder, reload_s=600.0) as served:
            catalogue, closed = served.service.catalogue, []
            old = catalogue.find(caller(), "hello")
            close = old.agent.llm._close

            async def noted():
                closed.append("closed")
                await close()

            old.agent.llm._close = noted
            async with old.used():
                (folder / "hello.yaml").write_text(HELLO + "# changed\n")
                await catalogue.load()
                during = list(closed)
            return during, closed

    assert run(main()) == ([], ["closed"])


def test_a_folder_where_nothing_holds_does_not_start(tmp_path):
    write(tmp_path, broken="name: broken\n")

    async def main():
        async with serving(tmp_path):
            pass

    with pytest.raises((AssertionError, SystemExit)):
        run(main())


CALLING = {
    "a": "",
    "b": "{use: agent, path: ./a.yaml}",
    "c": '{"use": "agent", "path": "b.yaml", "name": "sub"}',
    "d": "{use: agent, path: '${NOWHERE:-e.yaml}'}",
    "e": "",
}


@pytest.mark.promise("serve-reload")
def test_what_is_built_again_is_what_has_changed_and_who_calls_it(tmp_path):
    def saved(name, told=""):
        llm = "{provider: rehearsal, script: hello}"
        return f"name: {name}\ndescription: D{told}.\nllm: {llm}\ntools: [{CALLING[name]}]\n"

    async def main():
        for name in CALLING:
            (tmp_path / f"{name}.yaml").write_text(saved(name))
        catalogue, rebuilt = Catalogue(tmp_path), []
        await catalogue.load()
        for changed in ("a", "b", "e"):
            before = {name: catalogue.find(caller(), name) for name in CALLING}
            (tmp_path / f"{changed}.yaml").write_text(saved(changed, " New"))
            await catalogue.load()
            rebuilt.append([name for name, entry in before.items() if catalogue.find(caller(), name) is not entry])
        await catalogue.aclose()
        return catalogue.problems, rebuilt

    assert run(main()) == ({}, [["a", "b", "c", "d"], ["b", "c", "d"], ["d", "e"]])
