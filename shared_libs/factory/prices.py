"""
What models cost: the table that is shipped, and the one beside a definition, which wins.

A price is looked up by the model's name, or by that name without the date of a snapshot. Nothing is guessed from a
similar name: a model that is not listed has no price, and what it cost is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import as_file, files
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from shared_libs.atomic.errors import ConfigError
from shared_libs.atomic.types import Price
from shared_libs.factory.draft import Draft, kind_of
from shared_libs.factory.environment import Environment
from shared_libs.factory.problems import Problems, choices
from shared_libs.factory.registry import LLMS
from shared_libs.factory.source import read_source
from shared_libs.factory.spec import PriceSpec
from shared_libs.factory.wording import note_errors

FILE_NAME = "prices.yaml"
ANY_MODEL = "*"

_SNAPSHOT = re.compile(r"(?P<model>.+?)(-20\d\d-[01]\d-[0-3]\d|[-@]20\d\d[01]\d[0-3]\d)")


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices by provider and model."""

    rows: Mapping[str, Mapping[str, Price]]

    def of(self, provider: str, model: str) -> Price | None:
        """Return what a model costs at its provider; None where that is unknown."""
        row = self.rows.get(provider, {})
        snapshot = _SNAPSHOT.fullmatch(model)
        names = [model, *([snapshot["model"]] if snapshot else []), ANY_MODEL]
        return next((row[name] for name in names if name in row), None)

    def over(self, other: Prices) -> Prices:
        """Return the prices of both; these win."""
        providers = {**other.rows, **self.rows}
        return Prices({name: {**other.rows.get(name, {}), **self.rows.get(name, {})} for name in providers})


@cache
def shipped_prices() -> Prices:
    """Return the table of this package; in its source it also stands in `configs/`."""
    with as_file(files("shared_libs.factory") / FILE_NAME) as path:
        return read_prices(path)


def prices_beside(definition: str | FilePath) -> Prices:
    """
    Return the prices for a definition: those of the table in its folder, if there is one, over the shipped ones.

    Raises:
        ConfigError: the table does not hold.

    """
    path = FilePath(definition).parent / FILE_NAME
    if not path.is_file():
        return shipped_prices()
    found = path.stat()
    return _over_shipped(path, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=16)
def _over_shipped(path: FilePath, _changed_ns: int, _size: int) -> Prices:
    return read_prices(path).over(shipped_prices())


def read_prices(path: str | FilePath) -> Prices:
    """
    Read a table of prices.

    Raises:
        ConfigError: it does not hold; it tells every problem with its place.

    """
    written, problems = read_source(path)
    rows = _rows(written, problems)
    problems.raise_if_any()
    return Prices(rows)


def check_prices(path: str | FilePath) -> list[str]:
    """Check a table of prices, and return one line per problem; none when it holds."""
    try:
        read_prices(path)
    except ConfigError as error:
        return list(error.problems)
    return []


def _rows(written: Any, problems: Problems) -> dict[str, dict[str, Price]]:
    draft = Draft(written, written, problems, Environment(problems), None)
    if not isinstance(written, dict):
        problems.add((), f"expected a mapping of providers, got {kind_of(written)}")
        return {}
    rows: dict[str, dict[str, Price]] = {}
    for provider, models in written.items():
        if provider not in LLMS:
            problems.add((provider,), f"is no provider; {choices(provider, LLMS.names())}", at_key=True)
        elif not isinstance(models, dict):
            problems.add((provider,), f"expected a mapping of models, got {draft.shown((provider,))}")
        else:
            found = {model: _price(draft, provider, model, price) for model, price in models.items()}
            rows[provider] = {model: price for model, price in found.items() if price is not None}
    return rows


def _price(draft: Draft, provider: str, model: str, written: Any) -> Price | None:
    if written == 0 and not isinstance(written, bool):
        return Price(input=0.0, output=0.0)
    try:
        return Price(**PriceSpec.model_validate(written).given())
    except ValidationError as error:
        note_errors(draft, error, PriceSpec, written, base=(provider, model))
    return None
