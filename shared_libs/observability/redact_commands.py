"""
Secrets among the arguments of programs, where the program alone tells that they are.

`-p` is a password of one program and a port of another. `PROGRAMS` says it; a further program is a word there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_USER = r"[^\s:\"']{1,200}"
_WORD = r"[^\s\"']{1,200}"

PROGRAMS = {
    # glued only: alone the option asks for the password
    "mysql mysqldump mysqladmin mysqlimport mysqlcheck mysqlshow mysqlsh mysqlbinlog mariadb mariadb-dump "
    "mariadb-admin 7z 7za 7zz unrar rar": r"-p",
    "sshpass mongo mongosh mongodump mongorestore mongoexport mongoimport mongostat mongotop cqlsh dsbulk twine az "
    "rabbitmqadmin ncftp ncftpput ncftpget snowsql cf jfrog arangosh taos keycloak kcadm.sh nuget": r"-p(?:\s+|=)?",
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
    "keytool jarsigner apksigner": r"-(?:src|dest|new)?(?:store|key)pass\s+(?:pass:)?",
    "psql createdb pg_dump pg_restore": r"-W\s*=",
}
"""
Of the programs of a line, what stands right before a secret, as a regular expression.

`a-b` is the subcommand `b` of `a` where `b` is `login`.
"""

_OF_PROGRAM = {
    program: re.compile(rf"(?<=\s)(?:{before})")
    for programs, before in PROGRAMS.items()
    for program in programs.split()
}
_LOGINS = {name.removesuffix("-login") for name in _OF_PROGRAM if name.endswith("-login")}
_OPTION = re.compile(r" -[a-zA-Z-]")
_WITHOUT_OPTION = ("rabbitmqctl ", "freerdp ", "aws configure ", "nmcli ", "wpa_cli ")
_PROGRAM = re.compile(r"(?<![\w.-])(?:\w[\w.-]{0,20}?)(?=(?:\.exe)?[ \t])")
_REST = re.compile(r"(?:'[^']*'|\"[^\"]*\"|[^|;&])*+")
_SECRET = re.compile(r"\\?'[^']*'?|\\?\"[^\"\\]*\\?\"?|[^\s\"'\\]+")
_MOST_WORDS = 3
"""Words that may stand before a secret, the option among them."""

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
