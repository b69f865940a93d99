"""
Faults at the ports of an agent, inside the process: what goes wrong, where, and at which calls.

The names are those of the catalogue for the wire (`faults.py`), where a fault of the wire has its counterpart at the
port: there the adapter has already made an error of it. A plan decides by (seed, port, name, number of the call) alone,
so that the same seed gives the same faults however the tasks of a run take turns.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import msgspec

from shared_libs.atomic.errors import MisuseError
from shared_libs.factory.problems import choices, nearest

Port = Literal["model", "tool", "memory"]

KINDS: Mapping[Port, Mapping[str, tuple[str, ...]]] = {
    "model": {
        "rate_limited": ("retry_after_s",),
        "server_error": ("status",),
        "html_page": ("status",),
        "unauthorized": ("status",),
        "model_missing": (),
        "context_too_long": (),
        "content_filter": (),
        "bad_request": (),
        "connection_refused": (),
        "reset_before_headers": (),
        "silence": (),
        "slow_first_token": ("delay_s",),
        "cut": ("after_tokens",),
        "clean_cut": ("after_tokens",),
        "stall": ("after_tokens",),
        "malformed_chunk": ("after_tokens",),
        "malformed_body": (),
        "empty_answer": (),
        "drip": ("delay_s",),
        "huge_chunk": ("chars",),
        "flapping": ("down_s", "up_s", "status"),
        "crash": (),
        "ignore_cancel": ("delay_s",),
        "speak_on": ("delay_s",),
        "panic": (),
        "wrong_type": (),
    },
    "tool": {
        "error": ("text",),
        "crash": ("text",),
        "hang": (),
        "delay": ("delay_s",),
        "ignore_cancel": ("delay_s",),
        "wrong_result": ("text",),
        "garbage": ("chars",),
        "block": (),
        "panic": ("text",),
        "wrong_type": (),
    },
    "memory": {
        "error": ("text",),
        "crash": ("text",),
        "conflict": (),
        "hang": (),
        "delay": ("delay_s",),
        "ignore_cancel": ("delay_s",),
        "garbage": (),
        "panic": ("text",),
        "wrong_type": (),
    },
}
"""What may go wrong at each port, and the parameters that each fault takes."""


class Panic(BaseException):
    """What a native extension raises when it panics: no `Exception`."""


OPERATIONS = ("load", "store", "search", "summarise")
"""The calls of a memory; loading is the recall at the start of a run too."""

_FROM = re.compile(r"from [1-9][0-9]*")


class PortFault(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """
    A fault, where it is, and at which calls.

    Args:
        on: `model`, `model NAME`, `tool`, `tool NAME`, `memory`, or `memory load` (`store`, `search`, `summarise`).
            A model's name is `provider/model`, or `model` alone.
        fault: what goes wrong, a name of `KINDS`.
        attempts: the calls of that model, tool or operation, counted from 1: a list, `every`, or `from N`.
        probability: how likely it is at each of those calls; drawn from the seed.
        status: the HTTP status that the adapter tells.
        retry_after_s: what the provider asks to wait, in seconds.
        delay_s: how late, in seconds: the answer, each word of it (`drip`), or the end of what ignores its
            cancellation.
        after_tokens: how many words of the answer come before; None: half of them.
        chars: how long a huge or garbled answer is.
        down_s, up_s: how long a flapping model is down and up, in seconds.
        text: what the error says, or the wrong result.

    Raises:
        MisuseError: there is no such port, fault or parameter of it.

    """

    on: str
    fault: str
    attempts: tuple[int, ...] | str = "every"
    probability: float = 1.0
    status: int | None = None
    retry_after_s: float | None = None
    delay_s: float | None = None
    after_tokens: int | None = None
    chars: int | None = None
    down_s: float | None = None
    up_s: float | None = None
    text: str | None = None

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise MisuseError("; ".join(problems))

    def _problems(self) -> Iterator[str]:
        """Say everything that is wrong; where the port is unknown, any port's faults are as good as another's."""
        kinds = KINDS.get(self.port) or {name: keys for port in KINDS.values() for name, keys in port.items()}
        if self.port not in KINDS:
            yield f"on: there is no port {self.port!r}; {choices(self.port, KINDS)}"
        elif self.port == "memory" and self.name and self.name not in OPERATIONS:
            yield f"on: a memory has no {self.name!r}; {choices(self.name, OPERATIONS)}"
        if self.fault not in kinds and self.port in KINDS:
            yield f"fault: a {self.port} has no fault {self.fault!r}; {choices(self.fault, kinds)}"
        elif self.fault not in kinds:
            near = nearest(self.fault, kinds)
            yield f"fault: there is no fault {self.fault!r}" + (f"; did you mean '{near}'?" if near else "")
        elif self.port in KINDS:
            for name in self.parameters():
                if name not in kinds[self.fault]:
                    yield f"{name}: {self.fault} has no such parameter; {choices(name, kinds[self.fault])}"
        numbered = isinstance(self.attempts, tuple)
        if numbered and (not self.attempts or any(int(number) < 1 for number in self.attempts)):
            yield "attempts: the calls are counted from 1, such as [1, 2]"
        if not numbered and self.attempts != "every" and not _FROM.fullmatch(str(self.attempts)):
            yield f"attempts: {self.attempts!r} is no set of calls; write [1, 2], every, or from 3"
        if not 0 < self.probability <= 1:
            yield f"probability: {self.probability:g} is not above 0 and up to 1"

    @property
    def port(self) -> Port:
        """Which port."""
        port: Any = self.on.partition(" ")[0]
        return port  # type: ignore[no-any-return]

    @property
    def name(self) -> str:
        """Whose fault it is; empty: everybody's."""
        return self.on.partition(" ")[2].strip()

    def parameters(self) -> dict[str, Any]:
        """Return the parameters that were given."""
        given = {name: getattr(self, name) for name in self.__struct_fields__[4:]}
        return {name: value for name, value in given.items() if value is not None}

    def meets(self, port: Port, name: str, number: int) -> bool:
        """Whether this call is one of those; left to chance, it is one of those that may be hit."""
        if port != self.port or self.name not in ("", name, name.partition("/")[2]):
            return False
        if isinstance(self.attempts, tuple):
            return number in self.attempts
        return self.attempts == "every" or number >= int(self.attempts.removeprefix("from "))

    def __str__(self) -> str:
        said = [f"{name}={value}" for name, value in self.parameters().items()]
        when = list(self.attempts) if isinstance(self.attempts, tuple) else self.attempts
        chance = [] if self.probability == 1 else [f"with probability {self.probability:g}"]
        return " ".join([f"{self.fault} on {self.on} ({when})", *said, *chance])


