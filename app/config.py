"""Settings of one process: few, read once from the environment, frozen. Business choices live in programme terms."""

from pathlib import Path
from typing import Annotated

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Each field is the environment variable `LOYALTY_<NAME>`, in capitals, unless said otherwise."""

    model_config = SettingsConfigDict(env_prefix="LOYALTY_", frozen=True, extra="ignore", populate_by_name=True)

    database_url: Annotated[str, Field(validation_alias=AliasChoices("DATABASE_URL", "LOYALTY_DATABASE_URL"))] = (
        "sqlite:///var/loyalty.db"
    )
    """`sqlite:///file` or `postgresql://user:password@host/database`. Also read as `DATABASE_URL`."""

    key_pepper: SecretStr = SecretStr("")
    """Secret of at least 32 characters that API keys are hashed with, and the key that signs members' tokens is derived
    from. Losing it makes every key invalid. Random, not a phrase: the public half of that key lets guesses be tried."""

    key_pepper_file: Path | None = None
    """File to read `key_pepper` from instead (a mounted secret)."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(validation_alias=AliasChoices("PORT", "LOYALTY_PORT"))] = 8000
    """Also read as `PORT`."""

    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """Server processes."""

    pool_size: Annotated[int, Field(ge=1, le=200)] = 6
    """Database connections of one process at most, besides one for each writer and each reader and two more."""
    pool_wait_seconds: Annotated[float, Field(gt=0)] = 5.0
    """How long a request waits for a database connection before it is answered 503."""

    lock_timeout_ms: Annotated[int, Field(gt=0)] = 2000
    """How long a statement waits for a lock; a duplicate of a request that still runs is then answered 409."""

    statement_timeout_ms: Annotated[int, Field(gt=0)] = 30_000
    """PostgreSQL only."""

    job_statement_timeout_ms: Annotated[int, Field(gt=0)] = 3_600_000
    """The same of the worker, of a job run by hand and of the proof (`for_jobs`), which read all there is."""

    prepared_statements: bool = True
    """Switch off behind PgBouncer in transaction mode."""

    writers: Annotated[int, Field(ge=0, le=16)] = 1
    """Threads of one process that commit gathered writes, a batch each at a time. 0: every request commits alone."""

    readers: Annotated[int, Field(ge=0, le=16)] = 1
    """Threads of one process that answer gathered reads. 0: every request reads alone."""

    gathered_most: Annotated[int, Field(ge=1, le=500)] = 100
    """The largest batch."""

    gathered_waiting: Annotated[int, Field(ge=1)] = 1000
    """Requests that may wait for a writer, and for a reader; one more is answered 503."""

    gathered_seconds: Annotated[float, Field(gt=0)] = 5.0
    """How long one of them may wait before it is answered 503, to within a tenth of that."""

    key_seconds: Annotated[float, Field(ge=0)] = 5.0
    """How long a process accepts an API key that it has looked up: a revoked one works that much longer at most."""

    max_concurrency: Annotated[int, Field(ge=1)] = 200
    """Requests under way in one process; one more is answered 503."""

    body_seconds: Annotated[float, Field(gt=0)] = 15.0
    """How long a client may take to send a body before it is answered 408."""

    log_level: Annotated[str, Field(pattern="^(debug|info|warning|error)$")] = "info"

    def for_jobs(self) -> "Settings":
        """The settings of a process that nobody waits for."""
        return self.model_copy(update={"statement_timeout_ms": self.job_statement_timeout_ms})

    @property
    def pepper(self) -> bytes:
        """The pepper, from wherever it is set. ValueError if it is not set or too short to protect keys."""
        given = self.key_pepper.get_secret_value().encode()
        if self.key_pepper_file is not None:
            given = self.key_pepper_file.read_bytes().strip()
        if len(given) < 32:
            raise ValueError("set LOYALTY_KEY_PEPPER or LOYALTY_KEY_PEPPER_FILE to a secret of at least 32 characters")
        return given
