"""What pydantic finds, placed in the definition and said in words a person understands."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import NoneType
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from shared_libs.factory.draft import Draft
from shared_libs.factory.elsewhere import hint_for_key
from shared_libs.factory.problems import Path, choices

_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "dataclass_type": "a mapping",
    "none_required": "null",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "a number from {ge:g}",
    "less_than": "a number below {lt:g}",
    "less_than_equal": "a number up to {le:g}",
    "string_too_short": "text of at least {min_length} characters",
    "string_too_long": "text of at most {max_length} characters",
    "too_short": "a list of at least {min_length}",
    "too_long": "a list of at most {max_length}",
    "finite_number": "a finite number",
}
_QUOTED = re.compile(r"'([^']*)'")


def note_errors(
    draft: Draft,
    error: ValidationError,
    model: type[BaseModel],
    settings: Any,
    *,
    base: Path = (),
    also: Iterable[str] = (),
    moved: Mapping[Path, Path] | None = None,
) -> None:
    """
    Note the problems of one validation.

    Args:
        draft: takes the problems.
        error: what pydantic found.
        model: what it checked against.
        settings: what it checked.
        base: where that stands in the definition.
        also: further keys that are allowed beside those of the model.
        moved: what stands elsewhere in the definition than in `settings`.

    """
    expected: dict[Path, list[str]] = {}
    for found in error.errors(include_url=False):
        path = _path(settings, found["loc"], keep_last=found["type"] == "missing")
        place = _home(base + path, moved or {})
        if found["type"] in _EXPECTED:
            expected.setdefault(path, []).append(_expected(found["type"], found.get("ctx", {})))
        elif found["type"] == "extra_forbidden":
            names = [*_field_names(_model_at(model, path[:-1])), *(also if len(path) == 1 else ())]
            known = choices(path[-1], names, hint_for_key(place, names))
            draft.problems.add(place, f"unknown key; {known}", at_key=True)
        elif found["type"] == "missing":
            draft.problems.add(place, f"is missing{_description(model, path)}")
        elif found["type"] in ("literal_error", "enum"):
            names = _QUOTED.findall(found["ctx"]["expected"])
            draft.problems.add(place, f"{draft.named(place)} is not known; {choices(draft.at(place), names)}")
        elif found["type"] == "string_pattern_mismatch":
            draft.problems.add(place, f"{draft.named(place)} does not fit{_description(model, path)}")
        elif found["type"] == "value_error":
            draft.blame(place, found["ctx"]["error"])
        else:
            draft.blame(place, ValueError(found["msg"]))
    for path, words in expected.items():
        if not any(other[: len(path)] == path and other != path for other in expected):
            _note_type(draft, _home(base + path, moved or {}), list(dict.fromkeys(words)))


def _expected(kind: str, facts: Mapping[str, Any]) -> str:
    if facts.get("min_length") == 1:
        return "text that is not empty" if kind == "string_too_short" else "a list that is not empty"
    return _EXPECTED[kind].format(**facts)


def _note_type(draft: Draft, place: Path, words: list[str]) -> None:
    text = f"expected {' or '.join(words)}, got {draft.shown(place)}"
    written = draft.at(place)
    if isinstance(written, str) and "${" in written:
        text += "; a variable always gives text"
    elif written is None:
        text += "; give a value or remove the key"
    draft.problems.add(place, text)


def _path(settings: Any, loc: tuple[int | str, ...], *, keep_last: bool) -> Path:
    """Follow pydantic's location through the data; what is not in it names a branch of a union."""
    path: Path = ()
    node = settings
    for part in loc:
        inside = isinstance(node, Mapping) if isinstance(part, str) else isinstance(node, list)
        try:
            node = node[part] if inside else node
        except LookupError:
            inside = False
        if inside:
            path = (*path, part)
    return (*path, loc[-1]) if keep_last and path != loc else path


def _home(path: Path, moved: Mapping[Path, Path]) -> Path:
    return next((home + path[len(away) :] for away, home in moved.items() if path[: len(away)] == away), path)


def _model_at(model: type[BaseModel] | None, path: Path) -> type[BaseModel] | None:
    in_mapping = False  # whose keys are no fields
    for part in path:
        if isinstance(part, str) and model is not None and not in_mapping:
            field = _field(model, part)
            model = _model_in(field.annotation) if field else None
            in_mapping = field is not None and get_origin(field.annotation) is dict
        elif isinstance(part, str):
            in_mapping = False
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = [_model_in(part) for part in get_args(annotation) if part is not NoneType]
    return next((model for model in inner if model), None)


def _field(model: type[BaseModel], name: str) -> FieldInfo | None:
    return next((info for key, info in model.model_fields.items() if name in (key, info.alias)), None)


def _field_names(model: type[BaseModel] | None) -> list[str]:
    return [info.alias or key for key, info in model.model_fields.items()] if model else []


def _description(model: type[BaseModel], path: Path) -> str:
    holder = _model_at(model, path[:-1])
    field = _field(holder, str(path[-1])) if holder else None
    if field is None or not field.description:
        return ""
    words = field.description.rstrip(".")
    return f"; {words[0].lower()}{words[1:]}"
