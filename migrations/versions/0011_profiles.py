"""What earning rules may ask about members."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from app.reshape import DOCUMENT

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

COLUMNS: dict[str, sa.types.TypeEngine[Any]] = {"born_on": sa.Date(), "attributes": DOCUMENT, "segments": DOCUMENT}


def upgrade() -> None:
    for name, type_ in COLUMNS.items():
        op.add_column("member_profile", sa.Column(name, type_, nullable=True))


def downgrade() -> None:
    for name in COLUMNS:
        op.drop_column("member_profile", name)
