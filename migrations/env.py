"""Runs migrations on the engine it is given (`app.schema`)."""

from alembic import context

from app.accounting import models as accounting_models
from app.adjustments import models as adjustments_models
from app.campaigns import models as campaigns_models
from app.clients import models as clients_models
from app.db import Base
from app.holds import models as holds_models
from app.idempotency import IdempotencyRecord
from app.ledger import models as ledger_models
from app.members import models as members_models
from app.outbox import OutboxEvent
from app.programs import models as programs_models
from app.redemptions import models as redemptions_models
from app.stamps import models as stamps_models
from app.tiers import models as tiers_models
from app.transactions import models as transactions_models
from app.transfers import models as transfers_models
from app.worker import models as worker_models

LOADED = (
    accounting_models,
    adjustments_models,
    campaigns_models,
    clients_models,
    holds_models,
    IdempotencyRecord,
    ledger_models,
    members_models,
    OutboxEvent,
    programs_models,
    redemptions_models,
    stamps_models,
    tiers_models,
    transactions_models,
    transfers_models,
    worker_models,
)
"""Every table of the service is in `Base.metadata` once these are imported."""

engine = context.config.attributes["engine"]
with engine.connect() as connection:
    if engine.dialect.name == "sqlite":
        # Rebuilding a table must not cascade; a pragma has no effect inside a transaction, so it comes before.
        connection.connection.dbapi_connection.execute("PRAGMA foreign_keys=OFF")
    context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=False)
    with context.begin_transaction():
        if engine.dialect.name == "postgresql":
            context.execute("SET LOCAL lock_timeout = '5s'")
            context.execute("SET LOCAL statement_timeout = 0")  # an index on a large table takes as long as it takes
            context.execute("SELECT pg_advisory_xact_lock(7237091)")  # two instances starting at once take turns
        context.run_migrations()
        if engine.dialect.name == "sqlite":
            broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
            if broken:
                raise RuntimeError(f"the migration would leave broken references: {broken[:5]}")
    connection.commit()
    if engine.dialect.name == "sqlite":
        connection.connection.dbapi_connection.execute("PRAGMA foreign_keys=ON")
