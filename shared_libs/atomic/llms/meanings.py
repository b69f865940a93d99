"""
What refusals mean, as data: whose fault it is, and so what is worth doing next.

The first row that fits is the meaning. A further code or wording of any server is a word more in its row. Sources: the
pages on errors of the providers named, and what their servers and imitators were seen to send.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from shared_libs.atomic.errors import (
    AuthenticationFailed,
    BadRequest,
    ContentFiltered,
    ContextOverflow,
    LLMError,
    MalformedResponse,
    ModelNotFound,
    ProviderUnavailable,
    RateLimited,
)
from shared_libs.atomic.llms.reasons import Reason
from shared_libs.atomic.patterns import late

_REFUSED = frozenset({None, *range(400, 500)})
_REQUEST = frozenset({400, 404, 405, 413, 415, 422, 424, 501})
"""The statuses of what is refused for what was asked."""


BODY_TOO_LARGE = 413
"""The status of what is too large for a server or for its limits, and not for the model's window."""


class Meaning(NamedTuple):
    """
    One kind of refusal.

    Args:
        error: the class that says it.
        codes: what a type, code, status or reason of the body may be; counts at every status.
        words: what the reason says; counts at the statuses `at`; None is a status that was never told.
        alone: statuses that say enough without a word.
        retryable: whether the same request may succeed later; None: as the class has it.
        here_only: that another model may well answer, though the class says that it will not.

    """

    error: type[LLMError]
    codes: frozenset[str] = frozenset()
    words: re.Pattern[str] | None = None
    at: frozenset[int | None] = _REFUSED
    alone: frozenset[int | None] = frozenset()
    retryable: bool | None = None
    here_only: bool = False

    def says(self, text: str, status: int | None) -> LLMError:
        """The error for it."""
        error = self.error(text, status_code=status, retryable=self.retryable)
        if self.here_only:
            error.another_may_answer = True
        if isinstance(error, ContextOverflow):
            error.of_the_window = self is not _TOO_LARGE_FOR_RATE and status != BODY_TOO_LARGE
        return error

    def fits(self, status: int | None, reason: Reason) -> bool:
        """Whether this is what a refusal means; a status of None is not known."""
        if self.codes & reason.codes or status in self.alone:
            return True
        return self.words is not None and status in self.at and bool(self.words.search(reason.text))


def _codes(told: str) -> frozenset[str]:
    return frozenset(told.split())


def _words(*told: str) -> re.Pattern[str]:
    return late("|".join(told), re.IGNORECASE)


