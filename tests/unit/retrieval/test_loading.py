"""Compiled libraries that are missing, or are there and cannot be loaded: stand-ins say what the real ones do."""

from __future__ import annotations

import asyncio
import sys

import pytest

from shared_libs.atomic.errors import MisuseError, NotInstalled
from shared_libs.atomic.loading import ROOM, is_there, load, needs, optional
from shared_libs.retrieval import Collection
from shared_libs.retrieval.apart import office, pdf
from tests.unit.retrieval.conftest import document, indexed

run = asyncio.run

NO_ROOM = "/v/lib/kglite.abi3.so: cannot allocate memory in static TLS block"

SAID = [
    (f"ImportError({NO_ROOM!r})", ROOM),
    ('ImportError("/lib/libc.so.6: version `GLIBC_2.39\' not found (required by x.so)")', "newer system"),
    ('ImportError("/lib/libstdc++.so.6: version `GLIBCXX_3.4.32\' not found")', "newer system"),
    ("ImportError('libgomp.so.1: cannot open shared object file: No such file or directory')", "the one that is named"),
    ("OSError('libpdfium.so: cannot open shared object file: No such file or directory')", "the one that is named"),
    ("ImportError('DLL load failed while importing x: The specified module could not be found.')", "Redistributable"),
    ("ImportError('x.so: wrong ELF class: ELFCLASS32')", "another processor"),
    ("ImportError(\"dlopen(x.so): (have 'x86_64', need 'arm64'): incompatible architecture\")", "another processor"),
    ("ImportError('x.so: failed to map segment from shared object')", "noexec"),
    ("ImportError('x.so: undefined symbol: _ZN3foo')", "pip install --force-reinstall --no-cache-dir stand_in"),
    ("ImportError('numpy.core.multiarray failed to import')", "pip install --force-reinstall --no-cache-dir stand_in"),
]


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Make a library raise as it is loaded."""
    folder = tmp_path / "libraries"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)

    def make(name, raises):
        monkeypatch.delitem(sys.modules, name, raising=False)
        (folder / f"{name}.py").write_text(f"raise {raises}\n")

    return make


@pytest.mark.promise("library-does-not-load")
@pytest.mark.parametrize(("raises", "cure"), SAID)
def test_what_the_loader_said_and_what_to_do(stand_in, raises, cure):
    stand_in("stand_in", raises)
    with pytest.raises(MisuseError, match=r"^stand_in is installed and cannot be loaded: ") as first:
        optional("stand_in", "a test")
    with pytest.raises(MisuseError) as second:
        run(load("stand_in"))
    assert cure in str(first.value)
    assert str(first.value) == str(second.value)
    assert str(first.value.__cause__) in str(first.value)


@pytest.mark.promise("library-does-not-load")
def test_what_is_missing_is_no_failure_to_load(stand_in):
    with pytest.raises(NotInstalled, match=r"^a test needs the package nowhere: pip install 'nowhere'$"):
        optional("nowhere", "a test")
    with pytest.raises(ModuleNotFoundError):
        run(load("nowhere"))
    stand_in("stand_in", "ModuleNotFoundError(\"No module named 'its_own_need'\", name='its_own_need')")
    with pytest.raises(NotInstalled, match="a test needs the package its_own_need: pip install 'its_own_need'"):
        optional("stand_in", "a test")


@pytest.mark.promise("library-does-not-load")
def test_what_comes_with_a_package_of_an_extra_is_named_with_that_extra(stand_in):
    stand_in("kreuzberg", "ModuleNotFoundError(\"No module named 'its_own_need'\", name='its_own_need')")
    with pytest.raises(NotInstalled, match=r"needs the package its_own_need: pip install 'genai-factory\[office\]'"):
        optional("kreuzberg", "a test")


@pytest.mark.promise("library-does-not-load")
def test_a_version_that_does_not_fit_is_no_missing_library(stand_in):
    stand_in("kreuzberg", "ImportError(\"cannot import name 'x' from 'kreuzberg'\", name='kreuzberg')")
    with pytest.raises(MisuseError, match=r"pip install --upgrade 'genai-factory\[office\]'$") as caught:
        optional("kreuzberg", "a test")
    assert not isinstance(caught.value, NotInstalled)


def test_a_folder_that_is_called_like_a_library_is_none(tmp_path, monkeypatch):
    (tmp_path / "neo4j_data_of_mine" / "conf").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    assert not is_there("neo4j_data_of_mine")
    with pytest.raises(NotInstalled):
        needs("neo4j_data_of_mine", "a test")


@pytest.mark.promise("library-does-not-load")
def test_a_graph_that_cannot_be_asked_says_what_to_do_and_the_search_goes_on(file_url, embedder, stand_in):
    stand_in("kglite", f"ImportError({NO_ROOM!r})")

    async def main():
        collection = Collection("manual", tenant="acme", stores=file_url, embedder=embedder)
        await indexed(collection, [document("a", "Ada wrote notes.")])
        with pytest.raises(MisuseError, match=f"kglite is installed and cannot be loaded: .*{ROOM}"):
            await collection.async_query("MATCH (e:Entity) RETURN e.name")
        assert (await collection.async_retrieve("notes")).hits

    run(main())


@pytest.mark.promise("library-does-not-load")
def test_vectors_are_compared_without_what_is_only_faster(file_url, embedder, stand_in, caplog):
    stand_in("numkong", f"ImportError({NO_ROOM!r})")

    async def main():
        collection = Collection("manual", tenant="acme", stores=file_url, embedder=embedder)
        await indexed(collection, [document("a", "Ada wrote notes."), document("b", "Bread is baked.")])
        for _ in range(2):
            found = await collection.async_search("notes of Ada")
            assert found.hits[0].source == "a"
            assert not found.notes
            assert {"dense", "lexical"} <= set(found.hits[0].scores)

    run(main())
    assert [record.getMessage() for record in caplog.records].count(
        f"vectors are compared as floats, which is slower: numkong is installed and cannot be loaded: {NO_ROOM}; "
        f"other libraries have taken the room that it needs; start the process with {ROOM}"
    ) == 1


@pytest.mark.promise("library-does-not-load")
@pytest.mark.parametrize(("library", "load"), [("pypdfium2", pdf), ("kreuzberg", lambda: office(".docx"))])
def test_a_file_whose_reader_cannot_be_loaded_is_told(stand_in, library, load):
    stand_in(library, "OSError('libx.so: cannot open shared object file: No such file or directory')")
    with pytest.raises(MisuseError, match=f"{library} is installed and cannot be loaded: libx.so"):
        load()
