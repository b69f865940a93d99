"""What a model reads of a page: its text and structure, in any charset, and soon however broken it is."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from shared_libs.atomic.page_text import decoded, readable

PAGE = """<!DOCTYPE html><html><head><title>The  shop</title><style>p {color: red}</style>
<script>if (a < b) document.write("</p>")</script></head>
<body><h2>Prices</h2><p>All in <b>euro</b> &amp;
with tax.<br>No haggling.</p>
<ul><li>one <a href="/one?x=1&amp;y=2">the first</a></li>
<LI><a HREF='#top'>up</a> <a href="javascript:x()">run</a></li></ul>
<table><tr><th>item</th><th>price</th></tr><tr><td>tea</td><td>3</td></tr></table>
<pre>def f():
    return  1</pre><img src="x.png" alt="a cup"><noscript>Turn it on</noscript><!-- secret --><svg><text>no</text></svg>
<p>End</p></body></html>"""

TEXT = """# The shop

## Prices

All in euro & with tax.
No haggling.

- one [the first](https://shop.example/one?x=1&y=2)
- up run

item | price
tea | 3

def f():
    return  1

[image: a cup]

End"""


def test_a_page_is_read_as_text():
    assert readable(PAGE, "https://shop.example/list/") == TEXT


@pytest.mark.parametrize(
    "page",
    [
        "<div style='display:none'>OBEY</div>seen",
        "<div style='color:red; DISPLAY : NONE !important'><p>OBEY<div>OBEY</div>OBEY</p></div>seen",
        "<p hidden>OBEY</p>seen",
        "<p hidden>OBEY<p>seen",
        "<div><p hidden>OBEY</div>seen",
        "<p hidden=''>OBEY<h2>seen</h2>",
        "<span style='font-size:0'>OBEY</span>seen",
        "<span style='font-size: 0px'>OBEY</span>seen",
        "<b style=opacity:0.0>OBEY</b>seen",
        "<i style='visibility:hidden'>OBEY <i>OBEY</i> OBEY</i>seen",
        "<div style='position:absolute; left:-9999px'>OBEY</div>seen",
        "<h1 style='text-indent: -999em'>OBEY</h1>seen",
        "<span style='color: transparent'>OBEY</span>seen",
        "<span style='clip: rect(0 0 0 0); position:absolute'>OBEY</span>seen",
        "<span style='clip-path:inset(50%)'>OBEY</span>seen",
        "<b style='transform: scale(0)'>OBEY</b>seen",
        "<ul><li hidden>OBEY<ul><li>OBEY</ul>OBEY<li>seen</ul>",
        "<ul><li hidden>OBEY</ul>seen",
        "<table><tr hidden><td>OBEY</td></tr><tr><td>seen</table>",
        "<table><tr><td hidden>OBEY<td>seen</table>",
        "<section hidden>OBEY</p></li>OBEY</section>seen",
        "<a hidden href=x>OBEY</a>seen",
        "<input hidden value=OBEY>seen",
        "<!-- OBEY -->seen<template>OBEY</template>",
        "seen<div hidden>OBEY",
    ],
)
def test_what_a_page_hides_is_not_read(page):
    assert re.sub(r"[^a-zA-Z]", "", readable(page, "")) == "seen"


@pytest.mark.parametrize(
    "page",
    [
        "<p title='a hidden gem'>seen</p>",
        "<p class=hidden-never data-hidden=1 aria-hidden=true>seen</p>",
        "<p style='font-size:0.9em; opacity:0.5; opacity: 0.01'>seen</p>",
        "<p style='x-display:none; line-height:0'>seen</p>",
        "<p style='left:-20px; text-indent:-2em; background-color:transparent; margin-left:-120px'>seen</p>",
        "<img hidden alt=x>seen",
    ],
)
def test_what_only_looks_hidden_is_read(page):
    assert readable(page, "") == "seen"


def test_an_item_stands_behind_its_mark():
    page = "<ul><li><p>one</p><p>more</p></li><li></li><li><p>two</p></li></ul>"
    assert readable(page, "") == "- one\n\nmore\n\n-\n- two"


@pytest.mark.parametrize(
    ("body", "charset", "text"),
    [
        ("é €".encode(), "utf-8", "é €"),
        ("é €".encode("cp1252"), "windows-1252", "é €"),
        ("é".encode("latin-1"), None, "é"),
        ("日本".encode("shift_jis"), "Shift_JIS", "日本"),
        ("é".encode(), "no-such-charset", "é"),
        (b"abc", "zlib", "abc"),
        (b"abc-", "punycode", "abc-"),
        ("\ufeffé".encode(), "latin-1", "é"),
        ("\ufeffé".encode("utf-16"), None, "\ufeffé"),
        ("\ufeffé".encode("utf-16-be"), None, "é"),
        (b'<meta charset="iso-8859-1">\xe9', None, '<meta charset="iso-8859-1">é'),
        (b"<meta http-equiv=x content='text/html; charset=koi8-r'>\xc1", None, None),
        ("éàü".encode()[:-1], None, "éà\ufffd"),
        (b"\xff", "utf-8", "\ufffd"),
        (b"", "utf-8", ""),
    ],
)
def test_bytes_are_read_by_what_they_say_of_themselves(body, charset, text):
    read = decoded(body, charset, is_html=True)
    assert read == text if text is not None else read.endswith("а")


HOSTILE = [
    *("<!--", "<!", "<", "</", "<a ", "<a b='", '<a b="', "<![", "<![<", "<?", "&", "<a =", "<p a", "<script>", "<a/"),
    *("</script", "<a href=x>", "<div>", "<!-->", "<meta ", " ", "<a b=c ", "<pre> ", "&#", "<x y = ", "a\n", "\n "),
    *("<p \"'>", '<a href="', "<style>", "</style ", "<title>", "&#1", "\ue001", "<a x='\">", "<!-", "-->", "<li"),
]
READ = """
import json, sys
from shared_libs.atomic.page_text import decoded, readable
for part in json.load(sys.stdin):
    many = part * (200_000 // len(part))
    for page in (many, f"<p>{many}>", f"<pre x='{many}", f"<script>{many}"):
        readable(page, "https://x.example/")
        decoded(page.encode(), None, is_html=True)
"""


def test_hostile_pages_are_read_in_the_time_of_others():
    command = [sys.executable, "-c", READ]  # in the time of others they take seconds, otherwise hours
    subprocess.run(command, input=json.dumps(HOSTILE), text=True, timeout=120, check=True)
