"""The artifact type `generated_file`. The column is plain text, so the schema does not change.

A native enum of PostgreSQL would have needed `ALTER TYPE artifact_type ADD VALUE 'generated_file'`. That value cannot
be used in the transaction that adds it, cannot be removed again, and replicas of the previous release would fail to
read it. This revision records from when on the value can occur.
"""

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None
compatible_with = "0003"


def upgrade() -> None:
    """Nothing to do: a new value of a text column needs no DDL."""


def downgrade() -> None:
    """Nothing to do: rows of the type stay readable as text."""
