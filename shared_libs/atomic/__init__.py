"""The bricks: messages, errors, deadlines, events, and the four ports (LLM, tool, memory, evaluator)."""

from typing import TYPE_CHECKING

from shared_libs.lazy import lazy

if TYPE_CHECKING:
    from shared_libs.atomic.budget import Budget
    from shared_libs.atomic.deadline import Deadline
    from shared_libs.atomic.errors import (
        ConfigError,
        FactoryError,
        LLMError,
        MemoryConflict,
        MemoryStoreError,
        MemoryUnavailable,
        MisuseError,
        ToolError,
    )
    from shared_libs.atomic.evaluators.base import BaseEvaluator, Evaluation
    from shared_libs.atomic.llms.base import BaseLLMWrapper
    from shared_libs.atomic.memory.base import BaseMemory, InProcessMemory
    from shared_libs.atomic.memory.compaction import Compaction
    from shared_libs.atomic.resilience.policy import Breaker, RateLimit, Resilience, Retry
    from shared_libs.atomic.scope import current_deadline, current_scope
    from shared_libs.atomic.tools import BaseTool, Deps, tool
    from shared_libs.atomic.types import (
        Attempt,
        ImagePart,
        LLMChunk,
        LLMResponse,
        Message,
        Price,
        TextPart,
        Thinking,
        ToolCall,
        ToolResult,
        ToolSpec,
        Usage,
    )

_HOMES = {
    "Attempt": "types",
    "BaseEvaluator": "evaluators.base",
    "BaseLLMWrapper": "llms.base",
    "BaseMemory": "memory.base",
    "BaseTool": "tools",
    "Breaker": "resilience.policy",
    "Budget": "budget",
    "Compaction": "memory.compaction",
    "ConfigError": "errors",
    "Deadline": "deadline",
    "Deps": "tools",
    "Evaluation": "evaluators.base",
    "FactoryError": "errors",
    "ImagePart": "types",
    "InProcessMemory": "memory.base",
    "LLMChunk": "types",
    "LLMError": "errors",
    "LLMResponse": "types",
    "MemoryConflict": "errors",
    "MemoryStoreError": "errors",
    "MemoryUnavailable": "errors",
    "Message": "types",
    "MisuseError": "errors",
    "Price": "types",
    "RateLimit": "resilience.policy",
    "Resilience": "resilience.policy",
    "Retry": "resilience.policy",
    "TextPart": "types",
    "Thinking": "types",
    "ToolCall": "types",
    "ToolError": "errors",
    "ToolResult": "types",
    "ToolSpec": "types",
    "Usage": "types",
    "current_deadline": "scope",
    "current_scope": "scope",
    "tool": "tools",
}

__all__ = [
    "Attempt",
    "BaseEvaluator",
    "BaseLLMWrapper",
    "BaseMemory",
    "BaseTool",
    "Breaker",
    "Budget",
    "Compaction",
    "ConfigError",
    "Deadline",
    "Deps",
    "Evaluation",
    "FactoryError",
    "ImagePart",
    "InProcessMemory",
    "LLMChunk",
    "LLMError",
    "LLMResponse",
    "MemoryConflict",
    "MemoryStoreError",
    "MemoryUnavailable",
    "Message",
    "MisuseError",
    "Price",
    "RateLimit",
    "Resilience",
    "Retry",
    "TextPart",
    "Thinking",
    "ToolCall",
    "ToolError",
    "ToolResult",
    "ToolSpec",
    "Usage",
    "current_deadline",
    "current_scope",
    "tool",
]

__getattr__ = lazy(__name__, _HOMES)
