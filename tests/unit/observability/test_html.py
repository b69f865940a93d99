"""The timeline page: one well-formed file that needs nothing, and in which foreign text stays text."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from shared_libs.atomic.events import RunStarted, ToolFinished, ToolStarted
from shared_libs.observability import timeline_page, timelines
from shared_libs.observability.html import MAX_TEXT

VOID = {"meta", "br", "img", "hr", "input", "link"}


class Checker(HTMLParser):
    """Fails on tags that do not match, and collects what the page consists of."""

    def __init__(self):
        super().__init__()
        self.open = []
        self.tags = []
        self.attributes = []
        self.text = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def checked(page):
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    return checker


@pytest.fixture
def page(answered):
    return timeline_page(timelines(answered))


def test_the_page_is_well_formed_for_every_part_of_a_run(answered, partial):
    for events in (answered, partial):
        for length in range(1, len(events) + 1):
            checked(timeline_page(timelines(events[:length])))


@pytest.mark.promise("why-slow")
def test_what_the_time_went_on_is_a_bar_and_a_sentence(page):
    checker = checked(page)
    widths = [value[6:].rstrip("%") for name, value in checker.attributes if value and value.startswith("width:")]
    assert sum(map(float, widths[1:])) == pytest.approx(100, abs=0.01)  # the first is the gauge
    assert " s of 4.75 s went on " in "".join(checker.text)
    assert "tool look 2.00 s · Retry-After m-1 2.00 s · " in "".join(checker.text)


@pytest.mark.promise("runs-found")
def test_a_page_of_many_runs_begins_with_an_index_of_them(answered, partial, page):
    again = [type(event)(**{name: getattr(event, name) for name in event.__struct_fields__}) for event in partial]
    for event in again:
        event.run_id = "run-2"
    checker = checked(timeline_page(timelines([*answered, *again])))
    links = [value for name, value in checker.attributes if name == "href"]
    ids = [value for name, value in checker.attributes if name == "id"]
    assert links == ["#run-1", "#run-2", "#index", "#index"]
    assert ids == ["index", "run-1", "run-2"]
    assert "2 runs" in checker.text
    assert "index" not in [value for name, value in checked(page).attributes if name == "id"]


def test_the_page_needs_nothing_else_and_runs_nothing(page):
    checker = checked(page)
    assert not {"script", "img", "link", "iframe", "object"} & set(checker.tags)
    assert not [name for name, _ in checker.attributes if name.startswith("on") or name in ("src", "href", "srcset")]
    assert "url(" not in page
    assert "@import" not in page
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'") in (
        checker.attributes
    )
    assert not re.search(r"https?://", page)


def test_foreign_text_stays_text(page):
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;/script&gt;&lt;script&gt;alert(1)" in page
    assert "It is &lt;b&gt;there&lt;/b&gt;." in page
    assert "Where is it &amp; why?" in page
    assert "\x1b" not in page


def test_everything_a_person_asks_for_is_there(page):
    text = " ".join("".join(checked(page).text).split())
    for words in ("answered", "I look twice.", "place: a", "ValueError: no such place", "slow down", "5.25 s left"):
        assert words in text
    for words in ("Answer", "Tokens", "30 in, 10 out", "Cost", "$0.0001", "deadline", "scout · m-1 · native protocol"):
        assert words in text


def test_rows_open_without_a_script(page):
    tags = checked(page).tags
    assert tags.count("details") == tags.count("summary") == 13


def test_rows_under_columns_are_a_table(page):
    assert "<th>place</th><th>hint</th>" in page
    assert "<td>a</td>" in page


def test_a_partial_run_says_what_was_left(partial):
    text = " ".join("".join(checked(timeline_page(timelines(partial))).text).split())
    assert "partial · deadline" in text
    assert "Best answer" in text
    assert "Still running at the endhang" in text


def test_a_record_without_an_end_says_so(answered):
    assert "No end on record" in timeline_page(timelines(answered[:9]))


def synthetic(question="q", content="", **more):
    return [
        RunStarted(
            agent="a", question=question, started_at="", timeout_s=1, model="m", protocol="native", run_id="r", **more
        ),
        ToolStarted(step=1, tool="t", input={"password": "hunter2"}, call_id="c", run_id="r"),
        ToolFinished(step=1, tool="t", call_id="c", content=content, is_error=False, elapsed_s=0.0, run_id="r"),
    ]


def test_a_rehearsal_is_labelled():
    assert "<strong>Rehearsal.</strong>" in timeline_page(timelines(synthetic(rehearsal=True)))
    assert "<strong>Rehearsal.</strong>" not in timeline_page(timelines(synthetic()))


def test_no_secret_is_shown():
    page = timeline_page(
        timelines(synthetic("use sk-abcdefghijklmnop", '{"token": "hunter2", "u": "ftp://a:hunter2@h"}'))
    )
    assert "hunter2" not in page
    assert "sk-abc" not in page


@pytest.mark.parametrize(
    "content",
    [
        "$question ${left} $$ {{x}} %s",
        "x" * (MAX_TEXT + 5),
        "[" * 5000,
        '{"columns": ["a"], "rows": [[1, 2]]}',
        '{"columns": ["a"], "rows": [[{"b": null}]], "truncated": true}',
        '{"columns": [], "rows": []}',
        "lone \ud800 surrogate",
        "\x00\x01",
        "1e999",
    ],
)
def test_odd_observations_make_a_page_all_the_same(content):
    page = timeline_page(timelines(synthetic(content=content)))
    checked(page)
    page.encode()
    if content.startswith("x"):
        assert "5 more characters are in the record" in page
    if content.startswith("$"):
        assert content in page


def test_several_runs_share_a_page(answered, partial):
    second = [type(event)(**{n: getattr(event, n) for n in event.__struct_fields__}) for event in partial]
    for event in second:
        event.run_id = "run-2"
    checker = checked(timeline_page(timelines([*answered, *second])))
    assert checker.tags.count("main") == 2
