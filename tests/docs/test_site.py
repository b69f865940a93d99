"""The pages lead where they say; the notebook's cells run in a kernel. `.ci/run` builds the site strictly."""

from __future__ import annotations

import itertools
import re

import pytest
from markdown_it import MarkdownIt

from tests.docs.reading import PAGES, ROOT, blocks

_TREE = re.compile(r"```\{toctree\}\n(.*?)```", re.DOTALL)
_TEST = re.compile(r"^(?:async )?def (test_\w+)", re.MULTILINE)
_WORD = re.compile(r"[^\w\- ]")


@pytest.mark.promise("docs-run")
def test_every_link_of_a_page_leads_somewhere():
    dead = []
    for page in PAGES:
        for token in MarkdownIt().parse(page.read_text("utf-8")):
            for inline in token.children or ():
                link = inline.attrGet("href") if inline.type == "link_open" else None
                if link and "://" not in link and not _leads_somewhere(page, str(link)):
                    dead.append(f"{page.relative_to(ROOT)}: {link}")
    assert dead == []


@pytest.mark.promise("docs-run")
def test_every_test_that_a_table_of_complaints_names_is_there():
    page = (ROOT / "docs" / "complaints.md").read_text("utf-8")
    there = {name for file in (ROOT / "tests").rglob("test_*.py") for name in _TEST.findall(file.read_text("utf-8"))}
    rows = [line for line in page.splitlines() if re.match(r"\| \d+ \|", line)]
    named = [re.findall(r"`(test_\w+)`", row) for row in rows]
    assert len(rows) == 30
    assert all(named)
    assert {name for each in named for name in each} - there == set()


def _leads_somewhere(page, link):
    name, _, anchor = link.partition("#")
    target = (page.parent / name).resolve() if name else page
    return target.exists() and (not anchor or anchor in _anchors(target))


def _anchors(page):
    """Name the headings of a page as the site and code hosts do."""
    tokens = MarkdownIt().parse(page.read_text("utf-8"))
    titles = [text.content for begin, text in itertools.pairwise(tokens) if begin.type == "heading_open"]
    return [_WORD.sub("", title.lower().replace("`", "")).replace(" ", "-") for title in titles]


@pytest.mark.promise("docs-run")
def test_every_page_of_the_site_is_in_its_contents():
    docs = ROOT / "docs"
    reached = {docs / "index.md"}
    for page in PAGES:
        for tree in _TREE.findall(page.read_text("utf-8")):
            names = [line.strip() for line in tree.splitlines() if line.strip() and not line.startswith(":")]
            reached |= {found for name in names for found in page.parent.glob(f"{name}.md")}
    lost = sorted(page.relative_to(ROOT).as_posix() for page in set(docs.rglob("*.md")) - reached)
    assert lost == [], "name them in a `toctree` of docs/index.md, or of the index beside them"


@pytest.mark.promise("docs-run")
def test_the_cells_of_the_notebook_page_run_in_a_kernel(tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="pip install 'genai-factory[docs]'")
    pytest.importorskip("ipykernel", reason="pip install 'genai-factory[docs]'")
    import nbformat

    from shared_libs.testing import BackgroundFaultServer
    from tests.docs.given import said

    notebook = nbformat.v4.new_notebook()
    notebook.cells = [
        nbformat.v4.new_code_cell(block.code)
        for block in blocks(ROOT / "docs" / "guides" / "jupyter.md")
        if block.language == "python"
    ]
    monkeypatch.setenv("OPENAI_API_KEY", "a-key")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with BackgroundFaultServer({"*": said}) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url("openai"))
        nbclient.NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = [output.get("text", "") for cell in notebook.cells for output in cell.outputs]
    assert "We have 3 apples." in printed[0]