class PlayedFault(msgspec.Struct, frozen=True):
    """A fault that was played: at which call of whom."""

    port: Port
    name: str
    number: int
    fault: PortFault


class FaultPlan:
    """
    Says of every call whether something goes wrong with it.

    Args:
        faults: what may go wrong; of several that meet a call, the first is played.
        seed: decides what is left to chance.

    """

    def __init__(self, faults: Iterable[PortFault] = (), seed: int = 0) -> None:
        self.faults = tuple(faults)
        self.seed = seed
        self.played: list[PlayedFault] = []
        self._calls: Counter[tuple[Port, str]] = Counter()
        self._over = False

    def next(self, port: Port, name: str) -> PortFault | None:
        """Count a call, and return what goes wrong with it."""
        self._calls[port, name] += 1
        number = self._calls[port, name]
        for index, fault in enumerate(() if self._over else self.faults):
            if fault.meets(port, name, number) and self._chance(index, port, name, number) < fault.probability:
                self.played.append(PlayedFault(port, name, number, fault))
                return fault
        return None

    def clear(self) -> None:
        """Let nothing go wrong from now on."""
        self._over = True

    def calls(self, port: Port, name: str) -> int:
        """How many calls there were."""
        return self._calls[port, name]

    def unplayed(self) -> list[PortFault]:
        """Return the faults that were certain and yet never met a call."""
        met = {id(played.fault) for played in self.played}
        return [fault for fault in self.faults if fault.probability == 1 and id(fault) not in met]

    def _chance(self, index: int, port: Port, name: str, number: int) -> float:
        """A number from 0 to 1 that depends on nothing but the seed and the call."""
        if self.faults[index].probability == 1:
            return 0.0
        drawn = hashlib.blake2b(f"{self.seed}|{index}|{port}|{name}|{number}".encode(), digest_size=8).digest()
        return int.from_bytes(drawn, "big") / 2**64
