"""
Vectors in SQLite, compared exactly: a matrix in memory that follows the table.

There is no index to build, to tune or to doubt: every search looks at every vector, and a filter is a mask. With
`numkong` the matrix holds bytes (384 dimensions: 38 MB for 100,000 vectors) and the nearest are scored anew from the
table's own numbers; without it, it holds floats.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import msgspec

from shared_libs.atomic.errors import MisuseError, NotInstalled
from shared_libs.atomic.loading import optional
from shared_libs.retrieval.filters import Where
from shared_libs.retrieval.ports import POOL, VectorStore
from shared_libs.retrieval.stores.sqlite_database import MOST_PARAMETERS, Database, File, marks
from shared_libs.retrieval.stores.sqlite_documents import collection_key
from shared_libs.retrieval.types import Found, Point, Space
from shared_libs.retrieval.vectors import of_length_one

if TYPE_CHECKING:
    import numpy as np

_log = logging.getLogger(__name__)

_RESCORED = 4
"""How many times `k` are scored anew where the matrix is coarse."""

_FILTERS = 16
_LOADED = 8_192


class SqliteVectors(VectorStore):
    """
    Keeps vectors in an SQLite file and compares them all.

    Args:
        database: the file.
        coarse: whether the matrix holds bytes; None: where `numkong` is installed, and can be loaded.

    """

    def __init__(self, database: Database, *, coarse: bool | None = None) -> None:
        self.name = f"vector store {database.path.name}"
        self._database = database
        self._coarse = coarse
        self._matrices: dict[tuple[File, int, int], _Matrix] = {}
        self._guard = threading.Lock()

    async def aclose(self) -> None:
        """Close the idle connections of the file, and let the matrices go."""
        self._matrices.clear()
        await POOL.submit(self._database.close, {}).result()  # the last one writes to the disk

    def _upsert(self, space: Space, points: list[Point]) -> None:
        with self._database.writing() as connection:
            key = collection_key(connection, space)
            if key is None:
                return
            query = "SELECT length(vector) FROM vectors WHERE collection = ? AND generation = ? AND vector IS NOT NULL"
            width = connection.execute(f"{query} LIMIT 1", (key, space.generation)).fetchone()
            rows = [
                (key, space.generation, point.id, of_length_one(point.vector).tobytes(), _encoded(point.metadata))
                for point in points
            ]
            if width is not None and width[0] != len(rows[0][3]):
                raise MisuseError(
                    f"collection {space.collection!r} holds vectors of {width[0] // 4} numbers, not "
                    f"{len(rows[0][3]) // 4}; another embedding model needs a rebuild"
                )
            connection.executemany(
                "INSERT OR REPLACE INTO vectors (collection, generation, id, vector, metadata) VALUES (?, ?, ?, ?, ?)",
                rows,
            )

    def _search(self, space: Space, vector: np.ndarray, k: int, where: Where) -> list[Found]:
        with self._database.reading() as connection:
            key = collection_key(connection, space)
            if key is None:
                return []
            matrix = self._matrix(key, space.generation)
            matrix.follow(connection)
            if not len(matrix):
                return []
            wanted = of_length_one(vector)
            if len(wanted) != matrix.width:
                raise MisuseError(
                    f"collection {space.collection!r} holds vectors of {matrix.width} numbers, not {len(wanted)}"
                )
            return matrix.nearest(connection, wanted, k, where)

    def _tag(self, space: Space, ids: list[str], metadata: dict[str, Any]) -> set[str]:
        there: set[str] = set()
        encoded = _encoded(metadata)
        with self._database.writing() as connection:
            key = collection_key(connection, space)
            for start in range(0, len(ids), MOST_PARAMETERS):
                part = ids[start : start + MOST_PARAMETERS]
                where = f"collection = ? AND generation = ? AND vector IS NOT NULL AND id IN ({marks(len(part))})"
                query = f"SELECT id, metadata <> ? FROM vectors WHERE {where}"  # noqa: S608 - our own names
                found = connection.execute(query, (encoded, key, space.generation, *part)).fetchall()
                there |= {id_ for id_, _ in found}
                connection.executemany(  # as new rows, so that every matrix hears of it
                    "INSERT OR REPLACE INTO vectors (collection, generation, id, vector, metadata) "
                    "SELECT collection, generation, id, vector, ? FROM vectors "
                    "WHERE collection = ? AND generation = ? AND id = ?",
                    [(encoded, key, space.generation, id_) for id_, differs in found if differs],
                )
        return there

    def _delete(self, space: Space, ids: list[str]) -> None:
        with self._database.writing() as connection:
            key = collection_key(connection, space)
            connection.executemany(  # a row without a vector stays, so that every matrix hears of it
                "INSERT OR REPLACE INTO vectors (collection, generation, id, vector, metadata) "
                "SELECT collection, generation, id, NULL, '{}' FROM vectors "
                "WHERE collection = ? AND generation = ? AND id = ? AND vector IS NOT NULL",
                [(key, space.generation, id_) for id_ in ids],
            )

    def _drop(self, space: Space) -> None:
        with self._database.writing() as connection:
            key = collection_key(connection, space)
            query = "DELETE FROM vectors WHERE collection = ? AND generation = ?"
            connection.execute(query, (key, space.generation))
            self._matrices.pop((self._database.file, key or 0, space.generation), None)

    def _count(self, space: Space) -> int:
        with self._database.reading() as connection:
            key = collection_key(connection, space)
            query = "SELECT count(*) FROM vectors WHERE collection = ? AND generation = ? AND vector IS NOT NULL"
            return int(connection.execute(query, (key, space.generation)).fetchone()[0])

    def _matrix(self, key: int, generation: int) -> _Matrix:
        with self._guard:
            if self._coarse is None:
                self._coarse = _compares_bytes()
            file = self._database.file
            for other in [known for known in self._matrices if known[0] != file]:
                del self._matrices[other]
            return self._matrices.setdefault((file, key, generation), _Matrix(key, generation, coarse=self._coarse))


class _Matrix:
    """The vectors of one generation in memory; it reads what was written since it last looked."""

    def __init__(self, key: int, generation: int, *, coarse: bool) -> None:
        self._of = (key, generation)
        self._coarse = coarse
        self._guard = threading.Lock()
        self._last = 0
        self._ids: list[str] = []
        self._row_of: dict[str, int] = {}
        self._kinds: dict[str, int] = {}
        self._decoded: list[dict[str, Any]] = []
        self._masks: OrderedDict[Where, np.ndarray] = OrderedDict()
        self._rows: np.ndarray | None = None
        self._seqs: np.ndarray
        self._kind_of: np.ndarray
        self._alive: np.ndarray

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def width(self) -> int:
        return 0 if self._rows is None else int(self._rows.shape[1])

    def follow(self, connection: sqlite3.Connection) -> None:
        """Read what is new."""
        query = (
            "SELECT seq, id, vector, metadata FROM vectors "
            "WHERE collection = ? AND generation = ? AND seq > ? ORDER BY seq LIMIT ?"
        )
        with self._guard:
            while rows := connection.execute(query, (*self._of, self._last, _LOADED)).fetchall():
                self._take(rows)
                self._last = rows[-1][0]

    def _take(self, rows: list[Any]) -> None:
        import numpy as np

        for _, id_, _, _ in rows:
            if (old := self._row_of.pop(id_, None)) is not None:
                self._alive[old] = False
        fresh = [row for row in rows if row[2] is not None]
        if not fresh:
            return
        vectors = np.frombuffer(b"".join(row[2] for row in fresh), "<f4").reshape(len(fresh), -1)
        first = len(self._ids)
        self._make_room(first + len(fresh), vectors.shape[1])
        assert self._rows is not None
        place = slice(first, first + len(fresh))
        self._rows[place] = _bytes(vectors) if self._coarse else vectors
        self._seqs[place] = [row[0] for row in fresh]
        self._kind_of[place] = [self._kind(row[3]) for row in fresh]
        self._alive[place] = True
        for at, row in enumerate(fresh, first):
            self._ids.append(row[1])
            self._row_of[row[1]] = at

    def _make_room(self, needed: int, width: int) -> None:
        import numpy as np

        if self._rows is not None and needed <= len(self._rows):
            return
        size = max(1_024, needed + needed // 4)
        kept = len(self._ids)

        def grown(old: np.ndarray | None, shape: tuple[int, ...], kind: str) -> np.ndarray:
            new: np.ndarray = np.zeros(shape, dtype=kind)
            if old is not None:
                new[:kept] = old[:kept]
            return new

        before = self._rows is not None
        self._rows = grown(self._rows, (size, width), "i1" if self._coarse else "<f4")
        self._seqs = grown(self._seqs if before else None, (size,), "i8")
        self._kind_of = grown(self._kind_of if before else None, (size,), "i4")
        self._alive = grown(self._alive if before else None, (size,), "?")

    def _kind(self, metadata: str) -> int:
        """Number each distinct metadata: a filter is tried on those, not on every row."""
        number = self._kinds.setdefault(metadata, len(self._decoded))
        if number == len(self._decoded):
            self._decoded.append(msgspec.json.decode(metadata))
        return number

    def nearest(self, connection: sqlite3.Connection, wanted: np.ndarray, k: int, where: Where) -> list[Found]:
        """Return the nearest rows, nearest first, equals by id."""
        import numpy as np

        with self._guard:  # what follows looks at arrays that only grow
            count = len(self._ids)
            assert self._rows is not None
            rows, seqs, ids = self._rows[:count], self._seqs[:count], self._ids
            fits = self._alive[:count].copy()
            for condition in where:
                if condition.kind == "chunk":
                    among = np.zeros(count, dtype="?")
                    among[[self._row_of[id_] for id_ in condition.values if id_ in self._row_of]] = True
                    fits &= among
            if told := tuple(condition for condition in where if condition.kind != "chunk"):
                fits &= self._mask(told)[self._kind_of[:count]]
        chosen = np.flatnonzero(fits)
        if not len(chosen):
            return []
        if len(chosen) < count:
            rows = rows[chosen] if len(chosen) < count / 2 else rows
        dense = len(rows) == count
        scores = _cosines(rows, wanted)
        if dense and len(chosen) < count:
            scores = scores[chosen]
        local = _largest(scores, min(len(chosen), _RESCORED * k if self._coarse else k))
        best = chosen[local]
        if self._coarse:
            return _rescored(connection, [int(seq) for seq in seqs[best]], wanted, k)
        return _ordered([Found(ids[row], float(scores[at])) for row, at in zip(best, local, strict=True)], k)

    def _mask(self, where: Where) -> np.ndarray:
        """Which kinds of metadata fit; kept for the filters last used."""
        import numpy as np

        known = self._masks.pop(where, np.zeros(0, dtype="?"))
        more = [all(condition.holds(row) for condition in where) for row in self._decoded[len(known) :]]
        self._masks[where] = mask = np.concatenate([known, np.array(more, dtype="?")])
        while len(self._masks) > _FILTERS:
            self._masks.popitem(last=False)
        return mask


def _compares_bytes() -> bool:
    """Whether `numkong` is there. Where it cannot be loaded it is told, and floats are compared: slower, the same."""
    try:
        optional("numkong", "comparing bytes")
    except NotInstalled:
        return False
    except MisuseError as error:
        _log.warning("vectors are compared as floats, which is slower: %s", error)
        return False
    return True


def _bytes(vectors: np.ndarray) -> np.ndarray:
    """Return vectors as signed bytes, each over its own range: the cosine does not mind."""
    import numpy as np

    most = np.abs(vectors).max(axis=1, keepdims=True)
    return np.rint(vectors * (127.0 / np.where(most > 0, most, 1.0))).astype(np.int8)


def _cosines(rows: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    if rows.dtype == "i1":
        import numkong
        import numpy as np

        distances = np.asarray(numkong.cdist(_bytes(wanted[None, :]), rows, "angular"))[0]
        return 1.0 - np.where(np.isfinite(distances), distances, 1.0)
    scores: np.ndarray = rows @ wanted
    return scores


def _largest(scores: np.ndarray, most: int) -> np.ndarray:
    import numpy as np

    if most >= len(scores):
        return np.arange(len(scores))
    return np.argpartition(-scores, most - 1)[:most]


def _rescored(connection: sqlite3.Connection, seqs: list[int], wanted: np.ndarray, k: int) -> list[Found]:
    """Score rows by their own numbers; one that has gone meanwhile is left out."""
    import numpy as np

    query = f"SELECT id, vector FROM vectors WHERE vector IS NOT NULL AND seq IN ({marks(len(seqs))})"  # noqa: S608
    found = connection.execute(query, seqs).fetchall()
    return _ordered([Found(id_, float(np.frombuffer(vector, "<f4") @ wanted)) for id_, vector in found], k)


def _ordered(found: list[Found], k: int) -> list[Found]:
    return sorted(found, key=lambda row: (-row.score, row.id))[:k]


def _encoded(metadata: Any) -> str:
    return msgspec.json.encode(dict(metadata), order="sorted").decode()
