"""Drafts of terms that are retired, never to be published."""

import sqlalchemy as sa
from alembic import op

from app.reshape import INSTANT, on_postgresql, rebuild, refuse_on_sqlite

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

NAME = "ck_program_terms_retired_is_draft"
CHECK = "retired_at IS NULL OR published_at IS NULL"
FINAL = "OLD.retired_at IS NOT NULL"
TRIGGERS = {"program_terms_retired": "UPDATE", "program_terms_retired_kept": "DELETE"}
BEFORE = "effective_from VARCHAR(32), "
AFTER = f"{BEFORE}retired_at VARCHAR(32), CONSTRAINT {NAME} CHECK ({CHECK}), "


def upgrade() -> None:
    if on_postgresql():
        op.add_column("program_terms", sa.Column("retired_at", INSTANT, nullable=True))
        op.create_check_constraint(op.f(NAME), "program_terms", CHECK)
        for name, verb in TRIGGERS.items():
            op.execute(
                f"CREATE TRIGGER {name} BEFORE {verb} ON program_terms "
                f"FOR EACH ROW WHEN ({FINAL}) EXECUTE FUNCTION refuse_change()"
            )
        return
    rebuild("program_terms", {BEFORE: AFTER})
    for name, verb in TRIGGERS.items():
        refuse_on_sqlite(name, f"{verb} ON program_terms", f"retired terms are final: {verb} refused", FINAL)


def downgrade() -> None:
    for name in TRIGGERS:
        op.execute(f"DROP TRIGGER {name}" + (" ON program_terms" if on_postgresql() else ""))
    if on_postgresql():
        op.drop_constraint(op.f(NAME), "program_terms", type_="check")
        op.drop_column("program_terms", "retired_at")
        return
    rebuild("program_terms", {AFTER: BEFORE}, drop=("retired_at",))
