"""
Secrets out of whatever leaves the process: one redactor for logs, run records and what is shown of a run.

It knows secrets by their shape (keys of the known vendors, bearer tokens, JSON web tokens, passwords in URLs, private
keys) and by the name they stand under (`atomic/secrets.py`). A secret without a known shape and without a telling name
cannot be known.

Its work grows with the text and no faster: no pattern can be begun again within what it has read, and a long text is
masked piece by piece, so that the other threads of the process come to their turn.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from shared_libs.atomic.secrets import LOUD, STRONG, WEAK, names_a_secret

MASK = "[redacted]"
MAX_DEPTH = 100

PIECE = 1 << 15
"""Characters that are masked at once; a longer text is cut between two words."""

INVISIBLE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])?"
    r"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    r"\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
"""What nobody sees and what may stand in the middle of a secret: escape codes, control and format characters."""

_SHAPES = re.compile(
    r"""
      \b(?:
        sk-[A-Za-z0-9_-]{10,}
      | fk_[0-9a-z]{8}_[A-Za-z0-9_-]{20,}
      | [spr]k_(?:live|test)_[A-Za-z0-9]{8,}
      | (?:gh[pousr]_|github_pat_|glpat-|hf_|gsk_|xai-|pplx-|npm_|pypi-|do[por]_v1_|r8_|ya29\.|whsec_
          |shp(?:at|ca|pa|ss)_|dckr_pat_|lin_api_|tvly-|nvapi-|sntrys_|ATATT3|hv[bs]\.|ntn_|figd_|sbp_|glsa_|glc_|fo1_
          |dp\.pt\.|NRAK-|PMAK-|AGE-SECRET-KEY-1|xapp-|GOCSPX-|sq0(?:atp|csp)-|HRKU-|fw_|lsv2_(?:pt|sk)_|pcsk_
          |vercel_blob_rw_|nfp_|fm[12]_|pscale_(?:tkn|pw|oauth)_|rnd_|gl(?:rt|cbt|dt|ptt|soat|ft|imt|agent)-|rubygems_
          |tskey-|csk-|jina_|tgp_v1_|ABSK)[A-Za-z0-9_-]{12,}
      | EAA[A-Z][A-Za-z0-9]{40,}|cio[A-Za-z0-9]{32}\b|LTAI[A-Za-z0-9]{16,26}\b|AQVN[A-Za-z0-9_-]{30,}
      | SK[0-9a-f]{32}\b
      | [A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9]{40,}
      | (?:dapi|key-)[0-9a-f]{32}\b
      | secret_[A-Za-z0-9]{30,}
      | pat[A-Za-z0-9]{14}\.[A-Za-z0-9]{20,}
      | xox[abeprs]-[A-Za-z0-9-]{10,}
      | (?:AKIA|ASIA)[A-Z0-9]{16}\b
      | AIza[A-Za-z0-9_-]{30,}
      )
    | \$(?:2[abxy]|[156y]|apr1|argon2(?:id?|d)|scrypt|pbkdf2(?:-sha\d+)?)\$[A-Za-z0-9./$=,+-]{20,}
    | (?<![A-Za-z0-9_-])(?:eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)?
        |SG\.[A-Za-z0-9_-]{10,64}\.[A-Za-z0-9_-]{10,})
    | (?<![A-Za-z0-9/])1//0[A-Za-z0-9_-]{25,}
    | (?<![\w:])\d{8,10}:AA[A-Za-z0-9_-]{30,}
    | (?<==)(?:(?<=[?&]key=)[A-Za-z0-9_-]{20,} | (?<=[?&]code=)[A-Za-z0-9_.~-]{20,})
    | (?<=/)(?:
        (?<=webhook\.office\.com/webhookb2/)[A-Za-z0-9@/_-]{20,}
      | (?<=hooks\.slack\.com/)(?:services|workflows|triggers)/[A-Za-z0-9/_-]{8,}
      | (?<=/api/webhooks/)\d{5,25}/[A-Za-z0-9_-]{20,}
      | (?<=hooks\.zapier\.com/hooks/catch/)\d{3,15}/[A-Za-z0-9]{5,}
      )
    """,
    re.VERBOSE,
)
_RUN = re.compile(r"[A-Za-z0-9_$./+=,:@~?&-]{9,}")
"""Where a shape can be: all of them are made of these characters alone, and none is shorter."""

_ORDINARY_RUN = re.compile(r"[A-Z]?[a-z]+[.,:?]*|(?!dapi|cio)[0-9a-z]+|[0-9T:.+-]+")
"""What is no shape for want of other characters: words, and what programs name and count things with."""

_SPREAD = {
    "-----BEGIN ": re.compile(
        r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z ]{0,40}KEY(?: BLOCK)?-----|\Z)",
        re.DOTALL,
    ),
    "Private-Lines: ": re.compile(r"(?<=Private-Lines: )\d{1,3}\n(?:[A-Za-z0-9+/=]{1,80}\n?){1,99}"),
    '"d":"': re.compile(r'(?<="d":")[A-Za-z0-9_-]{40,}'),
    " -u ": re.compile(r"""(?<= -u )["']?[^\s:"']{1,100}:[^\s"']{3,}"""),
    " --user ": re.compile(r"""(?<= --user )["']?[^\s:"']{1,100}:[^\s"']{3,}"""),
}
"""Shapes that other characters belong to, by what always stands before them or at their beginning."""

_SCHEME = re.compile(
    # a token has digits or mixed case, or is long; "basic arithmetic" is no secret
    r"\b(?P<scheme>(?i:Bearer|Basic))\s{1,8}"
    r"(?:(?=[^\s]{0,512}(?:[0-9=]|[a-z][A-Z]))[A-Za-z0-9+/_.~=-]{8,}"
    r"|(?<=Bearer )(?!auth|token|cred|certif|instrum)[a-z]{12,})"
)
_PASSWORD_IN_URL = re.compile(
    r"""
      (?P<start>\bhttps?://[^\s/?#:@"'<>\[]{0,200}:)[^\s/?#"'<>]{1,512}(?=@)
    | (?P<other>\b(?!https?:)[A-Za-z][A-Za-z0-9+.-]{1,30}://[^\s/?#:@"'<>\[]{0,200}:)(?!\d{1,5}[/?#,])[^\s"'<>]{1,512}(?=@)
    | (?P<alone>\bhttps?://)[^\s/?#:@"'<>]{8,512}(?=@)
    """,
    re.VERBOSE | re.IGNORECASE,
)
_NAMED = re.compile(
    rf"""
      (?P<start>(?:(?P<weak>{WEAK})|{STRONG}|{LOUD})
        (?P<quote>\\{{0,9}}["'])?
        (?:\s{{0,99}}(?:[:=\uff1a]|[=-]>|,\s{{0,9}}\\{{0,9}}["']value\\{{0,9}}["']\s{{0,9}}:|\svalue\s{{0,9}}=
            |%3[AaDd]|,\s{{0,3}}(?=[bru]?["'](?=[^"']{{0,512}}\d)[^"']{{8,512}}["']\s{{0,3}}[)\]]))\s{{0,99}}
          |(?<!\s)>(?=[^<>]{{1,512}}</)|\s(?:is|was|ist|est|es)\s(?=[^\s\d]{{0,64}}\d[^\s]{{0,64}}[A-Za-z]))
        (?:(?:bearer|basic|token|apikey|api-key|key|negotiate|sso-key|dpop)\s{{1,9}}(?=[^\s"',;]{{8}}))?(?:[bru](?=\\{{0,9}}["']))?)
      (?: (?P<open>\\{{0,9}}["'])(?P<quoted>(?:\\.|.)*?)(?:(?P=open)|\Z) | (?P<bare>[^\s"'\\,;&<>(){{}}\[\]]+) )
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
_OPTION_NAME = rf"(?<![\w-])--?(?:[a-z0-9]{{1,30}}[-_]){{0,6}}(?:{STRONG}|{WEAK}|key)"
_OPTION = re.compile(
    rf"(?P<start>{_OPTION_NAME}\s{{1,9}})(?:(?P<open>[\"'])(?P<quoted>[^\"']*)[\"']|(?P<bare>[^\s\"'-][^\s\"']*))",
    re.IGNORECASE,
)
_AN_OPTION = re.compile(_OPTION_NAME, re.IGNORECASE)
_NAME_HINTS = {
    "pass": 7,
    "token": 8,
    "key": 14,
    "sig": 14,
    "sess": 3,
    **dict.fromkeys(("pw", "kennwort", "contrase", "senha", "secret", "auth", "cred", "cookie", "connect.sid"), 0),
    **dict.fromkeys(("dsn", "jwt", "_pat", "\u043f\u0430\u0440\u043e\u043b\u044c", "\u5bc6\u7801", "\u5bc6\u78bc"), 0),
    **dict.fromkeys(("\u30d1\u30b9\u30ef\u30fc\u30c9", "\ube44\ubc00\ubc88\ud638"), 0),
}
"""
Every name has one of these in it, in lower case: at its beginning, or behind so many characters at the most.

A name in capital letters, such as `OPENAI_KEY`, is a whole word, and has it anywhere.
"""

_LONGEST_LOUD = 8 * 41

_NAME_PLACE = re.compile(
    rf"""
      (?:{"|".join(map(re.escape, _NAME_HINTS))})
      (?=[\w-]{{0,30}}\\{{0,9}}["']?(?:\s{{0,99}}(?:[:=\uff1a%>]|->|,\s{{0,9}}[\\bru]{{0,9}}["'])
          |\s{{1,99}}(?:value\s{{0,9}}=|(?:is|was|ist|est|es)\s)))
    """,
    re.VERBOSE,
)
"""Where a name announces something, in a text in lower case: quick to find, and where nothing is found no secret is."""

_NO_SECRETS = ("", "none", "null", "true", "false", MASK)
_LOOKS_SECRET = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z!#$%&*+/=^~]).{6,}|.{24,}", re.DOTALL)
_FEW = 200
_VALUES = (bool, int, float)
_IN_WORDS = string.ascii_letters + string.digits + "_"
_NAMERS = ("name", "key", "header", "param", "field")
"""Keys of data, in any case, under which a name stands, beside the `value` that it names."""


def redact_data(value: Any) -> Any:
    """
    Return JSON-like data with its secrets masked, and what is nested too deep; the data itself is left as it is.

    Data of dicts, lists and plain values that hold nothing to mask are returned themselves: most do not, and looking at
    all their texts as one costs a tenth of looking at each.
    """
    texts: list[str] = []
    if _is_plain(value, texts, MAX_DEPTH) and redact_text(joined := "\n".join(texts)) == joined:
        return value
    return _redacted(value, MAX_DEPTH)


def redact_text(text: str) -> str:
    """
    Return a text with its secrets masked.

    Characters nobody sees hide no secret: where one is found behind them, they are taken out of the whole text.
    """
    if (text.isascii() and text.replace("\n", "").isprintable()) or INVISIBLE.search(text) is None:
        return _without_secrets(text)
    seen = INVISIBLE.sub("", text)
    masked = _without_secrets(seen)
    return masked if masked != seen else _without_secrets(text)


def redact_start(text: str, limit: int) -> str:
    """Return at most `limit` characters of a text, masked before it is cut; the rest costs no work."""
    return redact_text(text[: limit + PIECE])[:limit]


def _is_plain(value: Any, texts: list[str], depth: int) -> bool:
    """Whether data have no names that tell of a secret; what is to be looked at besides is put to the texts."""
    kind = type(value)
    if kind is str:
        texts.append(value)
        return True
    if kind is dict:
        names = depth > 0 and all(type(key) is str and len(key) < _FEW and _is_plain_name(key) for key in value)
        return names and all(_is_plain(item, texts, depth - 1) for item in value.values())
    if kind is list:
        told = any(type(item) is str and item[:1] == "-" for item in value)  # options of a program
        told = told or (len(value) == 2 and type(value[0]) is str and names_a_secret(value[0]))
        return depth > 0 and not told and all(_is_plain(item, texts, depth - 1) for item in value)
    return value is None or kind in _VALUES


@lru_cache(maxsize=4096)
def _is_plain_name(name: str) -> bool:
    """Whether nothing has to be masked for a key's sake, nor in it; the same few come again and again."""
    return name.lower() != "value" and not names_a_secret(name) and redact_text(name) == name


def _without_secrets(text: str) -> str:
    text = _replaced(_RUN, _masked_run, text)
    for hint, pattern in _SPREAD.items():
        if hint in text:
            text = _replaced(pattern, _all_of_it, text)
    if "://" in text and "@" in text:
        text = _replaced(_PASSWORD_IN_URL, _masked_in_url, text)
    lower = text.lower()
    if any(hint in lower for hint in _NAME_HINTS):
        text = _without_named(text, lower)
        if "-" in text:
            text = _replaced(_OPTION, _masked_option, text)
    if "bearer" in lower or "basic" in lower:
        text = _replaced(_SCHEME, lambda match: f"{match['scheme']} {MASK}", text)
    return text


def _masked_run(match: re.Match[str]) -> str:
    run = match[0]
    return run if _ORDINARY_RUN.fullmatch(run) else _replaced(_SHAPES, _all_of_it, run)


def _all_of_it(_: re.Match[str]) -> str:
    return MASK


def _without_named(text: str, lower: str) -> str:
    """As `_NAMED.sub`, which has no beginning that is quick to find: tried only where a name announces something."""
    if len(lower) != len(text):  # a few letters are two in lower case
        return _replaced(_NAMED, _masked, text)
    parts: list[str] = []
    done = 0
    for place in _name_places(lower):
        for at in _beginnings(text, place):
            if at >= done and (found := _NAMED.match(text, at)) is not None:
                parts += (text[done:at], _masked(found))
                done = found.end()
    return "".join([*parts, text[done:]]) if parts else text


def _name_places(lower: str) -> Iterator[re.Match[str]]:
    """Yield where names have their hints, piece by piece."""
    for start in range(0, len(lower), PIECE):
        until = start + PIECE
        for place in _NAME_PLACE.finditer(lower, start, until + _FEW):
            if place.start() >= until:
                break
            yield place


def _beginnings(text: str, place: re.Match[str]) -> Iterable[int]:
    """Return where a name may begin that has its hint there."""
    hint = place.start()
    word = text[max(0, hint - _LONGEST_LOUD) : hint]
    loud = hint - len(word) + len(word.rstrip(_IN_WORDS))
    nearest = max(0, hint - _NAME_HINTS[place[0]])
    return (*((loud,) if loud < nearest else ()), *range(nearest, hint + 1))


def _replaced(pattern: re.Pattern[str], replace: Callable[[re.Match[str]], str], text: str) -> str:
    """As `pattern.sub`, in pieces: the interpreter is let go between them, and the result is the same."""
    if len(text) <= PIECE:
        return pattern.sub(replace, text)
    parts: list[str] = []
    done = at = 0
    while at < len(text):
        most = at + PIECE
        found = pattern.search(text, at, most + PIECE)
        if found is not None and found.end() == most + PIECE:
            found = pattern.search(text, found.start())
        if found is None or found.start() >= most:
            at = most
            continue
        parts += (text[done : found.start()], replace(found))
        done = at = max(found.end(), at + 1)
    return "".join([*parts, text[done:]])


def _redacted(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return redact_text(value)
    if not isinstance(value, Mapping | list | tuple):
        return value
    if not depth:
        return MASK
    if isinstance(value, Mapping):
        return _redacted_mapping(value, depth)
    return [*_redacted_items(value, depth)]


def _redacted_mapping(value: Mapping[Any, Any], depth: int) -> dict[Any, Any]:
    small = {key.lower(): item for key, item in value.items() if isinstance(key, str)} if len(value) < _FEW else {}
    named = next((small[key] for key in _NAMERS if key in small), None) if "value" in small else None
    masked: dict[Any, Any] = {}
    for key, item in value.items():
        shown = redact_text(key) if isinstance(key, str) else key
        while shown in masked:  # two secrets as keys
            shown = f"{shown}'"
        secret = _is_secret(key, item) or (
            named is not None and str(key).lower() == "value" and _is_secret(named, item)
        )
        masked[shown] = MASK if secret else _redacted(item, depth - 1)
    return masked


def _redacted_items(items: Sequence[Any], depth: int) -> Iterator[Any]:
    """Mask what stands behind an option in a list of a program's arguments, and in pairs of names and values."""
    if len(items) == 2 and all(isinstance(item, str) for item in items) and _is_a_pair(*items):
        yield from (items[0], MASK)
        return
    before: Any = None
    for item in items:
        if isinstance(item, str) and isinstance(before, str) and item[:1] != "-" and _AN_OPTION.fullmatch(before):
            yield MASK
        elif isinstance(item, list | tuple) and len(item) == 2 and isinstance(item[1], str) and _is_secret(*item):
            yield [item[0], MASK]
        else:
            yield _redacted(item, depth - 1)
        before = item


def _is_a_pair(name: str, value: str) -> bool:
    """Whether two texts are a name and its secret, and not two names."""
    return len(value) < _FEW and _is_secret(name, value) and _LOOKS_SECRET.fullmatch(value) is not None


def _is_secret(name: Any, value: Any) -> bool:
    """Whether the name tells that the value is a secret; nothing, and what is only a switch, is none."""
    if value is None or value == "" or isinstance(value, bool) or not isinstance(name, str):
        return False
    return names_a_secret(name)


def _masked_in_url(match: re.Match[str]) -> str:
    return f"{match['start'] or match['other'] or match['alone']}{MASK}"


def _masked(match: re.Match[str]) -> str:
    quote = match["open"] or ""
    value = match["quoted"] if quote else match["bare"]
    if value.lower() in _NO_SECRETS:
        return match[0]
    in_prose = match["weak"] and not match["quote"] and match.string[max(match.start() - 1, 0)] not in "?&"
    if in_prose and not _LOOKS_SECRET.fullmatch(value[:200]):
        return match[0]
    return f"{match['start']}{quote}{MASK}{quote}"


def _masked_option(match: re.Match[str]) -> str:
    quote = match["open"] or ""
    if not quote and not re.search(r"[^a-z]", match["bare"][:200]):
        return match[0]  # an ordinary word: prose about the option
    return f"{match['start']}{quote}{MASK}{quote}"
