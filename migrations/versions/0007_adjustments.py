"""Who is behind a client; adjustments with their approval; concessions on purchases."""

import sqlalchemy as sa
from alembic import op

from app.reshape import INSTANT, WHOLE, append_only, execute, fixed, on_postgresql, rebuild, refuse_on_sqlite

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

PERSON = "person IS NOT NULL OR (role IS NULL AND member_id IS NULL)"
CLIENT = {
    "created_at VARCHAR(32) NOT NULL, ": "created_at VARCHAR(32) NOT NULL, person TEXT, role TEXT, member_id CHAR(32), "
    f"CONSTRAINT ck_client_role_is_of_person CHECK ({PERSON}), "
    "CONSTRAINT fk_client_member_id FOREIGN KEY(member_id) REFERENCES member (id), ",
}
CLASSES = (
    "'goodwill', 'sign_up', 'referral', 'promotion', 'correction', 'concession', 'debt_write_off', 'extension', "
    "'reinstatement'"
)
CHECKS = {
    "class": f"class IN ({CLASSES})",
    "status": "status IN ('waiting', 'applied', 'rejected')",
    "points_not_zero": "points <> 0",
    "only_corrections_take": "points > 0 OR class = 'correction'",
    "concession_has_order": "(class = 'concession') = (order_id IS NOT NULL)",
    "consent_is_to_concession": "consented_at IS NULL OR class = 'concession'",
    "lot_classes_have_lot": "(class IN ('extension', 'reinstatement')) = (lot_id IS NOT NULL)",
    "lot_has_expiry": "(lot_id IS NULL) = (expires_at IS NULL)",
    "ended_has_who_and_when": (
        "(status = 'waiting') = (ended_at IS NULL) AND (ended_at IS NULL) = (ended_by IS NULL) "
        "AND (ended_at IS NULL) = (ended_person IS NULL)"
    ),
    "applied_has_terms": "(status = 'applied') = (terms_id IS NOT NULL)",
    "rejection_has_reason": "ended_reason IS NULL OR status = 'rejected'",
    "only_approvals_wait": "needs_approval OR status = 'applied'",
    "two_persons": "NOT needs_approval OR ended_person IS NULL OR ended_person <> requested_person",
}
FACTS = (
    "id, program_id, member_id, class, points, reason, note, order_id, consented_at, lot_id, expires_at, "
    "needs_approval, requested_by, requested_person, requested_at"
)


def upgrade() -> None:
    if on_postgresql():
        execute(
            [
                "ALTER TABLE client ADD COLUMN person text, ADD COLUMN role text, ADD COLUMN member_id uuid, "
                f"ADD CONSTRAINT ck_client_role_is_of_person CHECK ({PERSON}), "
                "ADD CONSTRAINT fk_client_member_id FOREIGN KEY (member_id) REFERENCES member (id)"
            ]
        )
    else:
        rebuild("client", CLIENT)
    _create_adjustment()
    op.create_table(
        "transaction_concession",
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("purchase_id", sa.Uuid(), nullable=False),
        sa.Column("price_left", WHOLE, nullable=False),
        sa.Column("recorded_at", INSTANT, nullable=False),
        sa.CheckConstraint("price_left > 0", name=op.f("ck_transaction_concession_price_left_positive")),
        sa.ForeignKeyConstraint(["purchase_id"], ["transaction.id"], name="fk_transaction_concession_purchase_id"),
        sa.PrimaryKeyConstraint("document_id", name="pk_transaction_concession"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_transaction_concession_purchase_id", "transaction_concession", ["purchase_id"])
    append_only("transaction_concession", ("document_id",))


def downgrade() -> None:
    op.drop_table("transaction_concession")
    op.drop_table("adjustment")
    if on_postgresql():
        op.execute("ALTER TABLE client DROP COLUMN member_id, DROP COLUMN role, DROP COLUMN person")
    else:
        rebuild("client", {new: old for old, new in CLIENT.items()}, drop=("person", "role", "member_id"))


def _create_adjustment() -> None:
    op.create_table(
        "adjustment",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("program_id", sa.Uuid(), nullable=False),
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("class", sa.Text(), nullable=False),
        sa.Column("points", WHOLE, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("order_id", sa.Uuid(), nullable=True),
        sa.Column("consented_at", INSTANT, nullable=True),
        sa.Column("lot_id", sa.Uuid(), nullable=True),
        sa.Column("expires_at", INSTANT, nullable=True),
        sa.Column("needs_approval", sa.Boolean(), nullable=False),
        sa.Column("requested_by", sa.Uuid(), nullable=False),
        sa.Column("requested_person", sa.Text(), nullable=False),
        sa.Column("requested_at", INSTANT, nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("ended_by", sa.Uuid(), nullable=True),
        sa.Column("ended_person", sa.Text(), nullable=True),
        sa.Column("ended_at", INSTANT, nullable=True),
        sa.Column("ended_reason", sa.Text(), nullable=True),
        sa.Column("terms_id", sa.Uuid(), nullable=True),
        *(sa.CheckConstraint(sql, name=op.f(f"ck_adjustment_{name}")) for name, sql in CHECKS.items()),
        sa.ForeignKeyConstraint(["program_id"], ["program.id"], name="fk_adjustment_program_id"),
        sa.ForeignKeyConstraint(["member_id"], ["member.id"], name="fk_adjustment_member_id"),
        sa.ForeignKeyConstraint(["order_id"], ["transaction.id"], name="fk_adjustment_order_id"),
        sa.ForeignKeyConstraint(
            ["member_id", "lot_id"], ["lot.member_id", "lot.id"], name="fk_adjustment_member_id_lot_id"
        ),
        sa.ForeignKeyConstraint(["requested_by"], ["client.id"], name="fk_adjustment_requested_by"),
        sa.ForeignKeyConstraint(["ended_by"], ["client.id"], name="fk_adjustment_ended_by"),
        sa.ForeignKeyConstraint(["terms_id"], ["program_terms.id"], name="fk_adjustment_terms_id"),
        sa.PrimaryKeyConstraint("id", name="pk_adjustment"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_adjustment_program_id_id", "adjustment", ["program_id", "id"])
    op.create_index("ix_adjustment_member_id", "adjustment", ["member_id"])
    fixed("adjustment", FACTS, ("id",))
    ended = "OLD.status <> 'waiting'"
    if on_postgresql():
        op.execute(
            f"CREATE TRIGGER adjustment_ended BEFORE UPDATE ON adjustment FOR EACH ROW WHEN ({ended}) "
            "EXECUTE FUNCTION refuse_change()"
        )
    else:
        refuse_on_sqlite("adjustment_ended", "UPDATE ON adjustment", "an adjustment ends once: UPDATE refused", ended)
