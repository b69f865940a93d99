"""`factory index`: a summary on stdout, what failed on stderr, and a folder is as the collection is."""

from __future__ import annotations

import pytest


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "handbook"
    made.mkdir()
    (made / "leave.md").write_text("# Leave\n\nAnnual leave is 25 days.")
    (made / "sick.md").write_text("# Sickness\n\nCall before nine.")
    return made


@pytest.fixture
def config(tmp_path):
    made = tmp_path / "agent.yaml"
    made.write_text(
        "name: a\nllm: {provider: rehearsal, script: hello}\n"
        "collections:\n  handbook: {url: 'sqlite:///c.db', embedder: {provider: rehearsal, script: hello}}\n"
    )
    return made


def test_a_folder_is_indexed_once_and_followed(factory, folder, config):
    def index(*more):
        return factory("index", str(folder), "--collection", "handbook", "--config", str(config), *more)

    code, out, err = index()
    assert code == 0, err
    assert out.startswith("handbook: 2 documents, 2 chunks (0 unchanged, 2 chunks embedded, 0 reused, 0 removed, 0 fai")
    (folder / "sick.md").unlink()
    (folder / "leave.md").write_text("# Leave\n\nAnnual leave is 30 days.")
    code, out, err = index()
    assert code == 0, err
    assert out.startswith(
        "handbook: 1 document, 1 chunk (0 unchanged, 1 chunk embedded, 0 reused, 1 removed, 0 failed)"
    )
    (folder / "bad.pdf").write_bytes(b"no pdf")
    code, out, err = index()
    assert code == 3
    assert "bad.pdf: not indexed:" in err
    code, out, _ = factory("index", "--collection", "handbook", "--config", str(config), "--rebuild")
    assert (code, out.split(" (")[0]) == (0, "handbook: 1 document, 1 chunk")


def test_a_folder_whose_last_file_has_gone_has_no_document_left(factory, folder, config):
    def index():
        return factory("index", str(folder), "--collection", "handbook", "--config", str(config))

    assert index()[0] == 0
    for file in folder.iterdir():
        file.unlink()
    code, out, err = index()
    assert code == 0, err
    assert out.startswith("handbook: 0 documents, 0 chunks (0 unchanged, 0 chunks embedded, 0 reused, 2 removed, 0 fai")
    code, _, err = index()
    assert (code, "no file of a kind that is read" in err) == (2, True)


def test_what_no_reader_of_folders_knows_is_told_and_has_not_gone(factory, folder, config):
    (folder / "notes.py").write_text("# Notes.")

    def index(*paths):
        return factory("index", *map(str, paths), "--collection", "handbook", "--config", str(config))

    assert index(folder / "notes.py")[0] == 0
    code, out, err = index(folder)
    assert code == 0
    assert out.startswith("handbook: 3 documents, 3 chunks (0 unchanged, 2 chunks embedded, 0 reused, 0 removed")
    assert "notes.py: no reader knows .py" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name the files or folders"),
        (["none/"], "no file or folder none"),
        (["."], "no file of a kind that is read"),
        (["x.md", "--config", "agent.yaml", "--collection", "other"], "has no collection 'other'; it has handbook"),
        (["x.md", "--url", "mysql://x"], "no collection is kept"),
    ],
)
def test_what_cannot_be_indexed_is_told(factory, tmp_path, config, arguments, said):
    (tmp_path / "empty").mkdir()
    if arguments != ["."]:
        (tmp_path / "x.md").write_text("x")
    else:
        arguments = [str(tmp_path / "empty")]
    arguments = [str(config) if argument == "agent.yaml" else argument for argument in arguments]
    collection = [] if "--collection" in arguments else ["--collection", "c"]
    code, _, err = factory("index", *arguments, *collection)
    assert code == 2
    assert said in err
