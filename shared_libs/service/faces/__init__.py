"""The wires other clients speak: OpenAI's, Anthropic's, MCP, and those of rerankers."""

from shared_libs.atomic.loading import needs

needs("fastapi", "the service")
