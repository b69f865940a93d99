"""What a refusal means: status, error object and headers become facts."""

from __future__ import annotations

import json

import pytest

from shared_libs.atomic.errors import (
    AuthenticationFailed,
    BadRequest,
    ContentFiltered,
    ContextOverflow,
    ModelNotFound,
    ProviderUnavailable,
    RateLimited,
)
from shared_libs.atomic.llms.faults import error_event, refusal
from shared_libs.atomic.llms.reasons import MAX_REASON_CHARS
from shared_libs.atomic.llms.waits import retry_after_s, wait_told

KEY = "sk-verysecret0123456789"
WHERE = "http://127.0.0.1:1/v1/chat/completions"


def openai_error(message="no", code=None, kind="invalid_request_error"):
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def anthropic_error(kind, message="no"):
    return {"type": "error", "error": {"type": kind, "message": message}}


@pytest.mark.parametrize(
    ("status", "body", "kind", "retryable"),
    [
        (400, openai_error(), BadRequest, False),
        (400, openai_error(code="context_length_exceeded"), ContextOverflow, False),
        (400, {"message": "This model's maximum context length is 4096 tokens", "code": 400}, ContextOverflow, False),
        (
            400,
            anthropic_error("invalid_request_error", "prompt is too long: 9 tokens > 8 maximum"),
            ContextOverflow,
            False,
        ),
        (400, {"error": {"code": 400, "type": "exceed_context_size_error", "message": "x"}}, ContextOverflow, False),
        (400, openai_error(code="content_filter"), ContentFiltered, False),
        (400, openai_error(code="content_policy_violation"), ContentFiltered, False),
        (400, openai_error("x is not a valid model ID"), ModelNotFound, False),
        (400, anthropic_error("invalid_request_error", "Your credit balance is too low"), RateLimited, False),
        (401, openai_error(code="invalid_api_key"), AuthenticationFailed, False),
        (403, openai_error(), AuthenticationFailed, False),
        (403, openai_error(code="model_not_found"), ModelNotFound, False),
        (404, openai_error(code="model_not_found"), ModelNotFound, False),
        (404, {"error": "model 'x' not found, try pulling it first"}, ModelNotFound, False),
        (404, b"<html><title>404 Not Found</title>", ModelNotFound, False),
        (402, {"error": {"message": "Insufficient Balance", "code": 402}}, RateLimited, False),
        (408, b"", ProviderUnavailable, True),
        (409, openai_error(), ProviderUnavailable, True),
        (413, anthropic_error("request_too_large"), ContextOverflow, False),
        (422, {"detail": [{"loc": ["body"], "msg": "field required"}]}, BadRequest, False),
        (425, b"", ProviderUnavailable, True),
        (429, openai_error(code="rate_limit_exceeded"), RateLimited, True),
        (429, openai_error("too many tokens, see the context limit"), RateLimited, True),
        (429, openai_error(code="insufficient_quota"), RateLimited, False),
        (500, openai_error(), ProviderUnavailable, True),
        (501, b"", ProviderUnavailable, False),
        (503, b"upstream connect error", ProviderUnavailable, True),
        (529, anthropic_error("overloaded_error"), ProviderUnavailable, True),
        (307, b"", ProviderUnavailable, False),
    ],
)
def test_a_refusal_becomes_its_facts(status, body, kind, retryable):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    error = refusal(status, {"location": "http://elsewhere/"}, raw, (), WHERE)
    assert type(error) is kind
    assert error.retryable is retryable
    assert error.status_code == status
    assert str(error).startswith(f"HTTP {status}: ")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (openai_error("too\n  big"), "HTTP 500: too big"),
        (b"<html><head><title>500 Oh\nno</title></head><body>" + b"x" * 9000, "HTTP 500: 500 Oh no"),
        (b"<html><body><h1>503 Service Unavailable</h1>\nNo server is available.", "HTTP 500: 503 Service Unavailable"),
        (b"<!DOCTYPE html><title>Error</title><pre>Cannot POST /v1/chat</pre>", "HTTP 500: Cannot POST /v1/chat"),
        (b'event: error\ndata: {"error": {"message": "boom"}}\n\n', "HTTP 500: boom"),
        (b"", "HTTP 500: without a reason"),
        (b"\xff\xfe", "HTTP 500: \ufffd\ufffd"),
        ([{"error": {"message": "in a list"}}], "HTTP 500: in a list"),
        (None, "HTTP 500: without a reason"),
        ({"error": None}, "HTTP 500: without a reason"),
        ({"error": {"message": {"deep": 1}}}, 'HTTP 500: {"deep":1}'),
    ],
)
def test_the_text_is_the_providers_own_reason_and_short(body, text):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    assert str(refusal(500, {}, raw, (), WHERE)) == text


