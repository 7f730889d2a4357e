from latchkey.testing.laws import AppLaws as AppLaws
from latchkey.testing.service import Service as Service
from latchkey.testing.service import ToolResult as ToolResult
from latchkey.testing.service import User as User
