"""What is known of those who buy, and what their purchases change of it: tiers, clubs, what rules have given them."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Select, or_, select
from sqlalchemy.orm import Session

from app import clubs, db, members, programs, tiers
from app.programs import Basket, Customer, Terms
from app.transactions.models import Transaction, TransactionClaim
from app.transactions.rules import Judged, no_more_than_fits

_IDS = (("id", Transaction.id.type),)


class MemberPurchase(NamedTuple):
    """A purchase of a member, as it was judged before anything of them was read. `occurred_at`: of the purchase."""

    member_id: UUID
    occurred_at: datetime
    basket: Basket
    verdict: Judged

    @property
    def paid_with_points(self) -> int:
        """How many points pay for it."""
        return 0 if self.verdict.tender is None else self.verdict.tender.points


@dataclass(frozen=True, slots=True)
class Buyers:
    """What is known of a batch's members, as it was read and as it follows what is decided."""

    standings: tiers.Standings
    memberships: clubs.Memberships
    uses: programs.Uses
    customers: dict[UUID, Customer]
    """Of those who may earn by rules for certain members only."""

    def judge(self, member_id: UUID, verdict: Judged, basket: Basket, at: datetime) -> Judged:
        """What a purchase earns when it is known who makes it, in which tier, and what rules have given them.
        TooManyPoints."""
        terms, occasion = verdict.version.terms, verdict.occasion
        tier, belongs = self.standings.tier_at(member_id, at), self.memberships.clubs_at(member_id, at)
        if tier is not None or belongs:
            occasion = occasion._replace(tier=tier, clubs=belongs)
        if terms.personal:
            customer = self.customers.get(member_id, Customer(False))
            left = self.uses.left(verdict.most)
            occasion = self.uses.known(member_id, terms, occasion, customer, left=left)
            earning = programs.earn(basket, terms, occasion)
        else:
            earning = programs.favoured(verdict.earning, terms, tier)
        return verdict._replace(occasion=occasion, earning=no_more_than_fits(earning))

    def count(
        self, member_id: UUID, verdict: Judged, credit: tiers.Credit, bought: clubs.Bought
    ) -> tuple[tiers.Effect | None, Sequence[clubs.Membership]]:
        """Lets a purchase count; answers what that did to the member's tier, and the memberships that it brought."""
        effect = self.standings.count(member_id, credit, "earned")
        self.uses.count(member_id, verdict.version.terms, verdict.occasion.at, verdict.earning.reasons)
        self.memberships.count(member_id, credit)
        if member_id in self.customers:
            self.customers[member_id] = replace(self.customers[member_id], bought=True)
        return effect, self.memberships.bring(member_id, bought)

    def write(self, session: Session) -> None:
        """Writes what was decided."""
        self.uses.write(session)
        self.standings.write(session)
        self.memberships.write(session)


def baskets(buying: Iterable[MemberPurchase]) -> dict[UUID, list[tuple[Terms, Basket]]]:
    """What each member buys, and the terms it falls under."""
    found: dict[UUID, list[tuple[Terms, Basket]]] = {}
    for each in buying:
        found.setdefault(each.member_id, []).append((each.verdict.version.terms, each.basket))
    return found


def buyers(
    session: Session,
    program_id: UUID,
    buying: Collection[MemberPurchase],
    standings: tiers.Standings,
    memberships: clubs.Memberships,
    *,
    lock: bool,
) -> Buyers:
    """What is known of those who buy, as far as the rules of their purchases ask. To be called when their accounts are
    claimed. `lock`: budgets are reserved, else only looked at."""
    most = [each.verdict.most for each in buying if each.verdict.most]
    budgets = programs.budgets(session, program_id, most, lock=lock) if most else None
    limited = set[programs.UseKey]()
    for each in buying:
        limited |= programs.keys_of(each.member_id, each.verdict.version.terms, each.verdict.occasion.at)
    selected = {each.member_id for each in buying if each.verdict.version.terms.selective}
    return Buyers(standings, memberships, programs.uses(session, limited, budgets), customers(session, selected))


def customers(session: Session, member_ids: Collection[UUID]) -> dict[UUID, Customer]:
    """These members, as rules see them."""
    if not member_ids:
        return {}
    wanted = sorted(member_ids)
    profiles = members.customers(session, wanted)
    bought = _bought(session, wanted)
    return {
        id_: Customer(id_ in bought, known.born_on, known.attributes, known.segments)
        for id_ in wanted
        for known in [profiles.get(id_, Customer(False))]
    }


def _bought(session: Session, member_ids: Sequence[UUID]) -> set[UUID]:
    rows = db.found(session, _buyers, **db.rows_of(session, _IDS, [(id_,) for id_ in member_ids]))
    return {row.id for row in rows}


def _buyers(engine: str) -> Select[*tuple[Any, ...]]:
    """One look into an index for each member, however much they have bought."""
    wanted = db.given(engine, _IDS)
    purchase = select(Transaction.id).where(Transaction.member_id == wanted.c.id, Transaction.type == "purchase")
    claim = select(TransactionClaim.id).where(TransactionClaim.member_id == wanted.c.id)
    return select(wanted.c.id).where(or_(purchase.exists(), claim.exists()))
