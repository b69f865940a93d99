"""The wire formats a fault server speaks, by name."""

from shared_libs.testing.formats.anthropic_messages import AnthropicMessages
from shared_libs.testing.formats.base import WireFormat
from shared_libs.testing.formats.ollama_chat import OllamaChat
from shared_libs.testing.formats.openai_chat import OpenAIChat

FORMATS: dict[str, WireFormat] = {
    "openai": OpenAIChat(),
    "anthropic": AnthropicMessages(),
    "ollama": OllamaChat(),
}
