"""A server that fails as it is told, for any client; what clients see of each fault is its catalogue."""
