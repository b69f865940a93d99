"""`factory faults`: served to a client that nobody here wrote, until a signal comes."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket

import openai
import pytest

from shared_libs.testing.faults.catalogue import CATALOGUE
from tests.unit.cli.conftest import PATIENCE_S

MESSAGES = [{"role": "user", "content": "Say it again."}]


def ask(url, model, **options):
    with openai.OpenAI(api_key="sk-secret-key", base_url=url, **options) as client:
        return client.chat.completions.create(model=model, messages=MESSAGES).choices[0].message.content


def line(process):
    return json.loads(process.stdout.readline())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_faults_are_served_until_a_signal_and_summed_up(factory, number, code):
    (factory.folder / "faults.yaml").write_text(
        "primary: [{fault: rate_limited, retry_after_s: 0.01}]\nbad: {fault: server_error, status: 503}\n"
    )
    with factory.start("faults", "--script", "faults.yaml") as process:
        listening = line(process)
        url = listening["urls"]["openai"]
        assert (listening["type"], listening["model"]) == ("listening", None)
        assert url.startswith("http://127.0.0.1:")
        assert ask(url, "primary") == "Say it again."
        with pytest.raises(openai.InternalServerError):
            ask(url, "bad", max_retries=0)
        with pytest.raises(openai.NotFoundError, match="there are primary, bad"):
            ask(url, "other", max_retries=0)
        told = [line(process) for _ in range(4)]
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (code, b"")
    assert [(row["type"], row.get("model"), row.get("attempt"), row.get("fault")) for row in told] == [
        ("request", "primary", 1, "rate_limited"),
        ("request", "primary", 2, "healthy"),
        ("request", "bad", 1, "server_error"),
        ("unexpected", None, None, None),
    ]
    assert told[-1]["what"] == "POST /v1/chat/completions for model 'other'; there are primary, bad"
    counted = [
        {"model": "bad", "fault": "server_error", "requests": 1},
        {"model": "primary", "fault": "healthy", "requests": 1},
        {"model": "primary", "fault": "rate_limited", "requests": 1},
    ]
    assert json.loads(out) == {"type": "summary", "requests": counted, "handshakes": 0}
    assert "secret" not in str(told)


def test_faults_of_the_command_line_are_for_every_model(factory):
    with factory.start("faults", "--fault", "server_error", "cut") as process:
        url = line(process)["urls"]["openai"]
        for model in ("a", "b"):
            assert ask(url, model, max_retries=2) == "Say it again."
        assert [line(process)["fault"] for _ in range(6)] == ["server_error", "cut", "healthy"] * 2
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_S)


def test_cases_of_real_servers_are_played_by_their_name(factory):
    with factory.start("faults", "--case", "plain-whole") as process:
        url = line(process)["urls"]["openai"]
        assert ask(url, "m", max_retries=0) == "Hello"
        assert line(process)["fault"] == "wire_case"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_S)


def test_a_fault_of_the_address_has_a_url_of_its_own(factory):
    with factory.start("faults", "--fault", "untrusted_certificate") as process:
        shared, own = line(process), line(process)
        assert shared["urls"]["openai"].startswith("http:")
        assert (own["model"], own["urls"]["openai"].partition(":")[0]) == ("*", "https")
        with pytest.raises(openai.APIConnectionError):
            ask(own["urls"]["openai"], "m", max_retries=0)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=PATIENCE_S)
    assert json.loads(out) == {"type": "summary", "requests": [], "handshakes": 1}


def test_a_person_sees_rows_and_a_summary(factory):
    """On a terminal: a pseudo one, which hands Ctrl-C through as a key."""
    ours, theirs = pty.openpty()
    with factory.start("faults", "--fault", "rate_limited", stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        seen = read_until(ours, "Ctrl-C ends")
        url = re.search(r"(http://127\.0\.0\.1:\d+/v1)  openai, openai-responses, openai-embeddings", seen)[1]
        with pytest.raises(openai.RateLimitError):
            ask(url, "gpt-\x1b[31m5", max_retries=0)
        seen = read_until(ours, "rate_limited")
        assert re.search(r"s  gpt-5 +1  openai +whole +rate_limited", seen), seen
        process.send_signal(signal.SIGINT)
        seen = read_until(ours, "rate_limited")
        process.wait(PATIENCE_S)
    os.close(ours)
    assert re.search(r"requests\s+1  gpt-5 +rate_limited", seen), seen
    assert "Traceback" not in seen
    assert process.returncode == 130


def read_until(terminal, words):
    seen = ""
    while words not in seen:
        seen += os.read(terminal, 65536).decode()
    return seen


def test_the_catalogue_is_listed(factory):
    code, out, err = factory("faults", "--list")
    rows = [json.loads(row) for row in out.splitlines()]
    assert (code, err) == (0, "")
    assert [row["fault"] for row in rows] == list(CATALOGUE)
    assert all(row["description"].endswith(".") for row in rows)
    by_name = {row["fault"]: row["parameters"] for row in rows}
    assert by_name["rate_limited"] == {"retry_after_s": None}
    assert by_name["slow_first_token"] == {"delay_s": 12.0, "answer": {}}


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--fault", "sillence"], "there is no fault 'sillence'; allowed: "),
        (["--case", "tc-no-index"], "there is no case 'tc-no-index' of a real server: is it tc-no-index-no-id"),
        (["--script", "gone.yaml"], "gone.yaml: there is no such file"),
        (["--port", "70000"], "a port is a number up to 65535, not '70000'"),
        (["--fault", "cut", "--list"], "not allowed with argument"),
        (["--host", "203.0.113.1"], "203.0.113.1:0 cannot be listened on"),
    ],
)
def test_a_mistake_is_one_message(factory, arguments, why):
    code, out, err = factory("faults", *arguments)
    assert (code, out) == (2, "")
    assert why in err
    assert "Traceback" not in err


def test_a_port_that_is_taken_is_named(factory):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, err = factory("faults", "--port", str(port))
    assert code == 2
    assert f"127.0.0.1:{port} cannot be listened on" in err


def test_whoever_reads_may_leave(factory):
    with factory.start("faults") as process:
        url = line(process)["urls"]["openai"]
        process.stdout.close()
        assert ask(url, "m") == "Say it again."
        assert process.wait(PATIENCE_S) == 1
        assert process.stderr.read() == b""
