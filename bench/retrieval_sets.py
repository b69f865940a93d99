"""
Questions whose answers are known, over texts that packages carry: what `python -m bench.retrieval quality` asks.

Debian's packages are fetched by `apt-get download` and unpacked into a folder; nothing is installed.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import yaml

from shared_libs.atomic.page_text import readable
from shared_libs.retrieval import Document

HELP = {"zh": ("zh-cn", "zh-CN"), "vi": ("vi", "vi"), "pt": ("pt-br", "pt-BR")}
"""Languages of LibreOffice's help: its package and its folder."""

MARKS = {
    "zh": (0.6, frozenset(map(chr, range(0x4E00, 0x9FFF)))),
    "vi": (0.2, frozenset("ăâđêôơưàảãáạằẳẵắặầẩẫấậèẻẽéẹềểễếệìỉĩíịòỏõóọồổỗốộờởỡớợùủũúụừửữứựỳỷỹýỵ")),
    "pt": (0.03, frozenset("ãõçáéíóúâêôà")),
}
"""How a page that was translated is told from one that was not: the share of letters that English has not."""

MANUAL = ("tutorial", "howto", "reference", "using")
"""The parts of Python's manual that stand beside its FAQ."""

LIBRARY = (*MANUAL, "library")
"""The same, and the library's reference, which is six times as long as all the rest."""

LEAST = 80
"""Characters of an answer; a shorter one only points to another."""


class Asked(NamedTuple):
    """A question, and the sources of the documents that answer it."""

    question: str
    wanted: frozenset[str]


class Questions(NamedTuple):
    """Documents with questions about them; `entity` names what each document is about, where that is known."""

    name: str
    documents: list[Document]
    asked: list[Asked]
    entity: Mapping[str, str] = MappingProxyType({})


def fanout() -> Questions:
    """FanOutQA (CC BY-SA 4.0): its facts are the documents; a question wants several, and they lead to each other."""
    spec = find_spec("fanoutqa")
    assert spec is not None, "pip install --no-deps fanoutqa"
    assert spec.origin is not None
    data = json.loads((Path(spec.origin).parent / "data" / "fanout-final-dev.json").read_text())
    documents: dict[str, Document] = {}
    entity: dict[str, str] = {}
    asked = []
    for question in data:
        wanted: set[str] = set()
        todo = list(question["decomposition"])
        while todo:
            step = todo.pop()
            todo += step.get("decomposition") or []
            page = step.get("evidence")
            if not page:
                continue
            answer = step["answer"] if isinstance(step["answer"], str) else json.dumps(step["answer"])
            text = f"{page['title']}. {step['question']} {answer}"[:1500]
            source = f"{page['pageid']}/{step['id']}"
            documents.setdefault(text, Document(source=source, text=text))
            source = documents[text].source
            entity[source] = page["title"]
            wanted.add(source)
        if wanted:
            asked.append(Asked(question["question"], frozenset(wanted)))
    return Questions("FanOutQA", list(documents.values()), asked, entity)


def faq(folder: Path, chapters: Iterable[str] = MANUAL) -> Questions:
    """
    Python's FAQ over Python's manual (PSF licence): a question is an entry's heading, wanted is the entry without it.

    The chapters stand beside it.
    """
    from selectolax.lexbor import LexborHTMLParser

    html = _package(folder, "python3.11-doc") / "usr/share/doc/python3.11/html"
    documents, asked = [], []
    for path in sorted((html / "faq").glob("*.html")):
        if path.stem == "index":
            continue
        page = LexborHTMLParser(path.read_text())
        for section in page.css("section[id]"):
            heading = section.css_first("h2, h3, h4")
            if len(section.css("section")) > 1 or heading is None:
                continue
            question = " ".join(heading.text().split()).rstrip("¶")
            heading.decompose()
            source, text = f"faq/{path.stem}#{section.attributes['id']}", readable(section.html or "", "")
            documents.append(Document(source=source, text=text))
            if "?" in question and len(text) >= LEAST:
                asked.append(Asked(question, frozenset({source})))
    pages = [path for chapter in chapters for path in sorted((html / chapter).glob("**/*.html"))]
    documents += _pages(html, pages)
    return Questions(f"Python's FAQ beside {', '.join(chapters)}", documents, asked)


def sentences(folder: Path, count: int) -> list[tuple[str, str]]:
    """Sentences of Python's manual, each with its chapter: as many different texts of real life as are asked for."""
    html = _package(folder, "python3.11-doc") / "usr/share/doc/python3.11/html"
    found: dict[str, str] = {}
    for path in sorted(html.rglob("*.html")):
        for part in re.split(r"(?<=[.!?:])\s+|\n{2,}", readable(path.read_text(), "")):
            text = " ".join(part.split())
            if 30 <= len(text) <= 140:
                found.setdefault(text, path.parent.name)
    chosen = random.Random(1).sample(sorted(found.items()), min(count, len(found)))
    return [(chapter, text) for text, chapter in chosen]


def helped(folder: Path, language: str) -> Questions:
    """
    LibreOffice's help (MPL 2.0) in Chinese, Vietnamese or Portuguese: fifty questions, the same in each language.

    They were asked by hand, in other words than the page's where there are any. The documents are its guides, and all
    about charts, as far as they were translated.
    """
    package, inside = HELP[language]
    root = _package(folder, f"libreoffice-help-{package}") / "usr/share/libreoffice/help" / inside / "text"
    rows = yaml.safe_load(Path(__file__).with_name("retrieval_questions.yaml").read_text())
    least, letters = MARKS[language]
    pages = []
    for document in _pages(root, sorted([*root.glob("*/guide/*.html"), *root.glob("schart/01/*.html")])):
        said = [sign for sign in document.text.lower() if sign.isalpha()]
        if len(said) >= 100 and sum(sign in letters for sign in said) >= least * len(said):
            pages.append(document)
    there = {page.source for page in pages}
    asked = [Asked(row[language], frozenset({row["page"]})) for row in rows]
    missing = [one.wanted for one in asked if not one.wanted <= there]
    assert not missing, missing
    return Questions(f"LibreOffice's help, {language}", pages, asked)


def _pages(root: Path, paths: Iterable[Path]) -> list[Document]:
    from selectolax.lexbor import LexborHTMLParser

    documents = []
    for path in paths:
        html = path.read_text()
        page = LexborHTMLParser(html)
        title = page.css_first("title")
        body = page.css_first("#DisplayArea") or page.css_first("[role=main]") or page.body
        text = readable(body.html or "", "") if body else ""
        documents.append(
            Document(
                source=str(path.relative_to(root)),
                text=text,
                title=" ".join(title.text().split()) if title else "",
            )
        )
    return documents


def _package(folder: Path, name: str) -> Path:
    """Return where a package of Debian is unpacked, fetched if need be."""
    place = folder / name
    if not place.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "-qq", name], cwd=folder, check=True)
        fetched = next(folder.glob(f"{name}_*.deb"))
        subprocess.run(["dpkg-deb", "-x", fetched.name, f"{name}.part"], cwd=folder, check=True)
        fetched.unlink()
        (folder / f"{name}.part").rename(place)
    return place
