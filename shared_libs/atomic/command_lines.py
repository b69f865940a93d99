"""
Secrets among the arguments of programs.

`-p` is a password of one program and a port of another. `PROGRAMS` says it; a further program is a word there. Of a
program that nobody knows, such as an MCP server, the redactor believes the best (`masked_arguments`), and who hides
what it was started with, the worst (`secrets_of`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from urllib.parse import urlsplit

from shared_libs.atomic.patterns import late
from shared_libs.atomic.secrets import names_a_secret

_USER = r"[^\s:\"']{1,200}"
_WORD = r"[^\s\"']{1,200}"

PROGRAMS = {
    # glued only: alone the option asks for the password
    "mysql mysqldump mysqladmin mysqlimport mysqlcheck mysqlshow mysqlsh mysqlbinlog mariadb mariadb-dump "
    "mariadb-admin 7z 7za 7zz unrar rar": r"-p",
    "sshpass mongo mongosh mongodump mongorestore mongoexport mongoimport mongostat mongotop cqlsh dsbulk twine az "
    "rabbitmqadmin ncftp ncftpput ncftpget snowsql cf jfrog arangosh taos keycloak kcadm.sh nuget "
    "psexec psexec64 PsExec PsExec64 winexe": r"-p(?:\s+|=)?",
    "docker-login podman-login helm-login buildah-login skopeo-login nerdctl-login crane-login oc-login": (
        r"-p(?:\s+|=)?|--password[\s=]+"
    ),
    "redis-cli valkey-cli keydb-cli": r"(?:-a\s*|--pass[\s=]+)",
    "sqlcmd bcp zip unzip ipmitool mosquitto_pub mosquitto_sub tsql isql-fb": r"-P(?:\s+|=)?",
    "ldapsearch ldapmodify ldapadd ldapdelete ldapwhoami ldappasswd ldapcompare": r"-[wsa]\s*(?!-)",
    "openssl": r"(?:-k|-K|-macopt)\s+(?!-)|-pass(?:in|out)?\s+pass:",
    "plink pscp psftp": r"-pw\s+",
    "curl curl.exe": rf"(?:-u|-U|--user|--proxy-user|--tlsuser)[\s=]*[\"']?{_USER}:|--(?:pass|proxy-pass)[\s=]+",
    "http https xh xhs ab hey oha wrk siege": rf"(?:-[aA]|--auth)[\s=]*[\"']?{_USER}:",
    "smbclient rpcclient smbmap": r"-U\s*[\"']?[^\s%\"']{1,200}%",
    "lftp": r"-u\s*[^\s,]{1,200},",
    "htpasswd": rf"-[a-zA-Z]*n[a-zA-Z]*b[a-zA-Z]*\s+{_WORD}\s+|-[a-zA-Z]*b[a-zA-Z]*n[a-zA-Z]*\s+{_WORD}\s+"
    rf"|-(?![a-zA-Z]*n)[a-zA-Z]*b[a-zA-Z]*\s+{_WORD}\s+{_WORD}\s+",
    "rabbitmqctl": rf"(?:add_user|change_password|authenticate_user)\s+{_WORD}\s+",
    "snmpwalk snmpget snmpset snmpbulkwalk": r"-[cAX]\s*",
    "xfreerdp wfreerdp": r"/p:",
    "kubectl": r"--from-literal[\s=]+[\w.-]{1,100}=",
    "aws": r"(?:configure\s+set\s+[\w.-]{0,60}(?:secret|token)\w*|--(?:master-user-password|secret-string))[\s=]+",
    "nmcli wpa_cli": r"(?:password|psk|wifi-sec\.psk)\s+",
    "vault": r"login\s+(?!-|\w+=)",
    "snyk": r"auth\s+(?!-)",
    "doctl": r"(?:-t|--access-token)(?:\s+|=)",
    "net": rf"use\s+(?:\w:\s+)?\\\\{_WORD}\s+(?![/*])|user\s+{_WORD}\s+(?![/*])",
    "ConvertTo-SecureString": r"(?:-String\s+)?(?=[\"'])",
    "keytool jarsigner apksigner": r"-(?:src|dest|new)?(?:store|key)pass\s+(?:pass:)?",
    "psql createdb pg_dump pg_restore": r"-W\s*=",
}
"""
Of the programs of a line, what stands right before a secret, as a regular expression.

