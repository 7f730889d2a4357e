"""The shared service, for what is tried on every wire."""

from tests.integration.http.conftest import ada, bob, service

__all__ = ["ada", "bob", "service"]
