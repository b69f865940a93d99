"""The service's own routes."""

from shared_libs.atomic.loading import needs

needs("fastapi", "the service")
