"""
What secrets look like: the patterns that `redact` masks by, and what has to be in a text for them to be tried.

No pattern can be begun again within what it has read, so that its work grows with the text and no faster.
"""

from __future__ import annotations

import re

from shared_libs.atomic.secrets import LOUD, STRONG, WEAK
from shared_libs.observability.escapes import ESCAPE

INVISIBLE = re.compile(
    rf"{ESCAPE}|\x1b"
    r"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    r"\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
"""What nobody sees and what may stand in the middle of a secret: escape codes, control and format characters."""

_CODE = r"(?:4[1-9A-Fa-f]|5[0-9Aa]|6[1-9A-Fa-f]|7[0-9Aa])"
NEEDLESS = re.compile(rf"%(?:25)?{_CODE}|\\{{1,9}}u00{_CODE}")
"""Letters that are written as their number, which no writer of JSON or of addresses does."""

SHAPES = re.compile(
    r"""
      \b(?:
        sk-[A-Za-z0-9_-]{10,}
      | fk_[0-9a-z]{8}_[A-Za-z0-9_-]{20,}
      | [spr]k_(?:live|test)_[A-Za-z0-9]{8,}
      | (?:gh[pousr]_|github_pat_|glpat-|hf_|gsk_|xai-|pplx-|npm_|pypi-|do[por]_v1_|r8_|ya29\.|whsec_
          |shp(?:at|ca|pa|ss)_|dckr_pat_|lin_api_|tvly-|nvapi-|sntrys_|ATATT3|hv[bs]\.|ntn_|figd_|sbp_|glsa_|glc_|fo1_
          |dp\.pt\.|NRAK-|PMAK-|AGE-SECRET-KEY-1|xapp-|GOCSPX-|sq0(?:atp|csp)-|HRKU-|fw_|lsv2_(?:pt|sk)_|pcsk_
          |vercel_blob_rw_|nfp_|fm[12]_|pscale_(?:tkn|pw|oauth)_|rnd_|gl(?:rt|cbt|dt|ptt|soat|ft|imt|agent)-|rubygems_
          |tskey-|csk-|jina_|tgp_v1_|ABSK|dp\.(?:st|ct|sa)\.(?:[a-z0-9-]{1,35}\.)?|ops_eyJ|phx_|FLWSECK-|esecret_|cal_live_|api_org_|ls__)[A-Za-z0-9_-]{12,}
      | (?:xkeysib|xsmtpsib)-[0-9a-f]{64}-[A-Za-z0-9]{16}\b|CFPAT-[A-Za-z0-9_-]{43}\b|sl\.(?:u\.)?[A-Za-z0-9_-]{60,}
      | t1\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{40,}|pa-[A-Za-z0-9_-]{43}\b|m0-[A-Za-z0-9]{40}\b
      | EAA[A-Z][A-Za-z0-9]{40,}|cio[A-Za-z0-9]{32}\b|LTAI[A-Za-z0-9]{16,26}\b|AQVN[A-Za-z0-9_-]{30,}
      | SK[0-9a-f]{32}\b
      | [A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9]{40,}
      | (?:dapi|key-|fc-)[0-9a-f]{32}\b
      | pat-(?:na|eu|ap)\d-[0-9a-f-]{36}\b
      | secret_[A-Za-z0-9]{30,}
      | pat[A-Za-z0-9]{14}\.[A-Za-z0-9]{20,}
      | xox[abeprs]-[A-Za-z0-9-]{10,}
      | (?:AKIA|ASIA)[A-Z0-9]{16}\b
      | AIza[A-Za-z0-9_-]{30,}
      | TlRMTVNTUA[A-Za-z0-9+/=]{8,}
      | LS0tLS1CRUdJTi(?!BDRVJU|BQVUJM)[A-Za-z0-9+/=]{10,}
      )
    | \$(?:2[abxy]|[156y]|apr1|argon2(?:id?|d)|scrypt|pbkdf2(?:-sha\d+)?)\$[A-Za-z0-9./$=,+-]{20,}
    | (?<![A-Za-z0-9_-])(?:eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)?
        |SG\.[A-Za-z0-9_-]{10,64}\.[A-Za-z0-9_-]{10,})
    | (?<![A-Za-z0-9/])1//0[A-Za-z0-9_-]{25,}
    | (?:(?<![\w:])|(?<=/bot))\d{8,10}:AA[A-Za-z0-9_-]{30,}
    | (?<==)(?:(?<=[?&]key=)[A-Za-z0-9_-]{20,} | (?<=[?&]code=)[A-Za-z0-9_.~-]{20,})
    | (?<=/)(?:
        (?:(?<=webhook\.office\.com/webhookb2/)|(?<=outlook\.office\.com/webhook/))[A-Za-z0-9@/_-]{20,}
      | (?<=hooks\.slack\.com/)(?:services|workflows|triggers)/[A-Za-z0-9/_-]{8,}
      | (?<=/api/webhooks/)\d{5,25}/[A-Za-z0-9_-]{20,}
      | (?<=hooks\.zapier\.com/hooks/catch/)\d{3,15}/[A-Za-z0-9]{5,}
      )
    """,
    re.VERBOSE,
)
RUN = re.compile(r"[A-Za-z0-9_$./+=,:@~?&-]{9,}")
"""Where a shape can be: all of them are made of these characters alone, and none is shorter."""

ORDINARY_RUN = re.compile(r"[A-Z]?[a-z]+[.,:?]*|(?!dapi|cio|fc|pat)[0-9a-z]+|[0-9T:.+-]+")
"""What is no shape for want of other characters: words, and what programs name and count things with."""

SPREAD = {
    "-----BEGIN ": re.compile(
        r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z ]{0,40}KEY(?: BLOCK)?-----|\Z)",
        re.DOTALL,
    ),
    "Private-Lines: ": re.compile(r"(?<=Private-Lines: )\d{1,3}\n(?:[A-Za-z0-9+/=]{1,80}\n?){1,99}"),
    '"d":"': re.compile(r'(?<="d":")[A-Za-z0-9_-]{40,}'),
    **dict.fromkeys(
        (" -u ", " --user "),
        re.compile(r"""(?P<start>(?:(?<= -u )|(?<= --user ))["']?[^\s:"']{1,100}:)[^\s"']{3,}"""),
    ),
    "response=": re.compile(r"""(?:(?<=\bresponse=)|(?<=\bresponse=")|(?<=\bresponse=\\"))[0-9a-f]{32,128}\b"""),
    "mac=": re.compile(r"""(?:(?<=\bmac=")|(?<=\bmac=\\"))[A-Za-z0-9+/=]{20,}"""),
    **dict.fromkeys(
        ("machine ", "default login "),
        re.compile(
            r"(?P<start>\b(?:machine\s{1,9}\S{1,200}|default)\s{1,9}login\s{1,9}\S{1,200}\s{1,9}"
            r"(?:account\s{1,9}\S{1,200}\s{1,9})?passw(?:or)?d\s{1,9})[^\s\"'\\]{1,512}"
        ),
    ),
    **dict.fromkeys(
        ("IDENTIFIED ", "identified "),
        re.compile(
            r"(?P<start>(?:IDENTIFIED|(?<=')\sidentified)\s{1,9}(?:(?:WITH|with)\s{1,9}\S{1,60}\s{1,9})?(?:BY|AS|by|as)\s{1,9}"
            r"(?:PASSWORD\s{1,9})?[\"'])[^\"'\n]{1,512}"
        ),
    ),
    **dict.fromkeys(
        ("3A%2F%2F", "3a%2f%2f", "3A%252F%252F"),
        re.compile(
            r"(?P<start>%(?:25){0,3}3[Aa](?:%(?:25){0,3}2[Ff]){2}[^\s/?#@\"'<>%]{0,200}%(?:25){0,3}3[Aa])"
            r"[^\s/?#@\"'<>]{1,512}?(?=%(?:25){0,3}40)"
        ),
    ),
    "sudo ": re.compile(
        r"(?P<start>\becho\s{1,9}[\"']?)[^\s\"'|]{1,200}(?=[\"']?\s{0,9}\|\s{0,9}sudo\s{1,9}(?:-\w{1,9}\s{1,9}){0,3}(?:-\w{0,9}S|--stdin)\b)"
    ),
    **dict.fromkeys(
        ("chpasswd", "passwd --stdin", "-stdin", "-fd "),
        re.compile(
            r"(?P<start>\b(?:echo|printf)\s{1,9}(?:-\w{1,3}\s{1,9})?[\"']?)[^\s\"'|]{1,200}"
            r"(?=[\"']?\s{0,9}\|[^|\n]{0,200}(?:chpasswd|passwd\s--stdin|--?pass(?:word|phrase)-(?:stdin|fd)))"
            r"|(?P<here>\bchpasswd\s{0,9}<<<\s{0,9}[\"']?)[^\s\"']{1,200}"
        ),
    ),
    "IDENTIFIED BY ": re.compile(r"(?P<start>IDENTIFIED BY\s{1,9})(?=[^\s\"';]{0,64}\d)[^\s\"';,]{6,200}"),
    ":oracle:": re.compile(r"(?P<start>:oracle:(?:thin|oci):[^\s/@:\"'<>]{1,60}/)[^\s/@\"'<>]{1,200}(?=@)"),
    "sqlplus ": re.compile(r"(?P<start>\bsqlplus\s{1,9}(?:-\w\s{1,9})?[^\s/@:\"'<>-]{1,60}/)[^\s/@\"'<>]{1,200}"),
    "@//": re.compile(r"(?P<start>(?<![\w/.@])(?=[^\s@]{1,99}@//)[^\s/@:\"'<>]{1,60}/)[^\s/@\"'<>]{1,200}(?=@//)"),
    **dict.fromkeys(("@tcp(", "@unix("), re.compile(r"(?P<start>:)[^\s:/@\"'<>]{1,200}(?=@(?:tcp|unix)\()")),
    **dict.fromkeys(
        (":*:", *(f":{port}:" for port in (5432, 5433, 6432, 6543))),
        re.compile(
            r"(?P<start>(?<![^\n])[^\s:]{1,200}:(?:\*|5432|5433|6432|6543):[^\s:]{1,60}:[^\s:]{1,60}:)[^\s:]{1,200}(?![^\n])"
        ),
    ),
}
"""Shapes that other characters belong to, by what always stands before them or at their beginning."""

