"""Which changes of a table by tool calls are recorded, so that a turn can be undone: a property of the table."""

UNDO = "undo"
"""The key of `Table.info` with one of the values below. A change of a table without it cannot be undone."""
ROWS = "rows"
"""Each row is recorded as it was before its change."""
NOT_AN_EFFECT = "not an effect"
"""These are records of the service itself, or versions of artifacts, which stay."""
