"""Reports as a JUnit file, which continuous integration reads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree as ET

from shared_libs.atomic.errors import MisuseError
from shared_libs.observability.printable import presentable
from shared_libs.testing.evaluation.evaluation import Report, Row

_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def write_junit(path: Path, reports: Sequence[Report]) -> None:
    """
    Write a file with a test suite for each definition and each scenario, and a test case for each question.

    Raises:
        MisuseError: it cannot be written.

    """
    root = ET.Element("testsuites", name="factory eval")
    for report in reports:
        for suite in dict.fromkeys(row.suite for row in report.rows):
            root.append(_suite(f"{report.name}: {suite}", [row for row in report.rows if row.suite == suite]))
    for count in ("tests", "failures", "errors"):
        root.set(count, str(sum(int(suite.get(count, "0")) for suite in root)))
    root.set("time", f"{sum(float(suite.get('time', '0')) for suite in root):.3f}")
    ET.indent(root)
    try:
        path.write_bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n")
    except OSError as error:
        raise MisuseError(f"{path}: cannot be written: {error.strerror or error}") from None


def _suite(name: str, rows: Sequence[Row]) -> ET.Element:
    began = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    suite = ET.Element("testsuite", name=_text(name), timestamp=began)
    repeated = max(row.repetition for row in rows) > 1
    for row in rows:
        title = f"{row.question} #{row.repetition}" if repeated else row.question
        case = ET.SubElement(suite, "testcase", name=_text(title), classname=_text(name), time=f"{_seconds(row):.3f}")
        if not row.passed:
            first, *_ = whys = list(row.whys())
            kind = "error" if row.unjudged or row.result is None else "failure"
            ET.SubElement(case, kind, message=_text(first), type="evaluation").text = _text("\n".join(whys))
        ET.SubElement(case, "system-out").text = _text("\n".join(_facts(row)))
    wrong = [row for row in rows if not row.passed]
    errors = sum(row.unjudged or row.result is None for row in wrong)
    suite.set("tests", str(len(rows)))
    suite.set("failures", str(len(wrong) - errors))
    suite.set("errors", str(errors))
    suite.set("time", f"{sum(map(_seconds, rows)):.3f}")
    return suite


def _facts(row: Row) -> Iterable[str]:
    yield f"answered by: {row.source}"
    if row.result is not None:
        cost = "unknown" if row.result.cost_usd is None else f"${row.result.cost_usd:.6f}"
        yield f"status: {row.result.status} ({row.result.stop_reason})"
        yield f"tokens: {row.result.usage.total_tokens}, cost: {cost}"
        yield f"answer: {row.result.answer}"
    for judgement in row.judgements:
        score = "no score" if judgement.score is None else f"{judgement.score:.2f}"
        yield f"{judgement.name}: {score} {judgement.reason}".rstrip()


def _seconds(row: Row) -> float:
    return row.result.elapsed_s if row.result else 0.0


def _text(text: str) -> str:
    return _NO_XML.sub("\N{REPLACEMENT CHARACTER}", presentable(text))
