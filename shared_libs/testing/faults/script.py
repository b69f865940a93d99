"""What the models of a fault server do, as a YAML file: a model's name, and one fault or a list of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from shared_libs.atomic.errors import MisuseError
from shared_libs.factory.problems import Path as Place
from shared_libs.factory.problems import Problems, choices
from shared_libs.factory.source import read_source
from shared_libs.testing.faults.catalogue import CATALOGUE, AddressFault, Fault, WireCase
from shared_libs.testing.faults.server import Script

_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "object": "a mapping",
    "array": "a list",
}
"""What a value is to be, in words."""
_EXPECTED = re.compile(r"Expected `(.*?)`, got `(.*?)`")
_PART = re.compile(r"\.(\w+)|\[(\d+)\]")


def load_fault_script(path: str | Path) -> dict[str, Script]:
    """
    Read a script: one fault is played always, a list attempt by attempt, and healthy from then on.

    A fault is a name of the catalogue, or a mapping of its name and its parameters. A `wire_case` whose `answer` is not
    said stands for all of them, one after the other.

    Raises:
        ConfigError: the file does not hold; it tells every problem with its place.

    """
    written, problems = read_source(path)
    scripts: dict[str, Script] = {}
    if not isinstance(written, dict) or not written:
        problems.add((), "must be a mapping of at least one model's name, or '*', to a fault or a list of faults")
        written = {}
    for model, told in written.items():
        if isinstance(told, list):
            faults = [fault for index, item in enumerate(told) for fault in _faults(item, (model, index), problems)]
            for index, fault in enumerate(faults):
                if isinstance(fault, AddressFault):
                    problems.add((model, index), f"{fault.name} is a fault of the address: it must stand alone")
            scripts[model] = faults
        elif faults := _faults(told, (model,), problems):
            scripts[model] = faults[0] if len(faults) == 1 else faults
    problems.raise_if_any()
    return scripts


def _faults(told: Any, place: Place, problems: Problems) -> list[Fault]:
    """The faults that one entry means: a case of a real server is all of its answers, unless one is named."""
    if isinstance(told, dict) and told.keys() == {"fault", "case"} and told["fault"] == "wire_case":
        try:
            return [*WireCase.answers(str(told["case"]))]
        except MisuseError as error:
            problems.add((*place, "case"), str(error))
            return []
    fault = _fault(told, place, problems)
    return [] if fault is None else [fault]


def _fault(told: Any, place: Place, problems: Problems) -> Fault | None:
    given = {"fault": told} if isinstance(told, str) else told
    if not isinstance(given, dict) or not isinstance(given.get("fault"), str):
        problems.add(place, "must be a fault's name, or a mapping with the key 'fault'")
        return None
    name = given["fault"]
    kind = CATALOGUE.get(name)
    if kind is None:
        at = place if isinstance(told, str) else (*place, "fault")
        problems.add(at, f"there is no fault {name!r}; {choices(name, CATALOGUE)}")
        return None
    for key in set(given) - {"fault", *kind.__struct_fields__}:
        text = f"{name} takes no such key; {choices(key, kind.__struct_fields__)}"
        problems.add((*place, key), text, at_key=True)
    if problems.inside(place):
        return None
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        text, _, inside = str(error).partition(" - at `$")
        parts = [key or int(index) for key, index in _PART.findall(inside)]
        problems.add((*place, *parts), _EXPECTED.sub(_in_words, text))
    except MisuseError as error:
        problems.add(place, str(error))
    return None


def _in_words(found: re.Match[str]) -> str:
    wanted, got = (" or ".join(_KINDS.get(kind, kind) for kind in kinds.split(" | ")) for kinds in (found[1], found[2]))
    return f"must be {wanted}, and is {got}"