_FILTER = Meaning(
    ContentFiltered,
    _codes(
        "content_filter content_policy_violation contentpolicyviolationerror data_inspection_failed moderation_blocked "
        "datainspectionfailed bio_policy misalignment_policy_violation image_content_policy_violation flagged_input "
        "responsibleaipolicyviolation moderation_error content_filtered prompt_blocked blocked_by_guardrail "
        "base_resp/1026 base_resp/1027 1301 sensitive_words_detected guardrail_intervened sensitivecontentdetected "
        "censorship_blocked inputtextsensitivecontentdetected outputtextsensitivecontentdetected"
    ),
    _words(
        r"content filter",
        r"content[ _-]?(management )?polic(y|ies)",
        r"content exists risk",
        r"requires moderation",
        r"(input|prompt|output|content|request|message)\b.{0,40}\bflagged|flagged by",
        r"(blocked|rejected|refused)\b.{0,40}\b(safety|moderation|guardrail|filter)",
        r"(safety system|safety (settings|model|filter)|(?<!['\"`])guardrails?)\b",
        r"violat\w+ .{0,40}(usage (polic|guideline)|content|safety|moderation|terms|acceptable use)",
        r"(inappropriate|sensitive|unsafe|harmful|prohibited|high.risk) (content|information|words?)",
        r"敏感(内容|词|信息)|违规|不安全",
        r"\b(prohibited_content|blocklist|new_sensitive|spii)\b",
    ),
    frozenset({None, 400, 403, 406, 422, 451}),
)
_TOO_LONG = Meaning(
    ContextOverflow,
    _codes(
        "context_length_exceeded exceed_context_size_error model_context_window_exceeded contextwindowexceedederror "
        "context_window_exceeded context_too_large prompt_too_long tokens_limit_reached request_too_large "
        "max_context_length_exceeded base_resp/1039 1261 input_too_long"
    ),
    _words(
        r"maximum (context|prompt|input|sequence) length",
        r"context[ _-]?(length|window|size|limit)",
        r"(prompt|input|messages?|conversation|request|context)'?( (text|tokens?|total length))?( is| are|) too "
        r"(long|large|big)(?! image)",
        r"request body too large",
        r"(input|prompt|token count|length|message size)\b.{0,60}\bexceeds? .{0,40}(maximum|max|limit|allowed)",
        r"token count\b.{0,60}\bonly supports",
        r"must (have less|have fewer|have at most|not exceed|be less) .{0,10}\d.{0,20}\btokens",
        r"input tokens must be (no more|at most|less)",
        r"tokens\b.{0,40}must not exceed",
        r"max message tokens|expected maxlength: \d+, actual",
        r"input length should be|max input characters",
        r"exceed\w* (the )?(model'?s? )?(token|input|max_seq_len|n_ctx)[ _]?(limit)?",
        r"too many (input |prompt )?tokens(?!.{0,20}\bwait)",
        r"(number of )?tokens? (in|of) (the|your) (prompt|input|request).{0,60}(exceed|cannot|larger|greater)",
        r"reduce (the |your )?(length|size) of (the |your )?(messages|prompt|input|conversation)",
        r"`?inputs`? tokens \+ `?max_new_tokens`?",
        r"max_seq_len|n_ctx\b|context (the )?overflows?",
        r"\btokens?\b.{0,40}\b(is|are) over\b.{0,20}\d",
        r"excede .{0,30}contexto",
        r"longer than the (maximum|model)|maximum model length|token limit (was |has been |is )?exceeded",
        r"tokens limit exceeded",
        r"(?<!max )(?<!output )(?<!completion )\btokens? .{0,30}exceed\w* (the )?(limit|max)",
        r"(输入|上下文|提示|内容|文本|消息|tokens?).{0,10}(过长|超长|超出|超过)|(超出|超过).{0,10}(上下文|长度)",
        r"payload size exceeds|too large to process",
    ),
    frozenset({None, 400, 413, 422, *range(500, 530)}),
    frozenset({413}),
)
_TOO_LARGE_FOR_RATE = Meaning(ContextOverflow, words=_words(r"request (is )?too large"), at=frozenset({429}))
_MONEY = Meaning(
    RateLimited,
    _codes(
        "insufficient_quota billing_hard_limit_reached billing_not_active billing_error payment_required arrearage "
        "exceeded_current_quota_error budget_exceeded insufficient_balance insufficient_credits credits_exhausted "
        "accountoverdueerror quota_exceeded_monthly usage_limit_reached usage_limit_exceeded subscription_required "
        "personal_monthly_limit token_quota_reached setlimitexceeded pre_consume_token_quota_failed "
        "1113 1304 1308 1309 1310 base_resp/1008 base_resp/2056"
    ),
    _words(
        r"credits? balance|balance.{0,15}(insufficient|too low|not enough|exhausted)|\btop up\b",
        r"(exceeded|used|depleted|exhausted|ran out|run out|out of)\b.{0,40}\bcredits?\b",
        r"credits? .{0,20}(depleted|exhausted|used up)",
        r"\b(no|any|more|of|your|enough|all available|insufficient|purchase|prepaid|remaining) credits?\b",
        r"insufficient[ _](balance|funds|quota|account)",
        r"not enough (balance|funds|quota)|exhausted (its|your|the|all)\b.{0,30}\bquota",
        r"(spend(ing)?|billing|budget|usage|monthly|weekly|daily|plan('s)?|subscription|credit)"
        r"( hard)?[ _-](usage )?(limit|cap|quota)s?\b",
        r"budget (has been |is |was )?exceeded|exceeded (your |its |the )?(team |key |user |max )?budget",
        r"payment (is )?required|overdue|in good standing|余额不足|欠费|in arrears|balance is negative",
        r"(used up|exhausted|exceeded) (your|the|its)\b.{0,30}\busage|out of quota",
        r"\bbudget\b.{0,40}\b(was|is|has been) (exceeded|exhausted|used up)",
        r"(额度|配额|套餐|今日|本月).{0,10}(上限|用完|不足|用尽|耗尽|超出)|exceeded its total limit",
        r"extra usage is required|upgrade (your |to a )?(plan|account|subscription|paid)|over budget",
        r"(per|a) (month|week)\b.{0,40}(limit|quota)|(limit|quota)\b.{0,40}per (month|week)\b",
        r"quota is not enough|key limit exceeded|daily request limit",
    ),
    _REFUSED,
    frozenset({402}),
    retryable=False,
)
_MONEY_WITHOUT_WAIT = Meaning(
    RateLimited,
    words=_words(
        r"current quota|quota .{0,20}(exhausted|used up|depleted)",
        r"\bbilling\b|\bupgrade\b",
        r"free (tier|quota|plan|allocation)|trial key",
        r"\b(per|a)[ _-]?day\b|\bdaily\b|\brpd\b|\btpd\b",
    ),
    retryable=False,
)
"""Google says the same of a minute that is used up, and Groq of a day, and then they tell how long to wait."""
_OF_A_MOMENT = late(r"(per|/) ?(minute|second|min|sec)\b", re.IGNORECASE)
"""A limit that passes, whatever else is said of plans."""
_KEY = Meaning(
    AuthenticationFailed,
    _codes(
        "invalid_api_key api_key_invalid authentication_error unauthenticated unauthorized permission_denied "
        "permission_error invalid_authentication_error incorrect_api_key invalid_token token_expired access_denied "
        "accessdeniedexception unrecognizedclientexception expiredtokenexception account_deactivated "
        "unsupported_country_region_territory auth_error authenticationerror invalidapikey api_key_expired "
        "base_resp/1004 base_resp/2049 authfailure authfailure.secretidnotfound authfailure.signaturefailure "
        "api_key_service_blocked consumer_suspended organization_restricted"
    ),
    _words(
        r"api[ _-]?key\b.{0,40}"
        r"(invalid|not valid|incorrect|wrong|missing|expired|not (be )?found|required|revoked|disabled|exist)",
        r"(provide|supply|missing|without|pass|send|set) (an? |the |your |a valid )?"
        r"(api[ _-]?key|bearer|credential|access token)",
        r"(invalid or )?expired token|(access|security) token\b.{0,30}\b(invalid|expired)|api[ _-]?key is empty",
        r"(invalid|incorrect|wrong|missing|no|expired|unknown) "
        r"(api[ _-]?key|(auth\w*|access|proxy) (key|token)|credential)",
        r"authentication (error|fail)|not authenticated|unauthorized|login fail",
        r"(organization|account|project|user|team|workspace)\b.{0,40}(disabled|suspended|deactivated|restricted|banned)",
        r"(country|region|location)\b.{0,40}not (supported|available|allowed)|noautherror",
        r"(无效|过期|错误|失效).{0,6}(密钥|令牌|api ?key)|(密钥|令牌|api ?key).{0,6}(无效|过期|错误|失效)",
    ),
    frozenset({None, 400, 404, 412, 422}),
    frozenset({401, 403, 407}),
)
_MODEL = Meaning(
    ModelNotFound,
    _codes(
        "model_not_found model_not_available invalid_model modelnotfound model_not_exist not_found_error "
        "model_decommissioned model_not_active deploymentnotfound unsupported_model model_not_supported "
        "base_resp/1211 1211 1220"
    ),
    _words(
        r"invalid model( name|: )|not a valid model|model identifier|unknown model|no such model",
        r"(model|adapter) \S{1,200} (is not supported|does not exist)$",
        r"model (does )?not (exist|found)",
        r"no models? (is |are )?loaded|模型.{0,20}不存在",
        r"model .{1,200} (not found|does not exist|(is|was|has been) "
        r"(not available|decommissioned|deprecated|retired))",
        r"(no|any) (allowed |healthy )?(deployments?|providers?|endpoints?) (available|found)",
        r"no endpoints found|failed to get model|allowed models are",
        r"unexpected endpoint|unknown (endpoint|url)|invalid url|no route|cannot post",
    ),
    frozenset({None, 400, 404, 405, 422}),
    frozenset({404, 405, 410}),
)
_CALL_NOT_MADE = Meaning(
    MalformedResponse,
    _codes("tool_use_failed json_validate_failed json_generation_error output_parse_failed malformed_function_call"),
    _words(
        r"failed to (call a function|generate json|parse (the )?(tool call|input at pos))",
        r"error parsing tool call|as part of tooluse|output that does not match the expected",
        r"model.{0,20}\b(output|generated|produced|returned)\b.{0,20}(not valid json|invalid (json|tool|sequence))",
    ),
    _REQUEST | {None, 500},
    retryable=True,
)
"""The model wrote a call, or a JSON, that its own server could not read: the next try may be better."""
_LIMITED = Meaning(
    RateLimited,
    _codes(
        "rate_limit_error rate_limit_exceeded rate_limited tokens requests resource_exhausted throttlingexception "
        "throttling throttling.ratequota throttling.allocationquota too_many_requests ratelimitreached ratelimiterror "
        "1302 1303 base_resp/1002 concurrency_limit_exceeded slow_down"
    ),
    _words(
        r"rate.?limit|rate exceeded",
        r"too many (requests|concurrent)",
        r"throttl",
        r"concurren\w+ (request )?limit",
    ),
    frozenset({None, 400, 403, 420, 422, 424}),
    frozenset({429}),
)
_BUSY = Meaning(
    ProviderUnavailable,
    _codes(
        "overloaded_error timeout_error overloaded engine_overloaded_error service_unavailable model_loading "
        "serviceunavailableexception model_not_ready modelnotreadyexception deadline_exceeded capacity_exceeded "
        "1305 1234 base_resp/1000 base_resp/1001 base_resp/1013 model_crashed"
    ),
    _words(
        r"loading (the |a )?model|overloaded|over capacity|at capacity|capacity exceeded",
        r"(model|server|service|engine)\b.{0,40}\b(loading|starting|warming|restarting|crashed|busy|unloaded)",
        r"temporarily (unavailable|out of|rate)|(try again|retry) (later|in a|shortly)",
        r"degraded function",
        r"(upstream|internal|gateway)[ _](server )?(error|time)|timed? ?out|queue (is )?full|稍[后後]|繁忙",
    ),
    _REQUEST | {None},
    frozenset({408, 409, 423, 424, 425, 498, 499, 500, *range(502, 600)}),
)
_NOT_THERE = Meaning(ProviderUnavailable, alone=frozenset({501}), retryable=False)
_CANNOT = Meaning(
    BadRequest,
    words=_words(
        r"not supported - hint|requires --|(does not|doesn't) support|unexpected keyword argument",
        r"roles? not supported|roles must alternate|nonetype|'list' object|not \"(list|dict)\"",
        r"invalid json schema|invalid format: |parse grammar",  # Ollama
    ),
    at=frozenset({None, 500, 501}),
    here_only=True,
)
"""A server's own rule that it breaks off at, with a status that says otherwise."""
_ANSWER_TOO_LONG = Meaning(
    BadRequest,
    words=_words(
        r"(?<!\+ `)max(_completion|_output|_new)?_tokens\W{1,3}(must|should|has to) be\b",  # not a sum with the input
        r"(range of|invalid( value for)?|value of) \W?max(_completion|_output|_new)?_tokens",
    ),
    at=_REQUEST,
    here_only=True,
)
"""How long an answer may be asked to be, in words that may name the window too."""
_THIS_MODEL = Meaning(
    BadRequest,
    _codes(
        "unsupported_parameter unsupported_value unknown_parameter extra_forbidden not_supported_error "
        "unsupported_operation invalid_parameter_error unsupportedparamserror data_residency_mismatch 3280 "
        "failed_precondition"
    ),
    _words(
        r"不支持|不允许",
        r"(not|n't|never|isn't|un|only)[ _-]?(yet )?(be )?"
        r"(support|permitt|enabled|implemented|available|allowed for|accept)|supported only|extra_body",
        r"(unknown|unrecognized|unexpected|unrecognised|deprecated|extra|additional) "
        r"(field|param|argument|request arg|key|input|value|keyword|name|propert)",
        r"(this|the|your|selected|chosen|requested) (\S+ )?model\b",
        r"(maximum|max|valid range|at most|greater than|less than|up to|between)\b"
        r".{0,60}(tokens?|max_tokens|temperature|top_p)",
        r"(max_tokens|max_completion_tokens|temperature|top_p|top_k|n_predict|reasoning_effort|budget_tokens)\b",
        r"signature|thought|thinking|reasoning",
        r"roles?\b.{0,60}(alternat|after|must|expected|order)|must have role",
        r"alternat|unexpected role|after role|last role|equal to (the )?number of",
        r"system (message|role|prompt|instruction)",
        r"property (keys?|names?)\b.{0,20}(match|pattern)",
        r"(tools?|function)\b.{0,40}description\b.{0,60}(too long|at most|maximum|exceed|less than)",
        r"'tools'.{0,20}maximum number|grammar is too large",
        r"tool.?(call|use).{0,10}id\b.{0,80}(a-z|length|pattern|format|character|long|invalid)",
        r"tool.?config|without `?tools|`?tools?`?=? (param|must be (set|defined|given))",
        r"tool.?choice|chat template|requires --|no longer (supported|allowed)|response.?format",
        r"should be non-empty for object",
        r"no endpoints|multimodal|image input|vision|invalid provider|please configure|type mismatch of",
        r"image\b.{0,40}(exceeds|maximum|max|limit|at most)|at most \d+ image",
        r"function\.name|unexpected `|trailing whitespace",
        r"function (call|response) turn|expected an id\b|items? (with id|are not persisted)",
        r"streaming is (required|mandatory)|too many tools|array_above_max|'tools'.{0,20}too long",
    ),
    _REQUEST,
    frozenset(range(401, 500)) - {422},
    here_only=True,
)
"""A server's own rules: another one has others; and what it says of its address, its certificate or our headers."""
_REFUSED_AS_SUCH = Meaning(
    BadRequest,
    _codes(
        "base_resp/2013 10163 invalid_request_error invalid_prompt invalid_argument validationexception bad_request "
        "invalid_image invalid_image_format invalid_base64_image invalid_image_url invalid_image_mode image_too_large "
        "image_too_small image_parse_error image_file_too_large empty_image_file unsupported_image_media_type "
        "failed_to_download_image image_file_not_found"
    ),
    alone=frozenset(range(400, 500)),
)

