"""Where a server stands, kept out of the words of an error that leave this process."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

ADDRESS = "<address>"
"""What stands for the address of a server."""

_AUTHORITY = re.compile(r"(?<=://)[^\s/?#'\"<>()]+")
_IPV4 = r"\d{1,3}(?:\.\d{1,3}){3}"
_IPV6 = r"\[[0-9a-fA-F.]*(?::[0-9a-fA-F.]*){2,}\]"
_NUMBERS = re.compile(rf"(?<![\w.])(?:{_IPV4}|{_IPV6})(?::\d+)?(?![\w.]*\w)")
_PORT = re.compile(r":\d+$")


def without_addresses(text: str, base_url: str = "") -> str:
    """
    Return what an error says without where it happened: the hosts of URLs, wherever they stand, and numeric addresses.

    Args:
        text: the error's words.
        base_url: the address of the server that was asked, whose host is hidden too.

    """
    hosts = {_PORT.sub("", found.rpartition("@")[2]) for found in _AUTHORITY.findall(text)}
    own = urlsplit(base_url).hostname
    text = _NUMBERS.sub(ADDRESS, _AUTHORITY.sub(ADDRESS, text))
    for host in sorted(filter(None, hosts | {own}), key=len, reverse=True):
        # a host of one word, such as `model`, is a word of the text too
        before = r"(?<![\w.-])" if "." in host or host == own else r"(?<=\bname )"
        text = re.sub(rf"{before}{re.escape(host)}(?::\d+)?(?![\w-])", ADDRESS, text, flags=re.IGNORECASE)
    return text
