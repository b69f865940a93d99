"""A run that was kept, saved to be played again: as a scenario, and with it a cassette of what its models said."""

from shared_libs.testing.saved.cassette import saved_cassette
from shared_libs.testing.saved.scenario import saved_scenario

__all__ = ["saved_cassette", "saved_scenario"]
