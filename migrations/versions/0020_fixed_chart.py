"""The accounts of a chart never change: postings name them, and processes keep them."""

from alembic import op

from app.reshape import append_only, on_postgresql

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

KEYS = ("program_id", "code"), ("program_id", "role")


def upgrade() -> None:
    append_only("account", *KEYS)


def downgrade() -> None:
    names = ("append_only", "no_truncate") if on_postgresql() else ("no_update", "no_delete")
    for name in (*names, *(f"no_replace_{number}" for number in range(0 if on_postgresql() else len(KEYS)))):
        op.execute(f"DROP TRIGGER account_{name}" + (" ON account" if on_postgresql() else ""))
