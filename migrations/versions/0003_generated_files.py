"""The type `generated_file` joins `brd`: a checkpoint, for the column is plain text and takes it as it is.

With PostgreSQL's native enum this would have been `ALTER TYPE artifact_type ADD VALUE 'generated_file'`, which
cannot be used in the transaction that adds it and cannot be taken back; and replicas of the release before would
have failed to read the first such row. The history says from which revision on the value may appear.
"""

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing to do: there is no DDL for a value of a text column."""


def downgrade() -> None:
    """Nothing to do: rows of the type stay readable as text."""
