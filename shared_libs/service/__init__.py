"""Agents, model chains and runs over HTTP: `create_app` makes the application, `serve` runs it."""

from typing import TYPE_CHECKING

from shared_libs.lazy import lazy

if TYPE_CHECKING:
    from shared_libs.service.app import create_app
    from shared_libs.service.server import serve
    from shared_libs.service.settings import load_settings

_HOMES = {"create_app": "app", "load_settings": "settings", "serve": "server"}

__all__ = ["create_app", "load_settings", "serve"]

__getattr__ = lazy(__name__, _HOMES)
