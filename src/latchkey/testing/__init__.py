"""What the tests of an app import: the laws that every app must keep, and a user of the served app.

pytest loads the fixtures by itself, because this distribution registers them as a plugin: `latchkey_service`,
`latchkey_user`, `latchkey_other_user` and `latchkey_examples`.
"""

from latchkey.testing.laws import AppLaws
from latchkey.testing.service import Service, ToolResult, User

__all__ = ["AppLaws", "Service", "ToolResult", "User"]
