"""What rerankers answer: many shapes of one score a text, and what is none of them."""

from __future__ import annotations

import json

import pytest

from shared_libs.atomic.errors import LLMError, MalformedResponse
from shared_libs.atomic.llms.rerank_llm import read_scores

GOOD = [0.9, 0.1, 0.5]
ROWS = list(enumerate(GOOD))

SHAPES = {
    "Cohere, best first": {"results": [{"index": at, "relevance_score": GOOD[at]} for at in (0, 2, 1)]},
    "Jina": {"model": "j", "results": [{"index": at, "relevance_score": s, "document": {}} for at, s in ROWS]},
    "Voyage": {"object": "list", "data": [{"index": at, "relevance_score": s} for at, s in ROWS]},
    "TEI": [{"index": at, "score": s, "text": "x"} for at, s in ROWS],
    "vLLM": {"data": [{"index": at, "score": s, "object": "score"} for at, s in ROWS]},
    "NVIDIA": {"rankings": [{"index": at, "logit": s} for at, s in ROWS]},
    "Vertex": {"records": [{"id": str(at), "score": s} for at, s in ROWS]},
    "Bedrock": {"results": [{"index": at, "relevanceScore": s} for at, s in ROWS]},
    "DashScope": {"output": {"results": [{"index": at, "relevance_score": s} for at, s in ROWS]}, "request_id": "x"},
    "indexes as texts": {"results": [{"index": str(at), "relevance_score": str(s)} for at, s in ROWS]},
    "indexes as floats": {"results": [{"index": float(at), "relevance_score": s} for at, s in ROWS]},
    "no index": {"results": [{"relevance_score": s} for s in GOOD]},
    "scores": {"scores": GOOD},
    "numbers": GOOD,
    "sentence-transformers": [{"corpus_id": at, "score": GOOD[at]} for at in (0, 2, 1)],
    "named by the document": {"results": [{"document_index": at, "score": GOOD[at]} for at in (0, 2, 1)]},
    "labels": [{"label": "LABEL_0", "score": s} for s in GOOD],
}

WRONG = {
    "one": {"results": [{"index": 0, "relevance_score": 0.9}]},
    "doubled": {"results": [{"index": at, "relevance_score": 0.9} for at in (0, 0, 1)]},
    "from one": {"results": [{"index": at + 1, "relevance_score": s} for at, s in ROWS]},
    "from below": {"results": [{"index": at - 1, "relevance_score": s} for at, s in ROWS]},
    "no scores": {"results": [{"index": at, "relevance_score": None} for at, _ in ROWS]},
    "some without an index": {"results": [{"relevance_score": 0.9}, *({"index": at, "score": 1} for at in (1, 2))]},
    "halves": {"results": [{"index": at + 0.5, "score": s} for at, s in ROWS]},
    "truths": {"scores": [True, False, True]},
    "too many": {"scores": [*GOOD, 1.0]},
    "nothing": {"results": []},
    "best first, and of which text nobody knows": {"results": [{"text": "x", "score": GOOD[at]} for at in (0, 2, 1)]},
    "words": {"output": {"results": "none"}},
    "other": {"detail": "Not Found"},
}


@pytest.mark.parametrize("answer", SHAPES.values(), ids=SHAPES)
def test_scores_are_read_in_the_order_of_the_texts(answer):
    assert read_scores(json.dumps(answer).encode(), 3, []) == GOOD


@pytest.mark.parametrize("answer", WRONG.values(), ids=WRONG)
def test_what_is_not_one_score_a_text_is_no_answer(answer):
    with pytest.raises(MalformedResponse):
        read_scores(json.dumps(answer).encode(), 3, [])


def test_a_refusal_is_told():
    with pytest.raises(LLMError, match="too long"):
        read_scores(b'{"error": {"message": "too long"}}', 3, [])
