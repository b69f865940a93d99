"""The wires other clients speak: OpenAI's, Anthropic's, MCP, and those of rerankers."""
