"""The wire formats a fault server speaks, by name."""

from shared_libs.testing.faults.formats.anthropic_messages import AnthropicMessages
from shared_libs.testing.faults.formats.base import WireFormat
from shared_libs.testing.faults.formats.embeddings import OllamaEmbeddings, OpenAIEmbeddings
from shared_libs.testing.faults.formats.ollama_chat import OllamaChat
from shared_libs.testing.faults.formats.openai_chat import OpenAIChat
from shared_libs.testing.faults.formats.openai_responses import OpenAIResponses

FORMATS: dict[str, WireFormat] = {
    "openai": OpenAIChat(),
    "anthropic": AnthropicMessages(),
    "ollama": OllamaChat(),
    "openai-responses": OpenAIResponses(),
    "openai-embeddings": OpenAIEmbeddings(),
    "ollama-embeddings": OllamaEmbeddings(),
}