`a-b` is the subcommand `b` of `a` where `b` is `login`.
"""

_OF_PROGRAM = {
    program: late(rf"(?<=\s)(?:{before})") for programs, before in PROGRAMS.items() for program in programs.split()
}
_LOGINS = {name.removesuffix("-login") for name in _OF_PROGRAM if name.endswith("-login")}
_OPTION = late(r" -[a-zA-Z-]")
_WITHOUT_OPTION = (
    "rabbitmqctl ",
    "freerdp ",
    "aws configure ",
    "nmcli ",
    "wpa_cli ",
    "vault login ",
    "snyk auth ",
    "net use ",
    "net user ",
)
_PROGRAM = late(r"(?<![\w.-])(?:\w[\w.-]{0,24}?)(?=(?:\.exe)?[ \t])")
_REST = late(r"(?:'[^']*'|\"[^\"]*\"|[^|;&])*+")
_SECRET = late(r"\\?'[^']*'?|\\?\"[^\"\\]*\\?\"?|[^\s\"'\\]+")
_MOST_WORDS = 3
"""Words that may stand before a secret, the option among them."""

_OF_A_USER = ("-u", "--user")
_OF_ANY = ("-p", "-P", "-a", *_OF_A_USER)
"""Options that are a password's, or a user's with one, of some program."""

_GLUED = late(r"-p((?=\S*\d)(?=\S*[A-Za-z])\S{6,})")
"""A password behind its option, without a blank."""

_TOKEN = late(
    r"(?=\S*\d)(?=\S*[A-Z])(?=\S*[a-z])[\w+=-]{16,}|(?=\D*\d)[\da-f]{32,}|(?:gh[a-z]|sk|pk|glpat|npm|hf)[_-]\S{8,}"
)
"""A word that looks like a token."""

_PIECES = late(r"[^\s;&?,]+")

_PAIR = late(r"""["'](\w{1,60})["']\s{0,9}:\s{0,9}["']([^"']{1,500})["']""")
"""A name and its value in an argument that is JSON."""

_NEAR, _NEAR_CHARS = 8, 200
"""Words and characters behind a program in which its subcommand is."""


def without_secrets(text: str, mask: str) -> str:
    """Return a text in which the secrets of command lines are masked."""
    bare = any(word in text for word in _WITHOUT_OPTION)
    if not bare and _OPTION.search(text) is None:
        return text
    lines = text.split("\n")
    return "\n".join([_of_line(line, mask) if bare or _OPTION.search(line) else line for line in lines])


def masked_arguments(words: Sequence[str], mask: str) -> list[str]:
    """Return the words of a command line, without what of them is a secret."""
    masked: list[str] = []
    program = ""
    for index, word in enumerate(words):
        bare = word.rpartition("/")[2].rpartition("\\")[2].removesuffix(".exe")
        program = bare if _knows(bare) else program
        masked.append(_argument(program, words, index, mask) if program else word)
    return masked


def secrets_of(words: Sequence[str]) -> Iterator[str]:
    """
    Yield whatever may be a secret among the words of a command line, some of it twice.

    That is what is behind a telling name or option, and what came from a variable of such a name.
    """
    for before, word in pairwise(["", *words]):
        if len(inside := _PIECES.findall(word)) > 1:  # a line of a shell, settings, the query of an address
            yield from secrets_of(inside)
        name, _, value = re.split(r"([=:])", word, maxsplit=1) if re.search(r"[=:]", word) else ("", "", word)
        behind = _tells(before) and not word.startswith("-")
        if behind or _tells(name):
            yield value.strip()
            yield password_in(value)
        if behind or _TOKEN.fullmatch(word):
            yield word
        yield password_in(word)
        yield from (said for named, said in _PAIR.findall(word) if names_a_secret(named))
        if before in _OF_ANY and not word.isdigit():  # a port
            yield word.partition(":")[2] if before in _OF_A_USER else word
        if glued := _GLUED.fullmatch(word):
            yield glued[1]
        yield from (kept for name, kept in os.environ.items() if kept and kept in word and names_a_secret(name))


def _tells(name: str) -> bool:
    return names_a_secret(name) or name.strip("-").lower() in ("key", "pat")


def password_in(url: str) -> str:
    """Return the password of an address; empty where there is none."""
    try:
        return urlsplit(url).password or ""
    except ValueError:
        return ""


def _of_line(line: str, mask: str) -> str:
    parts: list[str] = []
    done = 0
    for found in _PROGRAM.finditer(line):
        if found.start() < done or not _knows(found[0]):
            continue
        rest = _REST.match(line, found.end())
        assert rest is not None
        parts += (line[done : found.end()], _of_command(found[0], rest[0], mask))
        done = rest.end()
    return "".join([*parts, line[done:]])


def _of_command(program: str, rest: str, mask: str) -> str:
    parts: list[str] = []
    done = 0
    option = _option(program, rest[:_NEAR_CHARS])
    for found in option.finditer(rest) if option is not None else ():
        secret = _SECRET.match(rest, found.end())
        if secret is not None and found.start() >= done:
            parts += (rest[done : found.end()], mask)
            done = secret.end()
    return "".join([*parts, rest[done:]])


def _argument(program: str, words: Sequence[str], index: int, mask: str) -> str:
    option = _option(program, " ".join(words[max(0, index - _NEAR) : index]))
    if option is None:
        return words[index]
    before = " ".join(["", *words[max(0, index - _MOST_WORDS) : index], ""])
    line = before + words[index]
    found = next((one for one in option.finditer(line) if len(before) <= one.end() < len(line)), None)
    return words[index] if found is None else f"{line[len(before) : found.end()]}{mask}"


def _knows(program: str) -> bool:
    return program in _OF_PROGRAM or program in _LOGINS


def _option(program: str, words: str) -> re.Pattern[str] | None:
    logs_in = program in _LOGINS and re.search(r"\blogin\b", words) is not None
    return _OF_PROGRAM.get(f"{program}-login" if logs_in else program)
