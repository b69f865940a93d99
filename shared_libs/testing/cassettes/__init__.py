"""Record what a model answers once, and replay it offline from then on."""

from shared_libs.testing.cassettes.data import Cassette
from shared_libs.testing.cassettes.file import cassette_of, read_cassette, text_of, write_cassette
from shared_libs.testing.cassettes.player import CassetteMismatch, Player
from shared_libs.testing.cassettes.recorder import Recorder
from shared_libs.testing.cassettes.secrets import Secrets, variables_used

__all__ = [
    "Cassette",
    "CassetteMismatch",
    "Player",
    "Recorder",
    "Secrets",
    "cassette_of",
    "read_cassette",
    "text_of",
    "variables_used",
    "write_cassette",
]
