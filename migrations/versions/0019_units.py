"""Units of certain goods count towards tiers, too."""

from app.reshape import execute, on_postgresql, rebuild

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

WITHOUT = "points <> 0 OR spend <> 0 OR visits <> 0"
WITH = f"{WITHOUT} OR units <> 0"
VISITS = "visits INTEGER NOT NULL"
BOTH = f"{VISITS}, units INTEGER NOT NULL"


def upgrade() -> None:
    if not on_postgresql():
        rebuild("qualifying_entry", {VISITS: BOTH, WITHOUT: WITH}, fill={"units": "0"})
        rebuild("member_tier", {VISITS: BOTH}, fill={"units": "0"})
        return
    for table in ("qualifying_entry", "member_tier"):
        execute(
            [
                f"ALTER TABLE {table} ADD COLUMN units BIGINT NOT NULL DEFAULT 0",
                f"ALTER TABLE {table} ALTER COLUMN units DROP DEFAULT",
            ]
        )
    _counts_something(WITH)


def downgrade() -> None:
    """The database refuses if anything counted units and nothing else."""
    if not on_postgresql():
        rebuild("qualifying_entry", {BOTH: VISITS, WITH: WITHOUT}, drop=["units"])
        rebuild("member_tier", {BOTH: VISITS}, drop=["units"])
        return
    _counts_something(WITHOUT)
    execute(f"ALTER TABLE {table} DROP COLUMN units" for table in ("qualifying_entry", "member_tier"))


def _counts_something(condition: str) -> None:
    name = "ck_qualifying_entry_counts_something"
    execute([f"ALTER TABLE qualifying_entry DROP CONSTRAINT {name}, ADD CONSTRAINT {name} CHECK ({condition})"])
