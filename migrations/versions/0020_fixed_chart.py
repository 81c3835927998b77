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
    if on_postgresql():
        names, where = ["append_only", "no_truncate"], " ON account"
    else:
        names, where = ["no_update", "no_delete", *(f"no_replace_{number}" for number in range(len(KEYS)))], ""
    for name in names:
        op.execute(f"DROP TRIGGER account_{name}{where}")
