"""The schema's version: bring a database up to date, and tell whether it is."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from app.db import Database

_MIGRATIONS = Path(__file__).parent.parent / "migrations"


def migrate(database: Database, revision: str = "head") -> None:
    """Runs the migrations up to `revision`; `base` undoes them all."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["engine"] = database.engine
    (command.downgrade if revision == "base" else command.upgrade)(config, revision)


def at_head(database: Database) -> bool:
    """Whether the database has exactly the schema this code was written for."""
    with database.engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_heads()
    return set(current) == set(ScriptDirectory(str(_MIGRATIONS)).get_heads())
