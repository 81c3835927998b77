"""Follow the cards of a batch's members: read them, let stamps fall where they belong, write what that comes to.

Everything here is read and changed only while a member's account is claimed, so that stamps count in the order in which
purchases arrive. A programme that never had stamp cards is asked nothing and told nothing.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from app import db, ledger, members, outbox, programs
from app.accounting import Chart, Posting
from app.ids import new_id
from app.ledger import Account, Accrual, Act
from app.programs import Basket, Gift, Reason, StampCard, Terms, Timeline, Version
from app.stamps import queries
from app.stamps.models import Stamp, StampCardRow
from app.stamps.rules import Card, Effect, Placed, Stamping, placed, split
from app.stamps.schemas import CardList, card_list

Key = tuple[UUID, str]
"""A member, and the code of a card."""


@dataclass(frozen=True, slots=True)
class Earned:
    """What a purchase's points came to with its stamps: the account after it, what its head starts post, and what it
    did to cards."""

    account: Account
    postings: Sequence[Posting] = ()
    effects: Sequence[Effect] = ()


class Cards:
    """The last cards of some members, as they were read and as they follow what is decided.

    `put_on`: by card, what purchases put on it.
    """

    def __init__(
        self,
        program_id: UUID,
        terms: Timeline,
        chart: Chart,
        now: datetime,
        last: Iterable[Card] = (),
        put_on: Mapping[UUID, Sequence[UUID]] | None = None,
    ) -> None:
        self._program_id, self._terms, self._chart, self._now = program_id, terms, chart, now
        self._last = {(card.member_id, card.code): card for card in last}
        self._stored = {card.id: card for card in self._last.values()}
        self._cards = dict(self._stored)
        self._put_on = {id_: list(ids) for id_, ids in (put_on or {}).items()}
        self._rows: list[dict[str, Any]] = []
        self._new: defaultdict[UUID, list[Stamping]] = defaultdict(list)
        self._told: list[outbox.Event] = []

    def earn(self, account: Account, whole: Accrual, reasons: Sequence[Reason], by: Version) -> Earned:
        """The account after a purchase, or a claim, has earned its points by `reasons`, which are `whole` in all: its
        stamps on the member's cards, and the rest as one lot. TooManyPoints."""
        given = [
            (promise, each.points)
            for each in reasons
            if each.points and (promise := by.terms.card_of(each.rule)) is not None
        ]
        if not given:
            return Earned(ledger.accrue(account, whole))
        on = [each for promise, points in given for each in self._placed(account, promise, points, whole, by)]
        rest = whole.points - sum(each.points for each in on)
        parts = split(whole, [*([rest] if rest else []), *(each.points for each in on)])
        if rest:
            account = ledger.accrue(account, parts[0])
        postings: list[Posting] = []
        done: list[tuple[Effect, Stamping]] = []
        for each, part in zip(on, parts[-len(on) :], strict=True):
            if each.begun and each.card.head_start:
                account, posted = self._head_start(account, each.card, whole.act, by.terms)
                postings += posted
            account, effect, stamping = self._stamp(account, each, part, by.terms)
            done.append((effect, stamping))
        for effect, stamping in done:  # nothing is refused any more
            self._put_on.setdefault(stamping.card_id, []).append(stamping.id)
            self._new[whole.act.document_id].append(stamping)
            self._note(effect, stamping, None, whole.act)
        return Earned(account, postings, [effect for effect, _ in done])

    def _stamp(self, account: Account, each: Placed, part: Accrual, terms: Terms) -> tuple[Account, Effect, Stamping]:
        """The account with the points of stamps on a card, which wait for it to be full, and go when it is over."""
        card, released = each.card, 0
        stamping = Stamping(new_id(), account.member_id, card.id, card.code, each.added, part.points)
        waiting = replace(part, document_id=stamping.id, available_from=None, expires_at=card.ends_at, lapses=False)
        account = ledger.accrue(account, waiting)
        if card.full_at is not None:
            account, released = self._release(account, self._of(card, stamping.id), card.id, card.full_at, terms)
        return account, Effect(card, each.added, released), stamping

    def _placed(
        self, account: Account, promise: StampCard, points: int, whole: Accrual, by: Version
    ) -> Sequence[Placed]:
        last = self._last.get((account.member_id, promise.code))
        return placed(last, promise, points // promise.points_per_stamp, whole.act, account.member_id, by)

    def _head_start(self, account: Account, card: Card, act: Act, terms: Terms) -> tuple[Account, list[Posting]]:
        """The account with the stamps that are given: points without a purchase, which defer nothing."""
        points = card.head_start_points
        gift = Gift("bonus", points, "marketing", programs.provided(points, terms), card.ends_at, waits_for=card.id)
        return programs.give(account, gift, act, terms, self._chart)

    def _of(self, card: Card, *more: UUID) -> Sequence[UUID]:
        """The documents of the lots that stand on a card."""
        return [card.id, *self._put_on.get(card.id, ()), *more]

    def _release(
        self, account: Account, documents: Sequence[UUID], card_id: UUID, at: datetime, terms: Terms
    ) -> tuple[Account, int]:
        """The account with the points available that waited for a card to be full, as if they had been earned when it
        was; and how many these are."""
        points = sum(lot.free for lot in ledger.awaiting(account, *documents))
        act = Act(self._program_id, card_id, at, self._now, terms.zone)
        if programs.lapses(terms):
            act = programs.keeping(account, act, terms)
        until = programs.end_adopted(self._terms, at, at, self._now) or programs.expires_at(at, terms)
        return ledger.activate(account, documents, act, until, lapses=programs.lapses(terms)), points

    def move(
        self, account: Account, moved: Sequence[tuple[Stamping, int]], act: Act, terms: Terms
    ) -> tuple[Account, list[Effect]]:
        """The account, and what it does to cards, when a return has taken so many points of stamps (negative), or its
        void has given them back.

        An open card has fewer stamps, or more again. Where it is full, or gets full by some of them, what has no place
        on it is available at once. One that is over stays so.
        """
        effects = []
        for stamping, points in moved:
            card = self._last.get((account.member_id, stamping.code))
            if card is not None and card.id == stamping.card_id and card.open_at(self._now):
                released, stamps = 0, min(points // stamping.each, card.missing)
                card = card.with_more(stamps, act.occurred_at)
                if card.full_at is not None:
                    account, released = self._release(account, self._of(card), card.id, card.full_at, terms)
                effects.append(Effect(card, stamps, released))
                part = replace(stamping, stamps=stamps, points=stamps * stamping.each)
                self._note(effects[-1], part, stamping.id, act)
            elif points > 0 and ledger.awaiting(account, stamping.id):
                documents, at = [stamping.id], act.occurred_at
                account, _ = self._release(account, documents, stamping.card_id, at, terms)
        return account, effects

    def brought(self, document_id: UUID) -> Sequence[Stamping]:
        """What a purchase of this batch has put on cards."""
        return self._new[document_id]

    def _note(self, effect: Effect, stamping: Stamping, of_id: UUID | None, act: Act) -> None:
        card = effect.card
        self._cards[card.id] = self._last[card.member_id, card.code] = card
        row = {
            "member_id": card.member_id,
            "id": new_id() if of_id else stamping.id,
            "card_id": card.id,
            "document_id": act.document_id,
            "of_id": of_id,
            "stamps": stamping.stamps,
            "points": stamping.points,
            "occurred_at": act.occurred_at,
            "recorded_at": self._now,
        }
        self._rows.append(row)
        facts = {"card_id": str(card.id), "card": card.code, "number": card.number}
        told = facts | {"added": effect.added, "stamps": card.stamps, "of": card.size}
        self._told.append(outbox.Event(self._program_id, "card.stamped", card.member_id, told))
        if card.full_at is not None:
            full = facts | {"released": effect.released}
            self._told.append(outbox.Event(self._program_id, "card.filled", card.member_id, full))

    def write(self, session: Session) -> None:
        """Writes what was decided. Nothing of it may have been written before."""
        changed = [card for card in self._cards.values() if card != self._stored.get(card.id)]
        rows = [asdict(card) | {"program_id": self._program_id} for card in changed]
        db.insert_rows(session, StampCardRow, [row for row in rows if row["id"] not in self._stored])
        db.update_rows(session, StampCardRow, ["id"], [_changing(row) for row in rows if row["id"] in self._stored])
        db.insert_rows(session, Stamp, self._rows)
        outbox.put(session, self._told, self._now)


def _changing(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("id", "stamps", "stamped_at", "full_at")}


# --- load -----------------------------------------------------------------------------------------------------------


def load(
    session: Session,
    program_id: UUID,
    terms: Timeline,
    chart: Chart,
    accounts: Mapping[UUID, Account],
    coming: Mapping[UUID, Sequence[tuple[Terms, Basket]]],
    returning: Collection[UUID],
    now: datetime,
) -> tuple[Cards, dict[UUID, Account]]:
    """The cards of members for whom purchases are `coming`, or something may come off their cards (`returning`); and
    the `accounts`, claimed before, of those who may fill one with all their lots.

    At most four statements, however many members these are; none without stamp cards.
    """
    buying = {id_ for id_, baskets in coming.items() if any(by.stamp_cards for by, _ in baskets)}
    wanted = (buying | set(returning)) & accounts.keys()
    if not wanted or not queries.has_cards(terms):
        return Cards(program_id, terms, chart, now), {}
    last = queries.last_cards(session, wanted)
    open_ = [card for card in last if card.open_at(now)]
    put_on = queries.put_on(session, [card.id for card in open_])
    filling = {
        card.member_id: accounts[card.member_id]
        for card in open_
        if sum(_most(card, *each) for each in coming.get(card.member_id, ())) >= card.missing
    }
    return Cards(program_id, terms, chart, now, last, put_on), ledger.with_lots(session, filling)


def _most(card: Card, by: Terms, basket: Basket) -> int:
    """How many stamps a purchase may bring for a card."""
    promised = [each.most_of(basket) for each in by.stamp_cards if each.code == card.code]
    return promised[0] if promised else 0


# --- read -----------------------------------------------------------------------------------------------------------


def cards_of(session: Session, program_id: UUID, member_id: UUID, now: datetime) -> CardList:
    """What a member has on their cards, and those of the terms in force that they could begin. NotFound."""
    members.read(session, program_id, member_id)
    terms = programs.timeline(session, program_id)
    last = queries.last_cards(session, [member_id]) if queries.has_cards(terms) else []
    filled = queries.filled(session, member_id) if last else {}
    return card_list(last, filled, terms, now)
