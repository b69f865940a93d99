"""Memory: conversation history per session."""

from shared_libs.atomic.memory.base import BaseMemory, InProcessMemory, Recollection
from shared_libs.atomic.memory.compaction import Compaction, Digest
from shared_libs.atomic.memory.history import last_messages, valid_history
from shared_libs.atomic.types import estimate_tokens

__all__ = [
    "BaseMemory",
    "Compaction",
    "Digest",
    "InProcessMemory",
    "Recollection",
    "estimate_tokens",
    "last_messages",
    "valid_history",
]
