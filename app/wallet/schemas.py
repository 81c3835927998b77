"""The wire of what members see."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from app.ledger import BalanceOut, ExpiringOut, Kind, balance_out
from app.members import MemberRef, ProfileOut, Status
from app.wallet.statements import Month, Movement, Statement
from app.wire import Answer, Request, Stamp


class TokenIn(Request):
    """Whose token: a member by any one identifier."""

    member: MemberRef


class TokenOut(Answer):
    """RFC 6749, 5.1. `expires_in` is in seconds."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105  # a word of the standard
    expires_in: Annotated[int, Field(examples=[900])]


class JwkOut(Answer):
    """An Ed25519 public key (RFC 8037)."""

    kty: str
    crv: str
    x: str
    kid: str
    use: str
    alg: str


class JwkSetOut(Answer):
    """RFC 7517, 5."""

    keys: list[JwkOut]


class MeOut(Answer):
    """A member to themselves."""

    id: UUID
    status: Status
    may_earn: bool
    may_spend: bool
    profile: ProfileOut


class MonthOut(Answer):
    """A month there is a statement of; `provisional` until an hour after its end."""

    month: Annotated[str, Field(examples=["2026-11"])]
    begins_at: Stamp
    ends_at: Stamp
    provisional: bool


class MonthList(Answer):
    """The months of a member, the current one first."""

    member_id: UUID
    items: list[MonthOut]


def month_list(member_id: UUID, months: Sequence[Month], now: datetime) -> MonthList:
    items = [
        MonthOut(month=month.name, begins_at=month.begins_at, ends_at=month.ends_at, provisional=month.provisional(now))
        for month in months
    ]
    return MonthList(member_id=member_id, items=items)


class MovementOut(Answer):
    """An entry, by how much each figure changed; `points` is the change of the balance. `late` ones happened before the
    month and were recorded in it."""

    number: int
    kind: Kind
    points: int
    available: int
    held: int
    pending: int
    debt: int
    balance_after: int
    late: bool
    occurred_at: Stamp


class StatementOut(Answer):
    """A month as it was known at its end (`at`): in each figure, opening and movements sum to closing, and the closing
    of a month is the opening of the next. Points that expire by step, and those that `stay`, sum to available + held +
    pending."""

    member_id: UUID
    month: Annotated[str, Field(examples=["2026-11"])]
    begins_at: Stamp
    at: Stamp
    provisional: bool
    opening: BalanceOut
    opening_balance: int
    movements: list[MovementOut]
    closing: BalanceOut
    closing_balance: int
    expiring: list[ExpiringOut]
    stay: int


def statement_out(statement: Statement) -> StatementOut:
    return StatementOut(
        member_id=statement.member_id,
        month=statement.month.name,
        begins_at=statement.month.begins_at,
        at=statement.at,
        provisional=statement.provisional,
        opening=balance_out(statement.opening),
        opening_balance=statement.opening.balance,
        movements=[_movement_out(movement) for movement in statement.movements],
        closing=balance_out(statement.closing),
        closing_balance=statement.closing.balance,
        expiring=[ExpiringOut(points=step.points, at=step.at) for step in statement.ladder.steps],
        stay=statement.ladder.stay,
    )


class StatementPage(Answer):
    """The statements of a month, in the order of the members' ids."""

    items: list[StatementOut]
    next: str | None


def statement_page(statements: Sequence[Statement], following: str | None) -> StatementPage:
    return StatementPage(items=[statement_out(each) for each in statements], next=following)


def _movement_out(movement: Movement) -> MovementOut:
    return MovementOut.model_validate({**movement.entry, "late": movement.late})
