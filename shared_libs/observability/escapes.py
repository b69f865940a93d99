"""Escape codes of terminals: what is shown is without them, and a secret is found behind them."""

from __future__ import annotations

ESCAPE = (
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[@-Z\\^_]"
)
"""An escape code, in seven bits or in eight, as a regular expression."""
