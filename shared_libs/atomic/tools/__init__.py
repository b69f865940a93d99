"""Tools: the port every action of an agent passes."""

from shared_libs.atomic.tools.base import BaseTool
from shared_libs.atomic.tools.dependencies import Deps
from shared_libs.atomic.tools.function_tool import FunctionTool, tool
from shared_libs.atomic.tools.toolset import Toolset

__all__ = ["BaseTool", "Deps", "FunctionTool", "Toolset", "tool"]