def test_a_long_reason_is_cut():
    assert len(str(refusal(500, {}, b"x" * 100_000, (), WHERE))) < MAX_REASON_CHARS + 50


def test_the_key_is_never_repeated():
    body = f"Incorrect API key provided: {KEY}; you sent plain-secret, or sk-abc*****wxyz".encode()
    assert str(refusal(401, {}, body, (KEY, "plain-secret"), WHERE)) == (
        "HTTP 401: Incorrect API key provided: [key]; you sent [key], or [key]"
    )


def test_a_wrong_address_is_named():
    assert WHERE in str(refusal(404, {}, b"", (), WHERE))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "20"}, 20.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "Wed Oct 21 07:28:05 2015", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 5.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "later"}, None),
    ],
)
def test_the_wait_a_provider_asks_for(headers, seconds):
    assert retry_after_s(headers) == seconds


def test_a_provider_may_say_whether_a_retry_helps():
    assert not refusal(500, {"x-should-retry": "false"}, b"", (), WHERE).retryable
    assert refusal(404, {"x-should-retry": "true"}, b"", (), WHERE).retryable
    assert not refusal(400, {"x-should-retry": "true"}, b"", (), WHERE).retryable


@pytest.mark.parametrize(
    ("event", "kind", "status"),
    [
        ({"error": {"message": "busy", "type": "server_error", "code": None}}, ProviderUnavailable, None),
        ({"error": {"message": "busy", "code": 429}}, RateLimited, 429),
        ({"error": {"message": "busy", "code": "502"}}, ProviderUnavailable, 502),
        ({"object": "error", "message": "bad", "code": 400}, BadRequest, 400),
        ({"error": {"message": "maximum context length", "type": "invalid_request_error"}}, ContextOverflow, None),
        (anthropic_error("overloaded_error"), ProviderUnavailable, None),
        (anthropic_error("rate_limit_error"), RateLimited, None),
        ({"error": "out of memory"}, ProviderUnavailable, None),
        ({"error": {"code": "content_filter", "message": "x"}}, ContentFiltered, None),
        ({"type": "error", "code": "bio_policy", "message": "x"}, ContentFiltered, None),
        ({"type": "error", "code": "invalid_image_url", "message": "x"}, BadRequest, None),
    ],
)
def test_an_error_inside_an_answer_is_read_alike(event, kind, status):
    error = error_event(json.dumps(event).encode(), ())
    assert type(error) is kind
    assert error.status_code == status


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ("Please try again in 1.8s.", 1.8),
        ("Please try again in 1m2s. Visit the page.", 62.0),
        ("in 20 seconds", 20.0),
        ("retry after 16s", 16.0),
        ("Please retry in 34.074824224s.", 34.074824224),
        ("Try again in 6ms", 0.006),
        ("available again in 2 minutes and 5 seconds", 125.0),
        ("please wait 1h2m3.5s", 3723.5),
        ("retry_after: 7", 7.0),
        ("10 requests in 60 seconds are allowed", None),
        ("Try again later. Limit 300", None),
        ("resets at 2026-12-01", None),
        ("resets at 12:30", None),
        ("retry 3 times", None),
    ],
)
def test_the_wait_in_words(words, seconds):
    assert wait_told({}, words=words) == seconds


def test_a_moment_is_read_by_the_servers_own_clock():
    date = "Thu, 26 Nov 2026 10:00:00 GMT"
    moment = 1_795_687_200
    assert wait_told({"x-ratelimit-reset": str(moment * 1000 + 5000), "date": date}) == 5.0
    assert wait_told({"retry-after": str(moment + 7), "date": date}) == 7.0


def test_a_limit_that_is_not_used_up_asks_for_no_wait():
    assert wait_told({"x-ratelimit-remaining-tokens": "5", "x-ratelimit-reset-tokens": "9s"}) is None


def test_only_a_limit_of_the_window_says_which_models_are_too_small():
    assert refusal(400, {}, b"maximum context length is 4096 tokens", (), WHERE).of_the_window
    assert not refusal(429, {}, b"Request too large. Limit 30, Requested 45", (), WHERE).of_the_window
    assert not refusal(413, {}, b"", (), WHERE).of_the_window
