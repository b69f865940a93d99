"""Evaluators: judge an answer."""

from shared_libs.atomic.evaluators.base import BaseEvaluator, Evaluation
from shared_libs.atomic.evaluators.checks import Contains, ExactMatch, JSONSchemaMatch, NumericMatch, ToolTrajectory
from shared_libs.atomic.evaluators.judge import LLMJudge

__all__ = [
    "BaseEvaluator",
    "Contains",
    "Evaluation",
    "ExactMatch",
    "JSONSchemaMatch",
    "LLMJudge",
    "NumericMatch",
    "ToolTrajectory",
]
