"""No model: texts as hashed counts of their letters, so that tests and rehearsals need nothing and repeat exactly."""

from __future__ import annotations

import asyncio
import unicodedata
import zlib
from typing import TYPE_CHECKING, Any

from shared_libs.atomic.errors import BadRequest, MisuseError
from shared_libs.atomic.llms.base import BaseLLMWrapper
from shared_libs.atomic.loading import load
from shared_libs.atomic.types import LLMResponse, Message, Price, ToolSpec

if TYPE_CHECKING:
    import numpy as np


class WordHashes(BaseLLMWrapper):
    """
    Vectors of hashed letter triples: alike are texts that share spellings, whatever they mean.

    It stands where an embedding model belongs, in tests and in rehearsals without a key; a search by it is one by
    spelling. The same text has the same vector everywhere.

    Args:
        model: the name it goes by.
        dimensions: numbers of a vector.

    """

    provider = "word-hashes"

    def __init__(self, model: str = "word-hashes", *, dimensions: int = 256) -> None:
        if dimensions < 8:
            raise MisuseError(f"dimensions is a number from 8, not {dimensions!r}")
        super().__init__(model, price=Price(0.0, 0.0))
        self._dimensions = dimensions

    async def _chat(self, messages: list[Message], tools: tuple[ToolSpec, ...], **options: Any) -> LLMResponse:
        raise BadRequest(f"{self.model} makes embeddings and answers nothing; name a model that answers")

    async def _open(self) -> None:
        await load("numpy")

    async def _embed(self, texts: list[str], **options: Any) -> np.ndarray:
        import numpy as np

        made = np.zeros((len(texts), self._dimensions), dtype=np.float32)
        for row, text in zip(made, texts, strict=True):
            await asyncio.sleep(0)  # it computes on the event loop, which others need too
            for word in unicodedata.normalize("NFKC", text).casefold().split():
                spelled = f"^{word}$".encode()
                for at in range(len(spelled) - 2):
                    code = zlib.crc32(spelled[at : at + 3])
                    row[(code >> 1) % self._dimensions] += 1.0 if code & 1 else -1.0
        lengths = np.linalg.norm(made, axis=1, keepdims=True)
        return made / np.where(lengths > 0, lengths, 1.0)
