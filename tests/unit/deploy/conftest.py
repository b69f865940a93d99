"""A database of its own, as the tests of durable runs have it."""

from tests.unit.durable.conftest import new_postgres, url

__all__ = ["new_postgres", "url"]
