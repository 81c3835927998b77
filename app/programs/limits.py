"""What earning rules have given members, so that their limits hold: one row per member, rule and period.

A member's rows are read and changed only while their account is claimed: so they follow purchases in the order in which
those arrive, and no two count at the same moment. A dry run reads them without the claim.
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from types import MappingProxyType
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import db
from app.programs.budgets import Budgets
from app.programs.conditions import Customer, Need, Occasion, Used
from app.programs.earning import known
from app.programs.models import RuleUse
from app.programs.rules import Reason
from app.programs.schemas import Terms

Key = tuple[UUID, str, str]
"""A member, the code of a rule, and a period."""

_KEY = ("member_id", "rule", "period")


def keys_of(member_id: UUID, terms: Terms, at: datetime) -> set[Key]:
    """What has to be known of a member to limit what a purchase earns; `at` is in the programme's zone."""
    if not terms.personal:
        return set()
    personal = terms.rulebook.personal(at.date())
    return {(member_id, rule.code, period) for rule in personal for period in rule.asked(at)}


class Uses:
    """What rules have given some members, as it was read and as it will be when what was decided since is written."""

    def __init__(self, stored: dict[Key, Used], budgets: Budgets | None = None) -> None:
        self._stored = stored
        self._used = dict(stored)
        self._budgets = budgets

    def left(self, most: Mapping[str, Need]) -> dict[str, int]:
        """By rule, the points that budgets leave, where that is less than a purchase could get."""
        rooms = {
            rule: 0 if self._budgets is None else self._budgets.room(rule, need.budget) for rule, need in most.items()
        }
        return {rule: room for rule, room in rooms.items() if room < most[rule].points}

    def known(
        self,
        member_id: UUID,
        terms: Terms,
        occasion: Occasion,
        customer: Customer,
        recalled: Mapping[str, str | None] = MappingProxyType({}),
        left: Mapping[str, int] = MappingProxyType({}),
    ) -> Occasion:
        """The occasion with what is known of the member; `recalled` and `left` as of `earning.known`."""
        keys = keys_of(member_id, terms, occasion.at)
        used = {key[1:]: self._used[key] for key in keys if key in self._used}
        return known(terms.rulebook.personal(occasion.at.date()), occasion, customer, used, recalled, left)

    def count(self, member_id: UUID, terms: Terms, at: datetime, reasons: Iterable[Reason]) -> None:
        """Counts what rules gave for a purchase."""
        if not terms.personal:
            return
        given = {reason.rule: reason.points for reason in reasons}
        for rule in terms.rulebook.personal(at.date()):
            if points := given.get(rule.code):
                for period in rule.periods(at):
                    key = (member_id, rule.code, period)
                    self._used[key] = self._used.get(key, Used()).plus(points, at)
                if rule.budget is not None and self._budgets is not None:
                    self._budgets.give(rule.code, points)

    def write(self, session: Session) -> None:
        """Writes what was counted."""
        changed = {key: used for key, used in self._used.items() if used != self._stored.get(key)}
        db.insert_rows(session, RuleUse, [_row(key, used) for key, used in changed.items() if key not in self._stored])
        db.update_rows(
            session, RuleUse, _KEY, [_row(key, used) for key, used in changed.items() if key in self._stored]
        )
        if self._budgets is not None:
            self._budgets.write(session)


def _row(key: Key, used: Used) -> db.Row:
    return dict(zip(_KEY, key, strict=True)) | {"points": used.points, "times": used.times, "last_at": used.last_at}


def uses(session: Session, keys: Collection[Key], budgets: Budgets | None = None) -> Uses:
    """What is stored under these keys. `budgets`: what rules may still give."""
    if not keys:
        return Uses({}, budgets)
    columns = [getattr(RuleUse, name).expression for name in _KEY]
    rows = session.execute(select(*RuleUse.__table__.c).where(db.any_row_of(session, columns, sorted(keys))))
    stored = {(row.member_id, row.rule, row.period): Used(row.points, row.times, row.last_at) for row in rows}
    return Uses(stored, budgets)