_MEANINGS = (
    _FILTER,
    _TOO_LARGE_FOR_RATE,
    _MONEY,
    _CALL_NOT_MADE,
    Meaning(RateLimited, alone=frozenset({429})),
    _ANSWER_TOO_LONG,
    _TOO_LONG,
    _MODEL,
    _LIMITED,
    _KEY,
    _CANNOT,
    _NOT_THERE,
    _BUSY,
    _THIS_MODEL,
    _REFUSED_AS_SUCH,
)
_LIMIT_AND_ASKED = late(r"limit:? (\d[\d,]*),.{0,40}requested:? (\d[\d,]*)", re.IGNORECASE)


def meaning_of(status: int | None, reason: Reason, wait_s: float | None) -> Meaning:
    """
    Return what a refusal means; a status of None is one that was never told.

    Args:
        status: the HTTP status.
        reason: what the provider says.
        wait_s: seconds that it asks to wait, which says that it will answer then.

    """
    if _asks_too_much(reason.text):
        return _TOO_LARGE_FOR_RATE
    passes = _OF_A_MOMENT.search(reason.text)
    if wait_s is None and status in {403, 429} and not passes and _MONEY_WITHOUT_WAIT.fits(status, reason):
        return _MONEY_WITHOUT_WAIT
    if any(code.startswith("quota/") and "perday" in code for code in reason.codes):
        return _MONEY_WITHOUT_WAIT
    return next((meaning for meaning in _MEANINGS if meaning.fits(status, reason)), _BUSY)


def _asks_too_much(text: str) -> bool:
    """Whether a request alone is larger than all that a minute allows: no wait will help."""
    found = _LIMIT_AND_ASKED.search(text)
    return found is not None and int(found[2].replace(",", "")) > int(found[1].replace(",", ""))