SCHEME = re.compile(
    # a token has digits or mixed case, or is long; "basic arithmetic" is no secret
    r"\b(?P<scheme>(?i:Bearer|Basic))\s{1,8}"
    r"(?:(?=[^\s]{0,512}(?:[0-9=]|[a-z][A-Z]))[A-Za-z0-9+/_.~=-]{8,}"
    r"|(?<=Bearer )(?!auth|token|cred|certif|instrum)[a-z]{12,})"
)
PASSWORD_IN_URL = re.compile(
    r"""
      (?P<start>\bhttps?://[^\s/?#:@"'<>\[]{0,200}:)[^\s/?#"'<>]{1,512}(?=@)
    | (?P<other>\b(?!https?:)[A-Za-z][A-Za-z0-9+.-]{1,30}://[^\s/?#:@"'<>\[]{0,200}:)(?!\d{1,5}[/?#,])[^\s"'<>]{1,512}(?=@)
    | (?P<alone>\bhttps?://)[^\s/?#:@"'<>]{8,512}(?=@)
    """,
    re.VERBOSE | re.IGNORECASE,
)
_SCHEMES = (
    "bearer|basic|token|apikey|api-key|key|negotiate|ntlm|sso-key|dpop|ssws|splunk|sharedkey(?:lite)?|zoho-oauthtoken"
    "|genie-?key|klaviyo-api-key|bot"
)
"""Schemes of authorization, as they stand before a secret."""

