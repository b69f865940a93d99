"""Scripts of a fault server as YAML: what they mean, and what is said of what they must not."""

from __future__ import annotations

import pytest

from shared_libs.atomic.errors import ConfigError
from shared_libs.atomic.types import ToolCall
from shared_libs.testing import Cut, Flapping, Healthy, RateLimited, Silence, TlsFailure, load_fault_script
from shared_libs.testing.faults.catalogue import CATALOGUE, WireCase


@pytest.fixture
def read(tmp_path):
    def load(text):
        file = tmp_path / "faults.yaml"
        file.write_text(text)
        return load_fault_script(file)

    return load


def test_a_model_has_one_fault_or_a_list(read):
    assert read(
        """
primary:
  - rate_limited
  - {fault: rate_limited, retry_after_s: 1}
  - fault: cut
    reset: true
    answer: {text: Half of this., tool_calls: [{id: call_1, name: look, arguments: {q: x}}]}
down: {fault: flapping, down_s: 2}
tls: tls_failure
well: []
"*": silence
"""
    ) == {
        "primary": [
            RateLimited(),
            RateLimited(retry_after_s=1),
            Cut(reset=True, answer=Healthy("Half of this.", (ToolCall("call_1", "look", {"q": "x"}),))),
        ],
        "down": Flapping(down_s=2),
        "tls": TlsFailure(),
        "well": [],
        "*": Silence(),
    }


def test_a_case_of_a_real_server_is_all_of_its_answers(read):
    script = read(
        """
one: {fault: wire_case, case: re-signature-of-reasoning-back}
forms: [{fault: wire_case, case: finish-first-chunk}]
second: {fault: wire_case, case: re-signature-of-reasoning-back, answer: 1}
"""
    )
    assert script["one"] == [WireCase("re-signature-of-reasoning-back", number) for number in range(3)]
    assert script["second"] == WireCase("re-signature-of-reasoning-back", 1)
    assert [fault.case for fault in script["forms"]] == [
        f"finish-first-chunk[{form}]" for form in ("empty-text", "reasoning", "nothing")
    ]


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_fault_can_be_named(read, name):
    assert read(f"m: {name}")["m"] == CATALOGUE[name]()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", ":1:1: the file is empty"),
        (
            "m: {fault: wire_case, case: finish-first-chunks}",
            "m.case: there is no case 'finish-first-chunks' of a real server: is it finish-first-chunk",
        ),
        ("m: {fault: wire_case, case: finish-first-chunk, answer: 7}", "there is no case 'finish-first-chunk'"),
        ("- silence", ":1:1: must be a mapping of at least one model's name"),
        ("m: 5", ":1:4: m: must be a fault's name, or a mapping with the key 'fault'"),
        ("m: {delay_s: 5}", ":1:4: m: must be a fault's name, or a mapping with the key 'fault'"),
        ("m: [silence, rate_limitd]", ":1:14: m[1]: there is no fault 'rate_limitd'"),
        ("m: {fault: sillence}", ":1:12: m.fault: there is no fault 'sillence'"),
        ("m: {fault: cut, after: 3}", ":1:17: m.after: cut takes no such key; allowed: after_bytes, answer, reset"),
        ("m: {fault: silence, x: 3}", ":1:21: m.x: silence takes no such key; nothing is allowed here"),
        ("m: {fault: cut, after_bytes: many}", ":1:30: m.after_bytes: must be a whole number or null, and is text"),
        ("m: {fault: cut, answer: {text: 3}}", ":1:32: m.answer.text: must be text or null, and is a whole number"),
        ("m: {fault: drip, every_s: -1}", ":1:4: m: drip: every_s must not be negative, and is -1"),
        ("m: {fault: flapping, up_s: 0, down_s: 0}", "down_s and up_s must not both be 0"),
        ("m: [healthy, tls_failure]", ":1:14: m[1]: tls_failure is a fault of the address: it must stand alone"),
        ("m: silence\nm: cut", ":2:1: m: the key stands twice"),
    ],
)
def test_a_mistake_is_told_with_its_place(read, text, problem):
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert problem in str(caught.value)


def test_the_nearest_name_is_offered_and_every_mistake_told(read):
    with pytest.raises(ConfigError) as caught:
        read("a: sillence\nb: {fault: cut, afterbytes: 3}")
    first, second = caught.value.problems
    assert first.endswith("did you mean 'silence'?")
    assert second.endswith("did you mean 'after_bytes'?")
