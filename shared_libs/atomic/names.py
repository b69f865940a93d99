"""What may name something that people see: a text of one line that shows all it has."""

from __future__ import annotations

import re
from typing import Any

_UNSEEN = r"\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
"""Control characters, and those that are not seen or turn the direction of others; as JSON Schema writes a class."""

_NAME = re.compile(rf"[^{_UNSEEN}\ud800-\udfff]+")  # no JSON has a half of a pair, and no pattern of its may name one


def is_name(text: object, most: int) -> bool:
    """Whether it is a name of 1 to `most` characters, whichever Unicode this Python knows."""
    return isinstance(text, str) and len(text) <= most and _NAME.fullmatch(text) is not None


def name_schema(most: int) -> dict[str, Any]:
    """Return the JSON Schema of what `is_name` takes."""
    return {"type": "string", "minLength": 1, "maxLength": most, "pattern": f"^[^{_UNSEEN}]*$"}
