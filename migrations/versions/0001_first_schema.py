"""The first schema: clients, programmes, members, transactions, the ledger, the journal, and what protects them.

Every constraint is named, so that lists of them can be compared. Facts are append-only by trigger on both engines:
UPDATE, DELETE, TRUNCATE, upserts and INSERT OR REPLACE are refused.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = postgresql.TIMESTAMP(timezone=True).with_variant(sa.String(32), "sqlite")
DOCUMENT = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")

APPEND_ONLY: dict[str, list[tuple[str, ...]]] = {
    "journal_posting": [("id",)],
    "point_entry": [("member_id", "id"), ("member_id", "number")],
    "transaction": [("id",)],
    "transaction_claim": [("id",), ("transaction_id",)],
}
"""Tables whose rows never change, with the unique keys by which a REPLACE could hit an old row."""

LOT_FACTS = (
    "member_id, id, entry_id, granted, available_from, expires_at, cohort_id, currency, allocated, residue, expected, "
    "document_id, occurred_at, recorded_at"
)
"""Everything of a lot but what remains of it."""


# Tables of facts have no rowid on SQLite: it is one more key by which INSERT OR REPLACE could hit an old row.


def upgrade() -> None:
    op.create_table(
        "idempotency_key",
        sa.Column("client_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("status", WHOLE, nullable=True),
        sa.Column("media_type", sa.Text(), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("client_id", "key", name="pk_idempotency_key"),
    )
    op.create_index("ix_idempotency_key_created_at", "idempotency_key", ["created_at"])
    op.create_table(
        "outbox",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("program_id", sa.Uuid(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("member_id", sa.Uuid(), nullable=True),
        sa.Column("payload", DOCUMENT, nullable=False),
        sa.Column("recorded_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
    )
    op.create_table(
        "program",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_program"),
        sa.UniqueConstraint("code", name="uq_program_code"),
    )
    op.create_table(
        "account",
        sa.Column("program_id", sa.Uuid(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.CheckConstraint("kind IN ('A', 'L', 'I', 'X')", name=op.f("ck_account_kind")),
        sa.ForeignKeyConstraint(["program_id"], ["program.id"], name="fk_account_program_id"),
        sa.PrimaryKeyConstraint("program_id", "code", name="pk_account"),
        sa.UniqueConstraint("program_id", "role", name="uq_account_program_id_role"),
    )
    op.create_table(
        "client",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("program_id", sa.Uuid(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("stores", DOCUMENT, nullable=True),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.CheckConstraint("kind IN ('terminal', 'partner', 'staff')", name=op.f("ck_client_kind")),
        sa.ForeignKeyConstraint(["program_id"], ["program.id"], name="fk_client_program_id"),
        sa.PrimaryKeyConstraint("id", name="pk_client"),
    )
    op.create_table(
        "cohort",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("program_id", sa.Uuid(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("month", sa.Date(), nullable=False),
        sa.Column("funding", sa.Text(), nullable=False),
        sa.Column("estimate_class", sa.Text(), nullable=False),
        sa.Column("allocated", WHOLE, nullable=False),
        sa.Column("residue", WHOLE, nullable=False),
        sa.Column("issued", WHOLE, nullable=False),
        sa.Column("expected", WHOLE, nullable=False),
        sa.CheckConstraint("allocated >= 0", name=op.f("ck_cohort_allocated_not_negative")),
        sa.CheckConstraint("issued >= 0", name=op.f("ck_cohort_issued_not_negative")),
        sa.ForeignKeyConstraint(["program_id"], ["program.id"], name="fk_cohort_program_id"),
        sa.PrimaryKeyConstraint("id", name="pk_cohort"),
        sa.UniqueConstraint(
            "program_id",
            "currency",
            "month",
            "funding",
            "estimate_class",
            name="uq_cohort_program_id_currency_month_funding_estimate_class",
        ),
    )
    op.create_table(
        "cohort_change",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("cohort_id", sa.Uuid(), nullable=False),
        sa.Column("program_id", sa.Uuid(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("month", sa.Date(), nullable=False),
        sa.Column("funding", sa.Text(), nullable=False),
        sa.Column("estimate_class", sa.Text(), nullable=False),
        sa.Column("allocated", WHOLE, nullable=False),
        sa.Column("residue", WHOLE, nullable=False),
        sa.Column("issued", WHOLE, nullable=False),
        sa.Column("expected", WHOLE, nullable=False),
        sa.Column("recorded_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["program_id"], ["program.id"], name="fk_cohort_change_program_id"),
        sa.PrimaryKeyConstraint("id", name="pk_cohort_change"),
    )
    op.create_index("ix_cohort_change_cohort_id", "cohort_change", ["cohort_id"])
    op.create_table(
        "member",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("program_id", sa.Uuid(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("enrolled_at", INSTANT, nullable=False),
        sa.Column("revision", WHOLE, nullable=False),
        sa.CheckConstraint(
            "status IN ('active', 'earn_only', 'spend_only', 'suspended', 'closed')", name=op.f("ck_member_status")
        ),
        sa.ForeignKeyConstraint(["program_id"], ["program.id"], name="fk_member_program_id"),
        sa.PrimaryKeyConstraint("id", name="pk_member"),
    )
    op.create_index("ix_member_program_id_id", "member", ["program_id", "id"])
    op.create_table(
        "program_terms",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("program_id", sa.Uuid(), nullable=False),
        sa.Column("version", WHOLE, nullable=False),
        sa.Column("revision", WHOLE, nullable=False),
        sa.Column("terms", DOCUMENT, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("published_at", INSTANT, nullable=True),
        sa.Column("effective_from", INSTANT, nullable=True),
        sa.CheckConstraint(
            "(published_at IS NULL) = (effective_from IS NULL)", name=op.f("ck_program_terms_published_has_start")
        ),
        sa.ForeignKeyConstraint(["program_id"], ["program.id"], name="fk_program_terms_program_id"),
        sa.PrimaryKeyConstraint("id", name="pk_program_terms"),
        sa.UniqueConstraint("program_id", "effective_from", name="uq_program_terms_program_id_effective_from"),
        sa.UniqueConstraint("program_id", "version", name="uq_program_terms_program_id_version"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "api_key",
        sa.Column("public_id", sa.Text(), nullable=False),
        sa.Column("client_id", sa.Uuid(), nullable=False),
        sa.Column("secret_hash", sa.Text(), nullable=False),
        sa.Column("scopes", DOCUMENT, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("expires_at", INSTANT, nullable=True),
        sa.Column("revoked_at", INSTANT, nullable=True),
        sa.ForeignKeyConstraint(["client_id"], ["client.id"], name="fk_api_key_client_id"),
        sa.PrimaryKeyConstraint("public_id", name="pk_api_key"),
    )
    op.create_index("ix_api_key_client_id", "api_key", ["client_id"])
    op.create_table(
        "journal_posting",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("program_id", sa.Uuid(), nullable=False),
        sa.Column("debit", sa.Text(), nullable=False),
        sa.Column("credit", sa.Text(), nullable=False),
        sa.Column("amount", WHOLE, nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("cohort_id", sa.Uuid(), nullable=True),
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("occurred_at", INSTANT, nullable=False),
        sa.Column("recorded_at", INSTANT, nullable=False),
        sa.Column("period", sa.Date(), nullable=False),
        sa.CheckConstraint(
            "(cause = 'accrual') = (cohort_id IS NOT NULL)", name=op.f("ck_journal_posting_accrual_has_cohort")
        ),
        sa.CheckConstraint("cause IN ('sale', 'accrual')", name=op.f("ck_journal_posting_cause")),
        sa.CheckConstraint("amount > 0", name=op.f("ck_journal_posting_amount_positive")),
        sa.CheckConstraint("debit <> credit", name=op.f("ck_journal_posting_two_accounts")),
        sa.ForeignKeyConstraint(
            ["program_id", "credit"],
            ["account.program_id", "account.code"],
            name="fk_journal_posting_program_id_credit",
        ),
        sa.ForeignKeyConstraint(
            ["program_id", "debit"], ["account.program_id", "account.code"], name="fk_journal_posting_program_id_debit"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_journal_posting"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_journal_posting_document_id", "journal_posting", ["document_id"])
    op.create_index("ix_journal_posting_program_id_id", "journal_posting", ["program_id", "id"])
    op.create_index("ix_journal_posting_program_id_period", "journal_posting", ["program_id", "period"])
    op.create_table(
        "member_identifier",
        sa.Column("program_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.CheckConstraint("kind IN ('card', 'phone', 'email', 'partner')", name=op.f("ck_member_identifier_kind")),
        sa.ForeignKeyConstraint(
            ["member_id"], ["member.id"], name="fk_member_identifier_member_id", initially="DEFERRED", deferrable=True
        ),
        sa.ForeignKeyConstraint(["program_id"], ["program.id"], name="fk_member_identifier_program_id"),
        sa.PrimaryKeyConstraint("program_id", "kind", "value", name="pk_member_identifier"),
    )
    op.create_index("ix_member_identifier_member_id", "member_identifier", ["member_id"])
    op.create_table(
        "member_profile",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("language", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["member_id"], ["member.id"], name="fk_member_profile_member_id"),
        sa.PrimaryKeyConstraint("member_id", name="pk_member_profile"),
    )
    op.create_table(
        "point_account",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("program_id", sa.Uuid(), nullable=False),
        sa.Column("available", WHOLE, nullable=False),
        sa.Column("held", WHOLE, nullable=False),
        sa.Column("pending", WHOLE, nullable=False),
        sa.Column("debt", WHOLE, nullable=False),
        sa.Column("qualifying", WHOLE, nullable=False),
        sa.Column("lifetime", WHOLE, nullable=False),
        sa.Column("last_entry", WHOLE, nullable=False),
        sa.Column("next_due_at", INSTANT, nullable=True),
        sa.CheckConstraint("available >= 0", name=op.f("ck_point_account_available_not_negative")),
        sa.CheckConstraint("debt >= 0", name=op.f("ck_point_account_debt_not_negative")),
        sa.CheckConstraint("held <= available", name=op.f("ck_point_account_held_at_most_available")),
        sa.CheckConstraint("held >= 0", name=op.f("ck_point_account_held_not_negative")),
        sa.CheckConstraint("last_entry >= 0", name=op.f("ck_point_account_last_entry_not_negative")),
        sa.CheckConstraint("lifetime >= 0", name=op.f("ck_point_account_lifetime_not_negative")),
        sa.CheckConstraint("pending >= 0", name=op.f("ck_point_account_pending_not_negative")),
        sa.CheckConstraint("qualifying >= 0", name=op.f("ck_point_account_qualifying_not_negative")),
        sa.ForeignKeyConstraint(["member_id"], ["member.id"], name="fk_point_account_member_id"),
        sa.ForeignKeyConstraint(["program_id"], ["program.id"], name="fk_point_account_program_id"),
        sa.PrimaryKeyConstraint("member_id", name="pk_point_account"),
    )
    op.create_table(
        "transaction",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("program_id", sa.Uuid(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("external_id", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("member_id", sa.Uuid(), nullable=True),
        sa.Column("enrolled", sa.Boolean(), nullable=False),
        sa.Column("terms_id", sa.Uuid(), nullable=False),
        sa.Column("store", sa.Text(), nullable=True),
        sa.Column("occurred_at", INSTANT, nullable=False),
        sa.Column("recorded_at", INSTANT, nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("total", WHOLE, nullable=False),
        sa.Column("points", WHOLE, nullable=False),
        sa.Column("claimable", WHOLE, nullable=False),
        sa.Column("content", DOCUMENT, nullable=False),
        sa.Column("reasons", DOCUMENT, nullable=False),
        sa.Column("shares", DOCUMENT, nullable=False),
        sa.CheckConstraint("type IN ('purchase')", name=op.f("ck_transaction_type")),
        sa.CheckConstraint("member_id IS NOT NULL OR points = 0", name=op.f("ck_transaction_guest_has_no_points")),
        sa.CheckConstraint(
            "member_id IS NULL OR claimable = 0", name=op.f("ck_transaction_member_has_nothing_claimable")
        ),
        sa.CheckConstraint("points >= 0", name=op.f("ck_transaction_points_not_negative")),
        sa.CheckConstraint("total >= 0", name=op.f("ck_transaction_total_not_negative")),
        sa.ForeignKeyConstraint(["member_id"], ["member.id"], name="fk_transaction_member_id"),
        sa.ForeignKeyConstraint(["program_id"], ["program.id"], name="fk_transaction_program_id"),
        sa.ForeignKeyConstraint(["terms_id"], ["program_terms.id"], name="fk_transaction_terms_id"),
        sa.PrimaryKeyConstraint("id", name="pk_transaction"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_transaction_member_id", "transaction", ["member_id"])
    op.create_index("ix_transaction_program_id_id", "transaction", ["program_id", "id"])
    op.create_table(
        "point_entry",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("number", WHOLE, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("points", WHOLE, nullable=False),
        sa.Column("balance_after", WHOLE, nullable=False),
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("occurred_at", INSTANT, nullable=False),
        sa.Column("recorded_at", INSTANT, nullable=False),
        sa.CheckConstraint("kind IN ('accrual')", name=op.f("ck_point_entry_kind")),
        sa.CheckConstraint("balance_after >= 0", name=op.f("ck_point_entry_balance_after_not_negative")),
        sa.CheckConstraint("number > 0", name=op.f("ck_point_entry_number_positive")),
        sa.CheckConstraint("points <> 0", name=op.f("ck_point_entry_points_not_zero")),
        sa.ForeignKeyConstraint(["member_id"], ["point_account.member_id"], name="fk_point_entry_member_id"),
        sa.PrimaryKeyConstraint("member_id", "id", name="pk_point_entry"),
        sa.UniqueConstraint("member_id", "number", name="uq_point_entry_member_id_number"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "transaction_claim",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("transaction_id", sa.Uuid(), nullable=False),
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("points", WHOLE, nullable=False),
        sa.Column("recorded_at", INSTANT, nullable=False),
        sa.CheckConstraint("points >= 0", name=op.f("ck_transaction_claim_points_not_negative")),
        sa.ForeignKeyConstraint(["member_id"], ["member.id"], name="fk_transaction_claim_member_id"),
        sa.ForeignKeyConstraint(["transaction_id"], ["transaction.id"], name="fk_transaction_claim_transaction_id"),
        sa.PrimaryKeyConstraint("id", name="pk_transaction_claim"),
        sa.UniqueConstraint("transaction_id", name="uq_transaction_claim_transaction_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_transaction_claim_member_id", "transaction_claim", ["member_id"])
    op.create_table(
        "transaction_key",
        sa.Column("program_id", sa.Uuid(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("external_id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("transaction_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(["program_id"], ["program.id"], name="fk_transaction_key_program_id"),
        sa.ForeignKeyConstraint(
            ["transaction_id"],
            ["transaction.id"],
            name="fk_transaction_key_transaction_id",
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.PrimaryKeyConstraint("program_id", "source", "external_id", "type", name="pk_transaction_key"),
        sa.UniqueConstraint("transaction_id", name="uq_transaction_key_transaction_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "lot",
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("entry_id", sa.Uuid(), nullable=False),
        sa.Column("granted", WHOLE, nullable=False),
        sa.Column("remaining", WHOLE, nullable=False),
        sa.Column("available_from", INSTANT, nullable=False),
        sa.Column("expires_at", INSTANT, nullable=True),
        sa.Column("cohort_id", sa.Uuid(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("allocated", WHOLE, nullable=False),
        sa.Column("residue", WHOLE, nullable=False),
        sa.Column("expected", WHOLE, nullable=False),
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("occurred_at", INSTANT, nullable=False),
        sa.Column("recorded_at", INSTANT, nullable=False),
        sa.CheckConstraint("allocated >= 0", name=op.f("ck_lot_allocated_not_negative")),
        sa.CheckConstraint("expected BETWEEN 0 AND granted * 1000000", name=op.f("ck_lot_expected_within_granted")),
        sa.CheckConstraint("expires_at > available_from", name=op.f("ck_lot_expires_after_available")),
        sa.CheckConstraint("granted > 0", name=op.f("ck_lot_granted_positive")),
        sa.CheckConstraint("remaining BETWEEN 0 AND granted", name=op.f("ck_lot_remaining_within_granted")),
        sa.CheckConstraint("residue BETWEEN -1000000 AND 1000000", name=op.f("ck_lot_residue_within_one_unit")),
        sa.ForeignKeyConstraint(
            ["member_id", "entry_id"], ["point_entry.member_id", "point_entry.id"], name="fk_lot_member_id_entry_id"
        ),
        sa.ForeignKeyConstraint(["member_id"], ["point_account.member_id"], name="fk_lot_member_id"),
        sa.PrimaryKeyConstraint("member_id", "id", name="pk_lot"),
        sa.UniqueConstraint("member_id", "entry_id", name="uq_lot_member_id_entry_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_lot_cohort_id", "lot", ["cohort_id"])
    op.create_index("ix_lot_document_id", "lot", ["document_id"])
    op.create_index(
        "ix_lot_member_id_expires_at",
        "lot",
        ["member_id", "expires_at"],
        postgresql_where=sa.text("remaining > 0"),
        sqlite_where=sa.text("remaining > 0"),
    )
    if op.get_bind().dialect.name == "postgresql":
        _protect_on_postgresql()
    else:
        _protect_on_sqlite()


def downgrade() -> None:
    op.drop_index(
        "ix_lot_member_id_expires_at",
        table_name="lot",
        postgresql_where=sa.text("remaining > 0"),
        sqlite_where=sa.text("remaining > 0"),
    )
    op.drop_index("ix_lot_document_id", table_name="lot")
    op.drop_index("ix_lot_cohort_id", table_name="lot")
    op.drop_table("lot")
    op.drop_table("transaction_key")
    op.drop_index("ix_transaction_claim_member_id", table_name="transaction_claim")
    op.drop_table("transaction_claim")
    op.drop_table("point_entry")
    op.drop_index("ix_transaction_program_id_id", table_name="transaction")
    op.drop_index("ix_transaction_member_id", table_name="transaction")
    op.drop_table("transaction")
    op.drop_table("point_account")
    op.drop_table("member_profile")
    op.drop_index("ix_member_identifier_member_id", table_name="member_identifier")
    op.drop_table("member_identifier")
    op.drop_index("ix_journal_posting_program_id_period", table_name="journal_posting")
    op.drop_index("ix_journal_posting_program_id_id", table_name="journal_posting")
    op.drop_index("ix_journal_posting_document_id", table_name="journal_posting")
    op.drop_table("journal_posting")
    op.drop_index("ix_api_key_client_id", table_name="api_key")
    op.drop_table("api_key")
    op.drop_table("program_terms")
    op.drop_index("ix_member_program_id_id", table_name="member")
    op.drop_table("member")
    op.drop_index("ix_cohort_change_cohort_id", table_name="cohort_change")
    op.drop_table("cohort_change")
    op.drop_table("cohort")
    op.drop_table("client")
    op.drop_table("account")
    op.drop_table("program")
    op.drop_table("outbox")
    op.drop_index("ix_idempotency_key_created_at", table_name="idempotency_key")
    op.drop_table("idempotency_key")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION refuse_change()")
        op.execute("DROP FUNCTION refuse_unkeying()")


def _protect_on_postgresql() -> None:
    op.execute(
        """
        CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'restrict_violation';
        END $$
        """
    )
    for table in APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        )
    for table in [*APPEND_ONLY, "lot", "program_terms", "transaction_key"]:
        op.execute(
            f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
    op.execute(
        "CREATE TRIGGER program_terms_published BEFORE UPDATE OR DELETE ON program_terms "
        "FOR EACH ROW WHEN (OLD.published_at IS NOT NULL) EXECUTE FUNCTION refuse_change()"
    )
    op.execute(
        f"CREATE TRIGGER lot_facts BEFORE UPDATE OF {LOT_FACTS} ON lot FOR EACH ROW EXECUTE FUNCTION refuse_change()"
    )
    op.execute("CREATE TRIGGER lot_kept BEFORE DELETE ON lot FOR EACH ROW EXECUTE FUNCTION refuse_change()")
    op.execute(
        "CREATE TRIGGER transaction_key_fixed BEFORE UPDATE ON transaction_key "
        "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
    )
    op.execute(
        """
        CREATE FUNCTION refuse_unkeying() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF EXISTS (SELECT 1 FROM transaction WHERE id = OLD.transaction_id) THEN
                RAISE EXCEPTION 'a recorded transaction keeps its key' USING ERRCODE = 'restrict_violation';
            END IF;
            RETURN OLD;
        END $$
        """
    )
    op.execute(
        "CREATE TRIGGER transaction_key_kept BEFORE DELETE ON transaction_key "
        "FOR EACH ROW EXECUTE FUNCTION refuse_unkeying()"
    )


def _protect_on_sqlite() -> None:
    for table, keys in APPEND_ONLY.items():
        _refuse_on_sqlite(f"{table}_no_update", f'UPDATE ON "{table}"', f"{table} is append-only: UPDATE refused")
        _refuse_on_sqlite(f"{table}_no_delete", f'DELETE ON "{table}"', f"{table} is append-only: DELETE refused")
        for number, key in enumerate(keys):
            _refuse_replace_on_sqlite(table, number, key)
    published = "OLD.published_at IS NOT NULL"
    for verb in ("UPDATE", "DELETE"):
        name = f"program_terms_no_{verb.lower()}"
        _refuse_on_sqlite(name, f"{verb} ON program_terms", f"published terms are final: {verb} refused", published)
    for number, key in enumerate([("id",), ("program_id", "version"), ("program_id", "effective_from")]):
        _refuse_replace_on_sqlite("program_terms", number, key, "published_at IS NOT NULL")
    _refuse_on_sqlite("lot_facts", f"UPDATE OF {LOT_FACTS} ON lot", "a lot's facts are append-only: UPDATE refused")
    _refuse_on_sqlite("lot_kept", "DELETE ON lot", "lot is append-only: DELETE refused")
    _refuse_replace_on_sqlite("lot", 0, ("member_id", "id"))
    _refuse_replace_on_sqlite("lot", 1, ("member_id", "entry_id"))
    _refuse_on_sqlite("transaction_key_fixed", "UPDATE ON transaction_key", "a key is final: UPDATE refused")
    recorded = 'EXISTS (SELECT 1 FROM "transaction" WHERE id = OLD.transaction_id)'
    _refuse_on_sqlite(
        "transaction_key_kept", "DELETE ON transaction_key", "a recorded transaction keeps its key", recorded
    )


def _refuse_on_sqlite(name: str, what: str, message: str, when: str = "1") -> None:
    message = message.replace("'", "''")
    op.execute(f"CREATE TRIGGER {name} BEFORE {what} WHEN {when} BEGIN SELECT RAISE(ABORT, '{message}'); END")


def _refuse_replace_on_sqlite(table: str, number: int, key: tuple[str, ...], which: str = "1") -> None:
    """INSERT OR REPLACE deletes the old row without its delete trigger unless recursive_triggers is on, which another
    tool's connection may not have: so the insert itself looks."""
    same = " AND ".join(f"{column} = NEW.{column}" for column in key)
    exists = f'EXISTS (SELECT 1 FROM "{table}" WHERE {same} AND {which})'
    _refuse_on_sqlite(f"{table}_no_replace_{number}", f'INSERT ON "{table}"', f"{table} has that row: refused", exists)
