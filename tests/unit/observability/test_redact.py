"""Secrets are masked wherever they stand, and nothing else is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from shared_libs.agents import ToolStarted
from shared_libs.observability import redact_data, redact_text
from shared_libs.observability.redact import MAX_DEPTH, PIECE, _redacted, is_harmless, redact_start
from tests.growth import assert_linear

SECRETS = [
    "sk-abcDEF1234567890abcd",
    "sk-ant-api03-abcdefghijkl_mnop-qrst",
    "sk-proj-aaaaaaaaaaaaaaaaaaaaaaaa",
    "sk_live_abcdefgh12345678",
    "AKIAIOSFODNN7EXAMPLE",
    "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "github_pat_11ABCDEFG0abcdefghijkl",
    "glpat-abcdefghij0123456789",
    "xoxb-1234567890-abcdefghij",
    "AIzaSyA-1234567890abcdefghijklmnopqrstuv",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    *("hvs.CAESIabcdef0123456789", "ntn_abcdefghij0123456789", "figd_abcdefghij0123456789", "sbp_0123456789abcdef0123"),
    *("glsa_abcdefghij0123456789_ab12", "NRAK-ABCDEFGHIJ0123456789", "PMAK-abcdefghij0123456789", "key-" + "0a" * 16),
    *("AGE-SECRET-KEY-1QQPQX0123456789", "dp.pt.abcdefghij0123456789", "xapp-1-A0123456789-abcdef", "dapi" + "0a" * 16),
    *("123456789:AAabcdefghijklmnopqrstuvwxyz0123456", "patAbCdEfGhIjKlMn.0123456789abcdef01234567"),
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKC\n-----END RSA PRIVATE KEY-----",
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("around", ["{}", "key {} end", '{{"error": "bad key {}"}}', "https://host/?q={}&x=1"])
def test_keys_of_known_shape_are_masked_in_any_text(secret, around):
    text = around.format(secret)
    assert secret not in redact_text(text)
    assert "[redacted]" in redact_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer hunter2hunter2",
        'Authorization: "Bearer hunter2hunter2"',
        "curl -H 'Authorization: Basic aHVudGVyMmh1bnRlcjI='",
        "Bearer hunter2hunter2",
        "postgresql+asyncpg://user:hunter2@host/db",
        "redis://:hunter2@host:6379/0",
        "https://user:hun@ter2@host/",
        "password=hunter2",
        "PASSWORD: hunter2",
        "https://host/?api_key=hunter2&x=1",
        '{"db_password": "hunter2 and more", "x": 1}',
        "{'client_secret': 'hunter2'}",
        r"{\"access_token\": \"hunter2\"}",
        r'"password": "hun\"ter2"',
        'cut off in the middle: "password": "hunter2',
        "x-api-key: hunter2",
        "the token => hunter2",
    ],
)
def test_what_a_telling_name_announces_is_masked(text):
    masked = redact_text(text)
    for piece in ("hunter2", "ter2", "aHVudGVy", "and more"):
        assert piece not in masked
    assert "[redacted]" in masked


@pytest.mark.parametrize(
    "text",
    [
        "Basic arithmetic is easy, and bearer bonds are not.",
        "The task-force risk-assessment used 1,200 tokens: 900 in, 300 out.",
        "SELECT carrier, avg(dep_delay) FROM flights WHERE origin = 'JFK'",
        "https://example.org:8080/path?a=b@c",
        "mailto:someone@example.org at 10:30",
        "pk_customer_orders references sk.",
        "max_tokens=50000, input_tokens: 10",
        '{"password": null, "token": ""}',
        "",
    ],
)
def test_ordinary_text_stays_as_it_is(text):
    assert redact_text(text) == text


def test_values_under_secret_names_are_masked_at_any_depth_and_the_data_is_left_alone():
    data = {
        "input": {"headers": [{"Authorization": "Bearer x"}, {"X-Api-Key": "y"}], "apiKey": "z", "pin_secret": 1234},
        "usage": {"input_tokens": 5},
        "password": "",
        "token": None,
        "flag_token": False,
        "nested_credentials": {"user": "u", "pass": "p"},
    }
    before = json.dumps(data)
    assert redact_data(data) == {
        "input": {
            "headers": [{"Authorization": "[redacted]"}, {"X-Api-Key": "[redacted]"}],
            "apiKey": "[redacted]",
            "pin_secret": "[redacted]",
        },
        "usage": {"input_tokens": 5},
        "password": "",
        "token": None,
        "flag_token": False,
        "nested_credentials": "[redacted]",
    }
    assert json.dumps(data) == before


def test_data_that_hold_nothing_to_mask_are_not_made_anew_and_texts_beside_each_other_are_not_one():
    data = {
        "run_id": "0f" * 16,
        "usage": {"input_tokens": 5},
        "items": ["the key", {"text": "to a session"}],
        "at": 0.5,
    }
    assert redact_data(data) is data
    assert redact_data(["the password:", "hunter2 is on the next page"]) == [
        "the password:",
        "hunter2 is on the next page",
    ]
    table = '{"columns":["name","password"],"rows":[["a","hunter2x"]]}'
    assert "hunter2x" not in redact_data({"tool": "sql", "content": table})["content"]
    hidden = {
        "said": "sk-abcDEF12345",
        "more": [1, {"value": "x", "name": "api_key"}, ["token", "abc123def"], ("a", 1)],
    }
    assert redact_data(hidden) == {
        "said": "[redacted]",
        "more": [1, {"value": "[redacted]", "name": "api_key"}, ["token", "[redacted]"], ["a", 1]],
    }


def test_a_table_and_what_a_struct_became_are_looked_at_as_quickly():
    """Events hold both, and nine in ten were masked text by text: 2.5 s of a page of 9,000 events."""
    data = {"attempts": ({"model": "m", "why": ""},), "content": '{"columns":["name","delay"],"rows":[["a",1]]}'}
    assert redact_data(data) is data
    secret = '{"columns":["name","password"],"rows":[["a","hunter2"]]}'
    assert "hunter2" not in str(redact_data({"attempts": ({"content": secret},)}))
    assert redact_data({"pairs": ("password", "hunter2!x")}) == {"pairs": ["password", "[redacted]"]}
    assert redact_data({"run": ("login", "--password", "hunter2!x")}) == {"run": ["login", "--password", "[redacted]"]}


@pytest.mark.parametrize("text", ["correct horse", "ordinary words", SECRETS[0]])
def test_what_was_harmless_once_is_masked_where_it_is_a_secret_and_an_event_is_looked_at_like_its_json(text):
    for given in ({"note": text}, {"password": text}, {"pair": ["password", f"{text} 1x"]}, {"say": [{"it": text}]}):
        event = ToolStarted(at_s=1.0, step=1, run_id="r", seq=3, tool="ask", call_id="c", input=given)
        data = event.to_dict()
        masked = _redacted(data, MAX_DEPTH)  # one by one, as nothing is remembered

        assert redact_data(data) == redact_data(data) == masked
        assert is_harmless(event) == is_harmless(data) == (masked == data)


def test_masking_twice_changes_nothing_more():
    for secret in SECRETS:
        once = redact_text(f"password={secret} api_key: {secret}")
        assert redact_text(once) == once


@pytest.mark.promise("secrets-masked")
@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("OPENAI_KEY=abc123def", "abc123"),
        ("pwd=hunter", "hunter"),
        ("GITHUB_PAT=abc123def", "abc123"),
        ("SharedAccessSignature=abc123def", "abc123"),
        ("jwt: abc123def", "abc123"),
        ("curl -u user:hunter2 http://h", "hunter2"),
        ("curl --user 'user:hunter2' http://h", "hunter2"),
        ("https://hooks.zapier.com/hooks/catch/123456/abc123def/", "abc123"),
        ("pass: hunter2x", "hunter"),
        ("auth=abc123def", "abc123"),
        ("dsn=sqlite3db9x", "db9x"),
        ("session=ab12cd34", "ab12"),
        ("https://opaquetoken@host/", "opaque"),
        ("postgres://u:p/ss@w0rd@h/db", "w0rd"),
        ("postgresql+asyncpg://u:p?s#s@w0rd@h:5432/db", "w0rd"),
        ("AccountName=x;AccountKey=abc+/d==;EndpointSuffix=c", "abc+"),
        ("https://h/x?a=1&sig=abcdef%2B", "abcdef"),
        ("https://h/x?X-Amz-Signature=abcdef", "abcdef"),
        ("prog --password hunter2 -v", "hunter2"),
        ("prog --db-password 'hunter two'", "two"),
        ("prog --api-key=abc", "abc"),
        ("Bearer abcdefghijkl", "abcdef"),
        ("SG.abcdefghijklmnop.qrstuvwxyz0123456789", "abcdef"),
        ("ya29.a0AfH6SMBx-abcd", "SMBx"),
        ("dop_v1_0123456789abcdef0123", "0123"),
        ("r8_abcdefghijklmnop1234", "abcdef"),
        ("https://hooks.slack.com/services/T000/B000/XXXXXXXX", "XXXX"),
        ('{"name": "Authorization", "value": "zzzz yyy"}', "zzzz"),
        ("sk-\x1b[0mabcdefghijklmnop", "abcdef"),
        ("password\x1b[0m=hunter2222", "hunter"),
        ("\x9b31mpassword\x9b0m=hunter2222", "hunter"),
        ("\x9d8;;http://x\x9cpassword\x9d8;;\x9c=hunter2222", "hunter"),
        ("token\u200b=abcdef", "abcdef"),
        ("PASS\u00adWORD=abcd", "abcd"),
        ("to\x00ken=abcdef", "abcdef"),
        ("sk-abcdefgh\u202eijklmnop", "ijkl"),
        ("x-api-key: aaab", "aaab"),
        ("Authorization: token abcdefgh1", "abcdefgh"),
        ("Authorization: DPoP abcdefgh1", "abcdefgh"),
        ("<password>hunter2</password>", "hunter"),
        ("<ns:apiKey>ab12cd34</ns:apiKey>", "ab12"),
        ('<input name="csrf_token" value="ab12cd">', "ab12"),
        ("{'password': b'hunter2'}", "hunter"),
        ("[('Authorization', 'zzzz yyy1')]", "zzzz"),
        ("[b'x-api-key', b'abcdefgh1']", "abcd"),
        ("password -> hunter2", "hunter"),
        ("password\uff1ahunter2", "hunter"),
        ("password%3Dhunter2", "hunter"),
        ("the password is hunter2x", "hunter"),
        ("Passwort: hunter2", "hunter"),
        ("contraseña=hunter2", "hunter"),
        ("пароль: hunter2", "hunter"),
        ("密码：hunter2", "hunter"),
        ("DB_PW=hunter2", "hunter"),
        ("SECRET_KEY_BASE=hunter2", "hunter"),
        ("PASSWORD_2=hunter2", "hunter"),
        ("API_TOKEN_PROD=hunter2", "hunter"),
        ('"API Key": "hunter2"', "hunter"),
        ("https://h/x?key=abcdefghij0123456789", "abcdef"),
        ("https://h/cb?code=abcdefghij0123456789&state=x", "abcdef"),
        ("GOCSPX-abcdefghij0123456789", "abcdef"),
        ("sq0csp-abcdefghij0123456789", "abcdef"),
        ("pcsk_abcdefghij0123456789", "abcdef"),
        ("lsv2_pt_0123456789abcdef0123_01234", "0123456789"),
        ("vercel_blob_rw_abcdefghij0123456789", "abcdef"),
        ("pscale_tkn_abcdefghij0123456789", "abcdef"),
        ("glrt-abcdefghij0123456789", "abcdef"),
        ("SK" + "0a" * 16, "0a0a"),
        ("1//0abcdefghijklmnop-0123456789_a", "abcdef"),
        ("EAAB" + "a1" * 24, "a1a1"),
        ("abcdefghij0123.atlasv1." + "a1" * 24, "a1a1"),
        ("$2b$12$abcdefghijklmnopqrstuvABCDEFGHIJKLMNOPQRSTUVWXYZ01234", "ABCDEF"),
        ("root:$6$saltsalt$abcdefghijklmnop:18000", "abcdef"),
        ('{"kty":"RSA","d":"' + "a1" * 24 + '"}', "a1a1"),
    ],
)
def test_more_shapes_and_names_are_known(text, secret):
    for around in ("{}", "see {} there", "first\n{}\nlast", "\x1b[1m{}\x1b[0m"):
        assert secret not in redact_text(around.format(text))


@pytest.mark.promise("secrets-masked")
def test_secrets_of_commands_files_headers_addresses_and_encodings_are_masked():
    lines = Path(__file__).with_name("secrets.txt").read_text(encoding="utf-8").splitlines()
    texts = [line.replace("⏎", "\n") for line in lines if not line.startswith("#")]
    assert not [text for text in texts if re.search("hunter2|6629fa", redact_text(text))]
    assert "c=d" not in redact_text("Cookie: a=b; sid=x1; c=d")
    assert redact_text(f"seed phrase: {'abandon ' * 12}") == "seed phrase: [redacted] "
    assert redact_text('{"columns":["token"],"rows":[["cut') == '{"columns":["token"],"rows":[["cut'


@pytest.mark.promise("secrets-masked")
@pytest.mark.parametrize(
    ("line", "masked"),
    [
        ("mysql -u root -phunter2x", "mysql -u root -p[redacted]"),
        ("sudo sshpass -p hunter2x ssh h", "sudo sshpass -p [redacted] ssh h"),
        ("curl -u me:hunter2x h", "curl -u me:[redacted] h"),
        ("docker login -u me -p hunter2x", "docker login -u me -p [redacted]"),
        ("/usr/bin/sqlcmd -P hunter2x", "/usr/bin/sqlcmd -P [redacted]"),
        ("htpasswd -b f me hunter2x", "htpasswd -b f me [redacted]"),
        *(
            (line, line)
            for line in ("ssh -p 2222 h", "docker run -p 8080:80 -u 1:1 x", "mkdir -p build", "mysql -p db")
        ),
    ],
)
def test_passwords_of_programs_are_masked_in_lists_of_arguments_too(line, masked):
    assert redact_text(line) == masked
    assert redact_data({"argv": line.split()}) == {"argv": masked.split()}
    assert redact_data(["mysql", "-ptwo words"]) == ["mysql", "-p[redacted]"]


@pytest.mark.promise("secrets-masked")
def test_columns_that_tell_of_a_secret_are_masked_in_a_table():
    table = {"columns": ["me", "password"], "rows": [["x", "hunter2x"], ["y", None]]}
    assert redact_data(table) == {"columns": ["me", "password"], "rows": [["x", "[redacted]"], ["y", None]]}
    assert redact_data({"type": "password", "id": "p", "value": "x"}) == {
        "type": "password",
        "id": "p",
        "value": "[redacted]",
    }


@pytest.mark.promise("secrets-masked")
def test_names_tell_in_data_of_any_shape():
    names = (
        *("OPENAI_KEY", "pwd", "auth", "passwords", "dsn", "session", "dbPass", "apiKey", "X-Amz-Signature", "sig"),
        *("Set-Cookie", "AccountKey", "X-Goog-Api-Key", "access_tokens", "PHPSESSID", "client-secret", "SERVICE_KEY"),
    )
    assert redact_data(dict.fromkeys(names, "xyz")) == dict.fromkeys(names, "[redacted]")
    plain = ("max_tokens", "primary_key", "PRIMARY_KEY", "session_id", "tokens", "author", "key", "keyboard", "compass")
    assert redact_data(dict.fromkeys(plain, "xyz")) == dict.fromkeys(plain, "xyz")
    assert redact_data({"argv": ["x", "--password", "y", "-v", "--api-key", "z"]}) == {
        "argv": ["x", "--password", "[redacted]", "-v", "--api-key", "[redacted]"]
    }
    assert redact_data(
        [{"name": "Authorization", "value": "x"}, ["Cookie", "y"], {"name": "Accept", "value": "*"}]
    ) == [
        {"name": "Authorization", "value": "[redacted]"},
        ["Cookie", "[redacted]"],
        {"name": "Accept", "value": "*"},
    ]
    assert redact_data([{"Name": "password", "Value": "x"}, {"Key": "X-Api-Key", "Value": "y"}]) == [
        {"Name": "password", "Value": "[redacted]"},
        {"Key": "X-Api-Key", "Value": "[redacted]"},
    ]
    assert redact_data({"pair": ["password", "hunter2"], "names": ["password", "username"]}) == {
        "pair": ["password", "[redacted]"],
        "names": ["password", "username"],
    }
    assert redact_data({"sk-abcdefghijklmnop": 1, "sk-abcdefghijklmnoq": 2}) == {"[redacted]": 1, "[redacted]'": 2}


@pytest.mark.parametrize(
    "text",
    [
        "key: value; the session: five people talked; pass: 12, fail: 3",
        "signature: f(x: int) -> str",
        "see --token to pass, use the --password option",
        "Bearer authentication and Bearer certificates are common",
        "ssh://git@github.com/x https://git@github.com/x",
        "mongodb://h1:27017,h2:27017/db?x=a@b",
        "PRIMARY_KEY = id, keyboard=us, author: x1234567, design=abc12345, compass: n0rth123, monkey=abc1234",
        "session: 2026-11-26 10:00",
        "def token(text: str) -> str: the password is wrong, the secret is out, the token is valid until 2026",
        "token_count: 15, token_type: basic, secret_name: x, password_policy: strict, tokens > 5, a > b",
        "required: ['password', 'username'], ('token', 'str')",
        "https://h/x?key=name&code=404 and SKU-12 and EAA members pay $2 or $5 each",
        "if token == other: pass\nassert url.password == 'a word'\nunexpected token '<' at line 3",
        'def f(key: Ed25519PrivateKey | Ed448PrivateKey | None) -> Token:\n    """Words on it."""',
        "a library identified by 'name', the machine learning team, the default login page, a mnemonic: pt means time",
        "- `token`: optional token (`str`); `OPENAI_API_KEY=` is empty, `tiktoken==0.2.0`, ::1:5432:a, 1:2:3:4:5",
        "ps -p 1, ssh -p 22, a %20 b %2F c, response=ok, the mac=address, tokens 1500/4096, token 12",
        "password: required, token: str, credentials: include, name: token\nvalues: 3, auth(user, role)",
        "vault login -method=oidc, snyk auth --help, net use * /delete, net users of h",
        "sort key=price, monkey -> banana, keynote value=5",
        "password=$PASSWORD, password=${DB_PASSWORD}, password = getpass(), password=os.environ['X1'], password: ***",
        "api_key=settings.api_key, | password | string | required |, login('page', 'title'), pw stands for password",
        "login: 2024-01-01 / 10:00, identified by name2, the user (admin1) is one, user/pass: see docs1",
        "\x1b[31mred\x1b[0m \U0001f468\u200d\U0001f469",
    ],
)
def test_more_ordinary_text_stays_as_it_is(text):
    assert redact_text(text) == text


@pytest.mark.promise("secrets-masked")
@pytest.mark.parametrize("secret", ["sk-abcDEF1234567890abcd", 'password="two words, and more"', SECRETS[-1]])
def test_a_long_text_is_masked_where_it_is_cut_in_pieces_too(secret):
    for before in range(PIECE - 60, PIECE + 5, 7):
        masked = redact_text(f"{'x ' * (before // 2)}{secret} {'y ' * PIECE}")
        assert "[redacted]" in masked
        assert secret[9:] not in masked
        assert masked.endswith("y y ")
    unclosed = redact_text(f"{'x ' * PIECE}password='{'s ' * PIECE}")
    assert "s " not in unclosed


@pytest.mark.promise("secrets-masked")
def test_the_start_of_a_text_is_masked_before_it_is_cut():
    text = f"{'x' * 490} sk-abcDEF1234567890abcd"
    assert redact_start(text, 500) == f"{'x' * 490} [redacted"
    assert len(redact_start("x" * 10_000_000, 500)) == 500


PIECES_OF_HOSTILE_TEXT = [
    *(
        "token]",
        "token\n value",
        "auth=('a','",
        "echo a | sudo ",
        "net use \\\\a ",
        "net user a ",
        "xkeysib-0a",
        "t1.aa.",
    ),
    *('token="', "a:", "sk-", "-----BEGIN PRIVATE KEY-----", "-----BEGIN ", "eyJ", "eyJaaaaa-", "http://a:", "x://a:"),
    *("\\", "token", "SG.aaaaaaaaaaaa-", "A_", "A_KEY", "_KEY=", "--a-", "--token ", "Bearer ", "bearer a", "token\\"),
    *("https://aaaaaaaa", "\x1b[", "\x1b]", "\u200b", "token\u200b", 'password="\\', "pwd = ", "token,  ", "sessionid"),
    *(" -u ", " -u a", " --user a:", "key-", "dapi0a", "patAAAAAAAAAAAAAA.", "12345678:AA", "xapp-", "a1:", "JWT_PAT_"),
    *(
        "password>",
        "<token>",
        "token is ",
        "token value=",
        "token,'",
        "1//0",
        "SK0a",
        "$6$",
        "$2b$",
        "?key=",
        "MNO.",
        "EAAB",
    ),
    *(
        "Private-Lines: 1\n",
        '"d":"',
        "a.atlasv1.",
        "webhook.office.com/webhookb2/",
        "token%3D",
        "token\uff1a",
        "_pw=",
        "pw",
    ),
    *("token_1", "password_2_", "mot de ", "[('token', '"),
    *("session is ", "a_key->"),
    *("https://hooks.slack.com/", "a@", "-", "a-a_", "name, ", "--password '"),
    *("mysql -p'", "curl -u a:", "docker login -p ", "machine a login b ", "cookie: a=b; ", "| token | a1 "),
    *(
        "password 1a",
        "a:*:b:",
        "@//",
        "%3A%2F%2Fa%3A",
        "IDENTIFIED WITH a BY ",
        'response="',
        "%70",
        "&quot;token&quot;",
    ),
    *("seed phrase: abc ", "abc ", '{"columns":["token"],"rows":[', "token for a"),
]


@pytest.mark.promise("work-bounded")
@pytest.mark.parametrize("piece", PIECES_OF_HOSTILE_TEXT, ids=ascii)
def test_masking_grows_with_the_text_and_no_faster(piece):
    assert_linear(redact_text, lambda n: piece * (n // len(piece)), start=512)
