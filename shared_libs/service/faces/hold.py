"""
The beginning of a streamed answer is held back for a moment.

No wire of these can take a word back. A model that fails on its way is replaced by another, whose answer begins anew:
within the moment nobody notices. After it the answer goes on only where it agrees with what has been said, and is an
error otherwise: never another text behind the first.
"""

from __future__ import annotations

from shared_libs.service.faces.wanted import Called, Outcome, Piece, Said, Voided
from shared_libs.service.problems import Problem

HOLD_S = 1.0
HOLD_CHARS = 200
"""The first words wait until there are so many, or for so long."""


class Hold:
    """
    Passes pieces on, the first words a little later; what it has passed on of the answer is always its beginning.

    Args:
        hold_s, hold_chars: how long the first words wait at the most.

    """

    def __init__(self, hold_s: float = HOLD_S, hold_chars: int = HOLD_CHARS) -> None:
        self._hold_s = hold_s
        self._hold_chars = hold_chars
        self._held: list[str] = []
        self._said: list[str] = []  # in pieces: a long answer is not copied for each of them
        self._said_chars = self._again_chars = 0
        self._again: list[str] | None = None
        self._open = not hold_s or not hold_chars
        self.release_at: float | None = None
        """When what is held has waited long enough; None where nothing waits."""

    def take(self, piece: Piece, now: float) -> list[Piece]:
        """
        Take a piece and return what may be told now.

        Raises:
            Problem: the answer that comes is another one than has been told.

        """
        match piece:
            case Said(text):
                return self._words(text, now)
            case Voided():
                self._held.clear()
                self.release_at = None
                self._again, self._again_chars = [] if self._said else None, 0
                return []
            case Called():  # which comes behind the words
                again, self._again = self._again, None
                return [*(self.release() if again is None else self._goes_on("".join(again))), piece]
            case Outcome():
                return [*self._rest(piece), piece]
        return [piece]

    def release(self) -> list[Piece]:
        """Tell what is held."""
        self._open, self.release_at = True, None
        text = "".join(self._held)
        self._held.clear()
        return self._tell(text)

    def _words(self, text: str, now: float) -> list[Piece]:
        if self._again is not None:
            self._again.append(text)
            self._again_chars += len(text)
            if self._again_chars < self._said_chars:
                return []
            again, self._again = self._again, None
            return self._goes_on("".join(again))
        self._held.append(text)
        if self._open or sum(map(len, self._held)) >= self._hold_chars:
            return self.release()
        if self.release_at is None:
            self.release_at = now + self._hold_s
        return self.release() if now >= self.release_at else []

    def _rest(self, outcome: Outcome) -> list[Piece]:
        """What of the whole answer has not been told."""
        self._held.clear()
        self.release_at = None
        return self._goes_on(outcome.text)

    def _goes_on(self, whole: str) -> list[Piece]:
        said = "".join(self._said)
        if not whole.startswith(said):
            # an answer is stripped of the blanks around it, what is told as it comes is not
            said, whole = said.strip(), whole.strip()
        if not whole.startswith(said):
            raise Problem(
                "answer_replaced",
                "the model failed after the first words, and the answer that another one gave begins otherwise",
            )
        return self._tell(whole[len(said) :])

    def _tell(self, text: str) -> list[Piece]:
        if not text:
            return []
        self._said.append(text)
        self._said_chars += len(text)
        return [Said(text)]
