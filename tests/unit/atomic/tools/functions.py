"""A function as people write them, and how the tool made of one is looked at."""

from __future__ import annotations

from tests.support import run


def properties(made):
    return made.spec.parameters["properties"]


def called(made, **arguments):
    _ = made.spec
    return run(made.async_run(arguments)).content


def report(city: str, units: str = "C", *, days: int = 1, **more: int) -> str:
    """Tell the weather.

    Args:
        city: The city, with
            its country.
        units (str, optional): C or F.
        days: How many.

    Returns:
        The weather.
    """
    return f"{city} {units} {days} {more}"