_QUOTE = r"""(?:\\{0,9}["']|\\{1,9}u00(?:22|27)|&(?:quot|apos|\#0{0,3}3[49]|\#x2[27]);|%(?:25){0,3}2[27])"""
_TEXT_TYPE = r"(?:Optional\[|&(?:'static )?)?(?:str|bytes|any|[Ss]tring|[Ss]ecretStr)(?:\]|\?|\s?\|\s?(?:None|null))?"
"""What a declaration of a variable says between its name and its value."""
_TELLING = r"(?=[^\s`|]{0,64}\d)(?=[^\s`|]{0,64}[A-Za-z])[^\s\"'\\,;&<>(){}\[\]|`]{6,}"
NAMED = re.compile(
    rf"""
      (?P<start>(?:(?P<weak>{WEAK})|{STRONG}|{LOUD})
        (?P<quote>{_QUOTE})?\]?
        (?:(?:\*\*)?\s{{0,99}}(?::=(?=\s{{0,9}}(?:{_QUOTE}|{_TELLING}(?:\s|\Z)))|=(?!=)|[|?]{{1,2}}=|[:\uff1a](?!=)(?:\s{{0,3}}{_TEXT_TYPE}\s{{0,3}}=)?|[=-]>|<-(?=\s)
              |,\s{{0,9}}\\{{0,9}}["']value\\{{0,9}}["']\s{{0,9}}:|\svalue\s{{0,9}}=
              |(?:\n|\\n)[ ]{{0,40}}["']?value["']?\s{{0,3}}:
              |%(?:25){{0,3}}3[AaDd]|&\#0{{0,3}}61;|,\s{{0,3}}(?=[bru]?["'](?=[^"']{{0,512}}\d)[^"']{{8,512}}["']\s{{0,3}}[)\]]))
            (?:\*\*)?(?:\s|\\[nrt](?=[\\"'\s])|\+(?=%)|%20){{0,99}}
          |(?<!\s)>(?=[^<>]{{1,512}}</)|\s(?:is|was|ist|est|es):?\s(?=[^\s\d]{{0,64}}\d[^\s]{{0,64}}[A-Za-z]))
        (?:(?:{_SCHEMES})\s{{1,9}}(?=[^\s"',;]{{8}}))?
        (?:[|>][+-]?[ ]{{0,9}}\n\s{{1,99}}|(?:!!|&)\w{{1,20}}\s{{1,9}}|<[a-z]\w{{0,9}}>(?=\S)|\[\s{{0,9}}(?={_QUOTE})
          |`(?={_TELLING}`))?
        (?:[brun](?={_QUOTE}))?)
      (?: (?P<open>(?:(?<=[=][ ])|(?<=[=]))(?:\"{{3}}|'{{3}})|{_QUOTE})
          (?P<quoted>(?:\\.|.)*?)(?:(?P=open)|\Z)
        | (?P<bare>(?<=[=])\{{(?!\w*\}})[^{{}}"'\n]{{1,200}}\}}|(?!`)[^\s"'\\,;&<>(){{}}\[\]]+) )
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
SAID = re.compile(
    rf"""
      (?P<jar>cookie2?{_QUOTE}?\s{{0,9}}:\s{{0,9}}{_QUOTE}?)
        [^\s;"'\\=]{{1,99}}=[^\s;"'\\]*(?:;\s{{0,3}}[^\s;"'\\=]{{1,99}}(?:=[^\s;"'\\]*)?)+
    | (?P<phrase>(?:seed[ _-]?phrase|mnemonic|recovery[ _-]?phrase)\W{{1,9}})
        (?:[a-z]{{3,8}}[ ,]{{1,3}}){{11,23}}[a-z]{{3,8}}
    | (?P<sql>(?:passw(?:or)?ds?|pwd|passphrase)(?:\s{{1,9}}|\s{{0,9}}\(\s{{0,9}})n?(?P<mark>["']))
        (?!\s)[^"'\n]{{1,512}}(?=(?P=mark))
    | (?P<part>(?:{STRONG}|{WEAK})["'](?:\r?\n){{2}})[^\r\n]{{1,512}}
    | (?P<both>(?:credentials?|creds|log-?in|user/pass(?:word)?)\s?:\s{{1,3}}[^\s/]{{1,60}}\s{{0,2}}/
        \s{{0,2}}){_TELLING}
    | (?P<called>(?:log_?[io]n|sign_?in|authenticate|credentials?|(?:create|add)_?user)\(\s{{0,3}}
        (?:["'][^"'\n]{{1,100}}["']|[\w.]{{1,60}})\s{{0,3}},\s{{0,3}}(?:\w{{1,20}}\s{{0,3}}=\s{{0,3}})?(?P<by>["']))
        (?=[^"'\n]{{0,200}}[\d!\#$%&*@^])[^"'\n]{{4,512}}(?=(?P=by))
    | (?P<login>auth\s{{0,3}}(?:=\s{{0,3}})?\(\s{{0,3}}(?:\w{{1,9}}\s{{0,3}}=\s{{0,3}})?
        (?P<around>["'])[^"'\n]{{0,200}}(?P=around)\s{{0,3}},\s{{0,3}}(?:\w{{1,9}}\s{{0,3}}=\s{{0,3}})?["'])
        [^"'\n]{{1,512}}(?=(?P=around))
    | (?P<said>(?:(?!authorization|cookie|credential|jwt)(?:{STRONG})|(?<![a-z0-9])pwd?|(?<=require)pass
          |(?<=master)auth)
        (?:\s{{1,20}}|,|\||\s{{0,2}}\(|[\u662f\u4e3a\u306f]\s?|'s\s{{1,3}}
            |\sfor\s{{1,3}}\S{{1,60}}(?::\s{{1,9}}|\s{{0,3}}=\s{{0,3}}["'])
            |`:\s{{1,3}}`?|(?:\*\*)?:?(?:\*\*)?\s{{1,3}}`)){_TELLING}
    | (?P<cell>(?<=\|\s)(?:{STRONG})\s{{1,40}}\|\s{{1,40}}){_TELLING}(?=\s{{1,40}}\|)
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What names announce without a sign between; where anything may stand, only what looks like a secret is one."""

_OPTION_NAME = rf"(?<![\w-])--?(?:[a-z0-9]{{1,30}}[-_]){{0,6}}(?:{STRONG}|{WEAK}|key)"
OPTION = re.compile(
    rf"(?P<start>{_OPTION_NAME}\s{{1,9}})(?:(?P<open>[\"'])(?P<quoted>[^\"']*)[\"']|(?P<bare>[^\s\"'-][^\s\"']*))",
    re.IGNORECASE,
)
AN_OPTION = re.compile(_OPTION_NAME, re.IGNORECASE)
NAME_HINTS = {
    "pass": 7,
    "token": 8,
    "key": 18,
    "sig": 14,
    "sess": 3,
    "phrase": 9,
    "user": 7,
    **dict.fromkeys(("pw", "kennwort", "contrase", "senha", "secret", "auth", "cred", "cookie", "connect.sid"), 0),
    **dict.fromkeys(("login", "log_in", "log-in", "logon", "signin", "sign_in"), 0),
    **dict.fromkeys(("dsn", "psk", "mnemonic", "jwt", "_pat", "bearer"), 0),
    **dict.fromkeys(("\u043f\u0430\u0440\u043e\u043b\u044c", "\u5bc6\u7801", "\u5bc6\u78bc"), 0),
    **dict.fromkeys(("\u30d1\u30b9\u30ef\u30fc\u30c9", "\ube44\ubc00\ubc88\ud638"), 0),
}
"""
Every name has one of these in it, in lower case: at its beginning, or behind so many characters at the most.

A name in capital letters, such as `OPENAI_KEY`, is a whole word, and has it anywhere.
"""

LONGEST_LOUD = 8 * 41

NAME_PLACE = re.compile(
    rf"""
      (?:{"|".join(map(re.escape, NAME_HINTS))})
      (?=[\w-]{{0,30}}(?:\\{{0,9}}["'`]|\\{{1,9}}u002\d|&[\w\#]{{1,6}};|%(?:25){{0,3}}2[27])?(?:\*\*)?
        (?:\]?\s{{0,99}}(?:[:=\uff1a%>?&(|]|<-|->|,\s{{0,9}}[\\brun]{{0,9}}["'])
          |[\u662f\u4e3a\u306f]|["'](?:\r?\n){{2}}|/pass
          |\s{{0,3}}(?:\n|\\n)[ ]{{0,40}}["']?value
          |\s{{1,99}}(?:value\s{{0,9}}=|(?:is|was|ist|est|es|for):?\s|n?["'`])
          |(?:\s{{1,20}}|,|'s\s{{1,3}})(?=[^\s]{{0,64}}\d)[^\s]{{6}}))
    """,
    re.VERBOSE,
)
"""Where a name announces something, in a text in lower case: quick to find, and where nothing is found no secret is."""
