"""Files that are read by a process of their own: PDF and office."""

from __future__ import annotations

import signal
import sys
import types
import zipfile

import pytest

from shared_libs.atomic import MisuseError
from shared_libs.retrieval import apart, find_files
from shared_libs.retrieval.apart import Readers

PAGE = (
    b"<< /Type /Catalog /Pages 2 0 R >>",
    b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
    (
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources << /XObject << /X 5 0 R >> "
        b"/Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>"
    ),
)


def drawn(*streams):
    """A PDF of one page, that draws the first, where the second is the form `/X`."""
    parts = [*PAGE]
    for number, stream in enumerate(streams):
        form = (
            b"/Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /XObject << /X 5 0 R >> >>" if number else b""
        )
        parts.append(b"<< %s /Length %d >>\nstream\n%s\nendstream" % (form, len(stream), stream))
    body = b"%PDF-1.4\n" + b"".join(b"%d 0 obj\n%s\nendobj\n" % row for row in enumerate(parts, 1))
    return body + b"trailer << /Root 1 0 R /Size %d >>\n%%%%EOF" % (len(parts) + 1)


@pytest.fixture(scope="module")
def readers():
    return Readers()


def test_pdfs_are_read_and_one_that_keeps_its_reader_busy_costs_no_other(tmp_path, readers):
    pytest.importorskip("pypdfium2")
    for name, body in {
        "busy": drawn(b"/X Do", b"/X Do /X Do"),  # a form that draws itself, twice, and each of these
        "good": drawn(b"BT /F1 24 Tf 72 700 Td (Annual leave is 25 days) Tj ET"),
        "none": b"no pdf at all",
    }.items():
        (tmp_path / f"{name}.pdf").write_bytes(body)
    for _ in range(2):
        assert readers.read(tmp_path / "good.pdf") == "Annual leave is 25 days"
    with pytest.raises(MisuseError, match="s of a core to read"):
        readers.read(tmp_path / "busy.pdf", seconds=0.02)
    assert readers.read(tmp_path / "good.pdf") == "Annual leave is 25 days"
    with pytest.raises(MisuseError, match="cannot be read"):
        readers.read(tmp_path / "none.pdf")


def test_what_a_word_file_hides_is_not_read(tmp_path):
    pytest.importorskip("kreuzberg")
    main = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    runs = [
        *("<w:r><w:t>seen</w:t></w:r>", "<w:r><w:rPr><w:b/><w:vanish/></w:rPr><w:t>HIDDEN</w:t></w:r>"),
        *("<w:r><w:rPr><w:vanish w:val='0'/></w:rPr><w:t> too</w:t></w:r>", "<w:r><w:t>.</w:t></w:r>"),
    ]
    kinds = "http://schemas.openxmlformats.org/package/2006/content-types"
    with zipfile.ZipFile(tmp_path / "a.docx", "w") as archive:
        archive.writestr("[Content_Types].xml", f'<Types xmlns="{kinds}"/>')
        body = f"<w:body><w:p>{''.join(runs)}</w:p></w:body>"
        archive.writestr("word/document.xml", f'<w:document xmlns:w="{main}">{body}</w:document>')
    assert next(find_files([tmp_path])).load().text.strip() == "seen too."


def test_no_copy_of_an_office_file_is_left_behind(tmp_path, monkeypatch):
    """Its library keeps what it has read in the user's folder of caches, if nobody tells it not to."""
    kreuzberg, given = types.ModuleType("kreuzberg"), {}
    kreuzberg.ExtractionConfig = dict
    kreuzberg.extract_bytes_sync = lambda body, kind, config: given.update(config) or types.SimpleNamespace(content="x")
    monkeypatch.setitem(sys.modules, "kreuzberg", kreuzberg)
    (tmp_path / "a.doc").write_bytes(b"x")
    assert apart.office(".doc")(tmp_path / "a.doc") == "x"
    assert given == {"use_cache": False}


def test_an_office_file_without_its_reader_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "kreuzberg", None)  # what Python takes for missing
    with pytest.raises(MisuseError, match=r"genai-factory\[office\]"):
        apart.office(".docx")


@pytest.mark.parametrize("kind", [".docx", ".xlsx", ".pptx", ".odt", ".ods"])
def test_a_file_that_is_small_only_until_it_is_unpacked_is_refused(tmp_path, kind):
    pytest.importorskip("kreuzberg")
    place = tmp_path / f"a{kind}"
    place.write_bytes(b"")
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        for at in range(11):
            entry = zipfile.ZipInfo(f"part{at}.xml")
            archive.writestr(entry, b"")
            entry.file_size = 10_000_000  # told by the directory at its end, which is read before anything is unpacked
    with pytest.raises(MisuseError, match="100,000,000 bytes"):
        apart.office(kind)(place)


def test_how_a_reader_has_ended_is_told():
    assert "SIGSEGV" in apart._ended(-signal.SIGSEGV, 1)
    assert "exit 1" in apart._ended(1, 1)
