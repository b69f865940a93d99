"""
The console: one page that shows runs as they happen, and past ones.

`source/` is TypeScript, `page/` what `npm run build` makes of it: kept beside it, so that who installs needs no node.
"""

from __future__ import annotations

from importlib.resources import files

KINDS = {
    "index.html": "text/html; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "console.css": "text/css; charset=utf-8",
}
"""The files of the page."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What the page may do: run its own script, and ask its own service. Nothing that a model said can add to that."""


def page_file(name: str) -> bytes:
    """Return a file of the page."""
    return files(__name__).joinpath("page", name).read_bytes()
