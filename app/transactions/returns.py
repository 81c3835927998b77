"""Returns and voids: load what they rest on, and decide them."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any, cast
from uuid import UUID

from sqlalchemy import ColumnElement, RowMapping, Select, select
from sqlalchemy.orm import Session

from app import accounting, db, ledger, programs, stamps
from app.ledger import Account, Act, GrantedLot, OpenLot, Reversed, SpentPart
from app.money import round_to_int
from app.programs import Basket, Reason, Terms, Timeline, Version, day_end, expires_at, switched_on
from app.stamps import Stamping
from app.transactions import return_rules
from app.transactions.models import Transaction, TransactionClaim, TransactionConcession
from app.transactions.return_rules import AlreadyVoided, Figures, Key, NothingToReturn, Outcome, ReceiptNeeded, Return
from app.transactions.rules import tier_of
from app.transactions.schemas import PurchaseIn, basket_of

Posted = Sequence[accounting.Posting] | Sequence[accounting.JournalPosting]
Fields = Mapping[str, Any] | RowMapping
"""A row's values by column name, read or about to be written."""


@dataclass(frozen=True, slots=True)
class Returnable:
    """A transaction that may be taken back: the purchase it is about, and all that has come back of that.

    `row` is what is taken back, `purchase` the purchase: the same row, or the one that `row`, a return, is of.
    """

    row: Fields
    purchase: Fields
    version: Version
    taking: Version | None
    """The later version by whose expiry its points go, if its own has none (`switched_on`)."""
    basket: Basket
    document_id: UUID
    """What granted its points: the purchase, or the claim of a guest's."""
    member_id: UUID | None
    points: int
    """What it earned."""
    reasons: Sequence[Reason]
    """By which rules."""
    stampings: Sequence[Stamping] = ()
    """What it put on stamp cards: its points are in lots of their own."""
    past: Sequence[Fields] = ()
    granted: Sequence[GrantedLot] = ()
    stamped: Sequence[tuple[Stamping, GrantedLot]] = ()
    spent: Sequence[SpentPart] = ()
    conceded: Sequence["Conceded"] = ()
    reversal: Reversed | None = None
    postings: Posted = ()
    heirs: Mapping[UUID, OpenLot] = field(default_factory=dict)
    """What `ledger.reversed_now` needs, if a return of it is voided in the batch that brought it."""
    used: Mapping[UUID, int] = field(default_factory=dict)
    """What `ledger.spent_now` needs, if it came in this batch and was paid with points."""

    @property
    def takes_only(self) -> bool:
        """Whether taking it back takes points and gives none."""
        return self.row["type"] == "purchase" and not self.basket.tendered

    @property
    def documents(self) -> Sequence[UUID]:
        """What granted its points, those of its stamps too."""
        return [self.document_id, *(each.id for each in self.stampings)]


@dataclass(frozen=True, slots=True)
class Conceded:
    """Points given for a purchase that went wrong, when `price_left` of what was paid for it had not come back."""

    price_left: int
    lot: GrantedLot


@dataclass(frozen=True, slots=True)
class Done:
    """What a return was decided to be: its row (what the item itself says is added by the caller) and what follows."""

    row: dict[str, Any]
    postings: list[accounting.Posting]
    account: Account | None
    stamps: Sequence[tuple[Stamping, int]] = ()
    """The points of stamps that it took (negative) or gave back."""


# --- load -----------------------------------------------------------------------------------------------------------


def load(session: Session, rows: Mapping[Key, Fields], terms: Timeline, *, lock: bool) -> dict[Key, Returnable]:
    """What may be taken back, by its key, but for what has come back of it: two returns of a member's purchase take
    turns at the account, so `complete` reads that. Guests have none: their purchases are locked here."""
    about = {key: row["purchase_id"] or row["id"] for key, row in rows.items() if _has_purchase(row)}
    ids = sorted(set(about.values()))
    if not ids:
        return {}
    purchases = {row["id"]: row for row in rows.values()}
    if missing := [id_ for id_ in ids if id_ not in purchases]:
        purchases |= {row.id: row._asdict() for row in db.found(session, _by_id, ids=missing)}
    guests = [purchases[id_] for id_ in ids if purchases[id_]["member_id"] is None]
    if guests and lock:
        db.found(session, _locking, ids=[row["id"] for row in guests])
    claims = claims_of(session, guests)
    versions = {version.id: version for version in terms.versions}
    found = {}
    for key, purchase_id in about.items():
        purchase = purchases[purchase_id]
        version = versions[purchase["terms_id"]]
        claim = claims.get(purchase_id)
        document_id, member_id, points = (purchase_id, purchase["member_id"], purchase["points"])
        if claim is not None:
            document_id, member_id, points = claim.id, claim.member_id, claim.points
        reasons = purchase["reasons"] if claim is None or claim.reasons is None else claim.reasons
        found[key] = Returnable(
            row=rows[key],
            purchase=purchase,
            version=version,
            taking=_taking(terms, version, purchase["occurred_at"]),
            basket=basket_of(PurchaseIn.model_validate(purchase["content"])),
            document_id=document_id,
            member_id=member_id,
            points=points,
            reasons=[Reason(**each) for each in reasons],
        )
    put = stamps.stampings(session, terms, {each.document_id for each in found.values()})
    return {key: replace(each, stampings=put.get(each.document_id, ())) for key, each in found.items()}


def _has_purchase(row: Fields) -> bool:
    return row["type"] == "purchase" or (row["type"] == "return" and row["purchase_id"] is not None)


def _locking(engine: str) -> Select[UUID]:
    """What is locked never changes, so nothing else of it need be read after that."""
    mine = db.one_of(engine, Transaction.id.expression, "ids")
    return select(Transaction.id).where(mine).order_by(Transaction.id).with_for_update(key_share=True)


def _by_id(engine: str) -> Select[*tuple[Any, ...]]:
    return select(*Transaction.__table__.c).where(db.one_of(engine, Transaction.id.expression, "ids"))


def past_of(session: Session, returnable: Iterable[Returnable]) -> dict[UUID, list[Fields]]:
    """By purchase, what has come back of it, in the order in which it did."""
    past: dict[UUID, list[Fields]] = {each.purchase["id"]: [] for each in returnable}
    for row in db.found(session, _later, ids=sorted(past)) if past else ():
        past[row.purchase_id].append(row._asdict())
    return past


_PAST = (Transaction.purchase_id, Transaction.id, Transaction.type, Transaction.original_id, Transaction.outcome)
"""What later returns and voids need to know of earlier ones."""


def _later(engine: str) -> Select[*tuple[Any, ...]]:
    mine = db.one_of(engine, cast("ColumnElement[UUID]", Transaction.purchase_id.expression), "ids")
    return select(*_PAST).where(mine).order_by(Transaction.id)


def claims_of(session: Session, purchases: Iterable[Fields]) -> dict[UUID, Any]:
    """By purchase of a guest, its claim: `id`, `member_id` who claimed it, and the `reasons` of its points."""
    guests = sorted(row["id"] for row in purchases if row["member_id"] is None)
    if not guests:
        return {}
    return {row.transaction_id: row for row in db.found(session, _claims, ids=guests)}


def _claims(engine: str) -> Select[*tuple[Any, ...]]:
    mine = db.one_of(engine, TransactionClaim.transaction_id.expression, "ids")
    return select(*TransactionClaim.__table__.c).where(mine)


def complete(
    session: Session, program_id: UUID, returnable: Mapping[Key, Returnable], now: datetime, voided: Collection[Key]
) -> dict[Key, Returnable]:
    """With what has come back, and what the ledger and the journal know. To be called when the members' accounts are
    claimed. `voided`: the originals of the batch's voids."""
    past = past_of(session, returnable.values())
    owned = [each for each in returnable.values() if each.member_id is not None]
    granted = ledger.granted_lots(session, sorted({id_ for each in owned for id_ in each.documents}))
    paid = [each for each in owned if each.basket.tendered]
    documents = {row["id"]: each.purchase["id"] for each in paid for row in (each.purchase, *past[each.purchase["id"]])}
    spent = _spent(session, program_id, documents, {each.member_id for each in owned if each.member_id}, now)
    conceded = _conceded(session, sorted({each.purchase["id"] for each in owned}))
    undone = sorted({each.row["id"] for each in returnable.values() if each.row["type"] == "return"})
    reversals = ledger.reversals(session, undone)
    postings: dict[UUID, list[accounting.JournalPosting]] = {}
    for posting in accounting.postings_of(session, undone) if undone else ():
        postings.setdefault(posting.document_id, []).append(posting)
    brought = any(key[2] == "return" and key not in returnable for key in voided)
    heirs = ledger.heirs(session, _documents(owned, conceded)) if brought else {}
    return {
        key: replace(
            each,
            past=past[each.purchase["id"]],
            granted=granted.get(each.document_id, ()),
            stamped=[(stamping, lot) for stamping in each.stampings for lot in granted.get(stamping.id, ())],
            spent=spent.get(each.purchase["id"], ()),
            conceded=conceded.get(each.purchase["id"], ()),
            reversal=reversals.get(each.row["id"]),
            postings=postings.get(each.row["id"], ()),
            heirs=heirs,
        )
        for key, each in returnable.items()
    }


def _documents(owned: Iterable[Returnable], conceded: Mapping[UUID, Sequence[Conceded]]) -> set[UUID]:
    """The documents whose points a return of `owned` can take back."""
    given = {each.lot.lot.document_id for theirs in conceded.values() for each in theirs}
    return given | {id_ for each in owned for id_ in each.documents}


def _spent(
    session: Session, program_id: UUID, documents: Mapping[UUID, UUID], member_ids: Collection[UUID], now: datetime
) -> dict[UUID, list[SpentPart]]:
    spent = ledger.spent_parts(session, documents)
    lots = {part.lot.id: part.lot for parts in spent.values() for part in parts}
    lots = programs.ended(session, program_id, lots, member_ids, now)
    return {id_: [replace(part, lot=lots[part.lot.id]) for part in parts] for id_, parts in spent.items()}


def with_what_returns_need(
    session: Session,
    returnable: Collection[Returnable],
    accounts: Mapping[UUID, Account],
    chart: accounting.Chart,
    coming: Iterable[Version],
) -> dict[UUID, Account]:
    """The accounts of who bought what comes back, claimed before: with what stands in for whose points, with all lots
    of those who were conceded something, and with what their points have bought where something may be forgiven, or
    was. `coming`: the terms of the batch's own purchases that something comes back of; the points they grant have
    bought nothing yet."""
    found = ledger.with_covers(session, accounts)
    conceding = {each.member_id for each in returnable if each.conceded}
    found |= ledger.with_lots(session, {id_: account for id_, account in found.items() if id_ in conceding})
    owned = [each for each in returnable if each.member_id is not None]
    forgiving = any(version.terms.returns.forgives for version in (*coming, *(each.version for each in owned)))
    if not forgiving and not any(cover.forgiven for account in found.values() for cover in account.covers or ()):
        return found
    conceded = {given.lot.lot.document_id for each in owned for given in each.conceded}
    return ledger.with_costs(session, found, {*conceded, *(id_ for each in owned for id_ in each.documents)}, chart)


def _conceded(session: Session, purchase_ids: Sequence[UUID]) -> dict[UUID, list[Conceded]]:
    """What was conceded on purchases, in the order in which it was."""
    if not purchase_ids:
        return {}
    given = {note.document_id: note for note in db.found(session, _concessions, ids=purchase_ids)}
    found: dict[UUID, list[Conceded]] = {}
    for document_id, lots in ledger.granted_lots(session, list(given)).items():
        note = given[document_id]
        found.setdefault(note.purchase_id, []).extend(Conceded(note.price_left, lot) for lot in lots)
    return found


def _concessions(engine: str) -> Select[*tuple[Any, ...]]:
    mine = db.one_of(engine, TransactionConcession.purchase_id.expression, "ids")
    return select(*TransactionConcession.__table__.c).where(mine).order_by(TransactionConcession.document_id)


def _taking(terms: Timeline, version: Version, granted_at: datetime) -> Version | None:
    return None if version.terms.expiry else switched_on(terms, granted_at)


def just_bought(
    terms: Timeline,
    row: Fields,
    version: Version,
    basket: Basket,
    account: Account | None,
    stampings: Sequence[Stamping],
    used: Mapping[UUID, int],
) -> Returnable:
    """A purchase of this batch, as `load` and `complete` would find it. `account` is its member's."""
    return Returnable(
        row=row,
        purchase=row,
        version=version,
        taking=_taking(terms, version, row["occurred_at"]),
        basket=basket,
        document_id=row["id"],
        member_id=row["member_id"],
        points=row["points"],
        reasons=[Reason(**each) for each in row["reasons"]],
        stampings=stampings,
        granted=() if account is None else ledger.granted_by(account, row["id"]),
        stamped=() if account is None else stamped_by(account, stampings),
        used=used,
    )


def stamped_by(account: Account, stampings: Iterable[Stamping]) -> list[tuple[Stamping, GrantedLot]]:
    """What was put on stamp cards in this batch, with its lots."""
    return [(each, lot) for each in stampings for lot in ledger.granted_by(account, each.id)]


def just_returned(known: Returnable, row: Fields, postings: Posted) -> Returnable:
    """A return of this batch of a `known` purchase, as `load` and `complete` would find it."""
    return replace(known, row=row, postings=postings, reversal=None)


def as_now(known: Returnable, since: Sequence[Fields], account: Account | None) -> Returnable:
    """With what this batch has decided, of the purchase (`since`) and for its member's `account`."""
    known = replace(known, past=[*known.past, *since])
    if account is None:
        return known
    documents = [known.purchase["id"], *(row["id"] for row in since)]
    reversal = known.reversal
    if known.row["type"] == "return" and reversal is None:
        reversal = ledger.reversed_now(account, known.row["id"], known.heirs)
    return replace(
        known,
        granted=[ledger.granted_now(account, lot) for lot in known.granted],
        stamped=[(stamping, ledger.granted_now(account, lot)) for stamping, lot in known.stamped],
        spent=ledger.spent_now(account, known.spent, documents, known.used),
        conceded=[replace(each, lot=ledger.granted_now(account, each.lot)) for each in known.conceded],
        reversal=reversal,
    )


# --- decide ---------------------------------------------------------------------------------------------------------


def decide(
    item: Return, id_: UUID, known: Returnable, account: Account | None, chart: accounting.Chart, now: datetime
) -> Done:
    """What taking back (a part of) a known transaction comes to."""
    if item.type == "void":
        _check_not_voided(known)
        if known.row["type"] == "return":
            return _void_of_return(item, id_, known, account, chart, now)
        known = _without_withholding(known)
    terms = known.version.terms
    before = return_rules.before(known.past)
    coming = return_rules.coming(item, known.basket, known.version, before, known.reasons)
    act = Act(known.purchase["program_id"], id_, counts_from(known, item), now, terms.zone)
    outcome, share, taken = Outcome(), 0, list[Back]()
    figures, profile = coming.figures, terms.posting_profile
    undone: list[accounting.Posting] = []
    if account is not None:
        so_far = return_rules.outcome_so_far(known.past)
        taken = stamps.taken_back(known.granted, known.stamped, coming.kept)
        account, outcome, share = _points(account, known, taken, coming.figures, so_far, act)
        back = before.figures.plus(figures).consideration
        price_left = return_rules.whole(known.basket, terms).consideration - back if known.conceded else 0
        for each in known.conceded:
            refund = figures.total - figures.tendered - outcome.withheld_amount
            account, more, amount = _concession(account, known, each, price_left, refund, so_far.plus(outcome), act)
            outcome = outcome.plus(more)
            undone += _concession_postings(each, amount, known.purchase["currency"], act, chart)
        account, moved = _cost_postings(account, known.purchase["currency"], act, chart)
        undone += moved
    postings = _postings(known, figures, outcome, share, act, profile, chart) + undone
    row = _row(item, id_, known, figures, outcome) | {"points": -outcome.taken_back}
    lines = {str(number): str(quantity) for number, quantity in coming.lines.items()}
    row["outcome"] |= {"lines": lines, "amount": coming.amount}
    return Done(row, postings, account, stamps_taken(known.stamped, taken))


def _without_withholding(known: Returnable) -> Returnable:
    """As a void sees the purchase: a sale that did not happen. The till undoes the payment as it was, so there is no
    refund to withhold from; points that are missing are owed instead, within the terms' limit."""
    terms = known.version.terms
    if terms.returns.points_already_spent != "withhold":
        return known
    policy = terms.returns.model_copy(update={"points_already_spent": "debt"})
    owing = terms.model_copy(update={"returns": policy})
    return replace(known, version=replace(known.version, terms=owing))


def counts_from(known: Returnable, item: Return) -> datetime:
    """When a return counts in ledger and journal: when the till says, but not before what it takes back. A till's clock
    may be behind, and in another month than that of its neighbour."""
    instants: list[datetime] = [item.occurred_at, known.row["occurred_at"], known.purchase["occurred_at"]]
    return max(instants)


def _check_not_voided(known: Returnable) -> None:
    voided = {row["original_id"] for row in known.past if row["type"] == "void"}
    if known.row["id"] in voided:
        raise AlreadyVoided
    if known.purchase["id"] in voided:
        raise NothingToReturn


Back = tuple[GrantedLot, int]
"""A lot, and how many points a return takes of it."""


def stamps_taken(stamped: Iterable[tuple[Stamping, GrantedLot]], taken: Sequence[Back]) -> list[tuple[Stamping, int]]:
    """What of `taken` were stamps, as what they lose."""
    of = {lot.lot.id: stamping for stamping, lot in stamped}
    return [(of[lot.lot.id], -points) for lot, points in taken if lot.lot.id in of]


def _points(
    account: Account, known: Returnable, taken: Sequence[Back], figures: Figures, so_far: Outcome, act: Act
) -> tuple[Account, Outcome, int]:
    """The account after the return, what became of its points, and what was deferred for those `taken` back."""
    policy = known.version.terms.returns
    given_back, gone, settled = figures.tendered_points, 0, 0
    if given_back:
        revive = policy.expired_meanwhile != "stay_expired"
        until = _revived_until(act, known) if revive else None
        account, gone, settled = ledger.restore(account, known.spent, given_back, act, until, revive=revive)
    outcome = Outcome(given_back=given_back, stay_expired=gone, settled=settled)
    refund = figures.total - figures.tendered
    if not taken:
        return account, outcome, 0
    points = sum(part for _, part in taken)
    account, of_taken, share = _take_back(account, known, taken, points, refund, so_far, act)
    return account, outcome.plus(of_taken), share


def _take_back(
    account: Account,
    known: Returnable,
    back: Sequence[Back],
    qualifying: int,
    refund: int,
    so_far: Outcome,
    act: Act,
) -> tuple[Account, Outcome, int]:
    """The account without so many points of some lots, what became of them, and what was deferred for them.

    `refund` is what can be withheld from, minor units; `so_far` what returns of the purchase have done before.
    """
    terms = known.version.terms
    account, reversal = ledger.reverse(account, back, act, _most_debt(terms), qualifying)
    outcome = _taken(reversal, sum(points for _, points in back), refund, so_far, terms)
    return ledger.forgive(account, reversal, outcome.written_off), outcome, reversal.allocated


def _most_debt(terms: Terms) -> int | None:
    return terms.returns.debt_limit if terms.returns.points_already_spent == "debt" else 0


def _taken(reversal: ledger.Reversal, points: int, refund: int, so_far: Outcome, terms: Terms) -> Outcome:
    """What became of `points` that a return took back, or could not."""
    withheld = withheld_amount = 0
    if terms.returns.points_already_spent == "withhold":
        withheld, withheld_amount = return_rules.withheld(reversal.missing, refund, so_far, terms)
    written_off = reversal.missing - withheld
    return Outcome(
        taken_back=points,
        expired=reversal.expired,
        debt=reversal.debt,
        written_off=written_off,
        withheld=withheld,
        withheld_amount=withheld_amount,
    )


def _concession(
    account: Account,
    known: Returnable,
    conceded: Conceded,
    price_left: int,
    refund: int,
    so_far: Outcome,
    act: Act,
) -> tuple[Account, Outcome, int]:
    """The same of a concession, in proportion to what has come back since, when `price_left` has not."""
    lot = conceded.lot
    back = max(0, conceded.price_left - price_left)
    points = max(0, accounting.returned_part(lot.granted, back, conceded.price_left, lot.returned))
    if not points:
        return account, Outcome(), 0
    account, outcome, amount = _take_back(account, known, [(lot, points)], 0, refund, so_far, act)
    return account, replace(outcome, conceded=points), amount


def _concession_postings(
    conceded: Conceded, amount: int, currency: str, act: Act, chart: accounting.Chart
) -> list[accounting.Posting]:
    cohort_id = conceded.lot.lot.cohort_id
    event = accounting.Event(act.program_id, act.document_id, currency, act.occurred_at, act.period, cohort_id)
    return accounting.concession_return_postings(event, amount, chart)


def _revived_until(act: Act, known: Returnable) -> datetime | None:
    """Until when points live that come back to a lot that has expired."""
    terms, taking = known.version.terms, known.taking
    if terms.returns.expired_meanwhile == "grace_days":
        return day_end(act.occurred_at + timedelta(days=terms.returns.grace_days), terms)
    taken_over = taking is not None and taking.effective_from <= act.recorded_at
    promised = taking.terms if taking and taken_over else terms
    return expires_at(act.occurred_at, promised, tier_of(known.purchase["facts"]))


def _postings(
    known: Returnable,
    figures: Figures,
    outcome: Outcome,
    share: int,
    act: Act,
    profile: accounting.Profile,
    chart: accounting.Chart,
) -> list[accounting.Posting]:
    lots = [*known.granted, *(lot for _, lot in known.stamped)]
    cohort_id = lots[0].lot.cohort_id if lots else None  # all that a purchase granted is of one
    currency = known.purchase["currency"]
    event = accounting.Event(act.program_id, act.document_id, currency, act.occurred_at, act.period)
    sale = accounting.Sale(
        program_id=act.program_id,
        document_id=act.document_id,
        currency=currency,
        occurred_at=act.occurred_at,
        period=act.period,
        consideration=figures.consideration,
        tax=figures.tax,
        share=share,
        cohort_id=cohort_id,
    )
    return [
        *accounting.return_postings(sale, profile, chart),
        *accounting.tender_return_postings(event, figures.net_paid_with_points, profile, chart),
        *accounting.withheld_postings(event, outcome.withheld_amount, profile, chart),
    ]


def _cost_postings(
    account: Account, currency: str, act: Act, chart: accounting.Chart
) -> tuple[Account, list[accounting.Posting]]:
    """The account, and what forgiving its points, or taking that back, posts."""
    account, cost = ledger.move_costs(account, currency)
    event = accounting.Event(act.program_id, act.document_id, currency, act.occurred_at, act.period)
    return account, accounting.write_off_postings(event, cost, chart)


def _row(item: Return, id_: UUID, known: Returnable, figures: Figures, outcome: Outcome) -> dict[str, Any]:
    return {
        "id": id_,
        "member_id": known.member_id,
        "enrolled": False,
        "terms_id": known.version.id,
        "occurred_at": item.occurred_at,
        "currency": known.purchase["currency"],
        "total": figures.total,
        "claimable": 0,
        "reasons": [],
        "facts": None,
        "shares": [],
        "purchase_id": known.purchase["id"],
        "original_id": known.row["id"],
        "outcome": {"figures": figures.document(), **outcome.document()},
    }


def _void_of_return(
    item: Return, id_: UUID, known: Returnable, account: Account | None, chart: accounting.Chart, now: datetime
) -> Done:
    """A return that did not happen after all: everything it did, the other way round."""
    past = known.row["outcome"]
    figures = Figures().less(Figures(**past["figures"]))
    outcome = Outcome(**{name: -done for name, done in return_rules.outcome_of(known.row).document().items()})
    # a guest's return took nothing back itself: that went with the claim
    taken_back = 0 if known.reversal is None else sum(each.points for each in known.reversal.returns)
    outcome = replace(outcome, taken_back=-taken_back)
    act = Act(known.purchase["program_id"], id_, counts_from(known, item), now, known.version.terms.zone)
    if account is not None and known.reversal is not None:
        if known.reversal.returns:
            account = ledger.undo(account, known.reversal, act)
        if past["given_back"]:
            again = past["given_back"] - past["stay_expired"] - past.get("settled", 0)
            account = ledger.spend_again(account, again, act, known.reversal)
    moved: list[accounting.Posting] = []
    if account is not None:
        account, moved = _cost_postings(account, known.purchase["currency"], act, chart)
    row = _row(item, id_, known, figures, outcome) | {"points": taken_back}
    row["outcome"] |= {"lines": {}, "amount": 0}
    postings = [
        accounting.Posting(
            act.program_id,
            posting.credit,
            posting.debit,
            posting.amount,
            posting.currency,
            "return",
            posting.cohort_id,
            id_,
            act.occurred_at,
            act.period,
        )
        for posting in known.postings
        if posting.cause != "write_off"
    ]
    return Done(row, postings + moved, account, _stamps_given(known))


def _stamps_given(known: Returnable) -> list[tuple[Stamping, int]]:
    """What the void of a return gives back to stamps."""
    of = {stamping.id: stamping for stamping in known.stampings}
    returns = () if known.reversal is None else known.reversal.returns
    return [(of[each.lot.document_id], each.points) for each in returns if each.lot.document_id in of]


def without_receipt(
    item: Return, id_: UUID, version: Version, account: Account, chart: accounting.Chart, now: datetime
) -> Done:
    """A return of who knows what: it takes back what that refund would earn; ReceiptNeeded above the limit. For points
    that are not there the terms' policy holds, as with a receipt."""
    terms = version.terms
    total = item.total or 0
    earned = round_to_int(Fraction(total * terms.earning.points, terms.earning.per), terms.earning.rounding)
    limit = terms.returns.without_receipt_limit
    if earned > limit:
        detail = f"without it at most {limit} points are taken back; these goods would have earned {earned}"
        raise ReceiptNeeded(detail, extra={"limit": limit})
    act = Act(account.program_id, id_, item.occurred_at, now, terms.zone)
    outcome = Outcome()
    if earned:
        account, reversal = ledger.reverse_any(account, earned, act, _most_debt(terms))
        outcome = _taken(reversal, earned, total, outcome, terms)
    sale = accounting.Sale(
        account.program_id, id_, terms.currency, item.occurred_at, act.period, total, 0, share=0, cohort_id=None
    )
    row = {
        "id": id_,
        "member_id": account.member_id,
        "enrolled": False,
        "terms_id": version.id,
        "occurred_at": item.occurred_at,
        "currency": terms.currency,
        "total": total,
        "points": -outcome.taken_back,
        "claimable": 0,
        "reasons": [],
        "facts": None,
        "shares": [],
        "purchase_id": None,
        "original_id": None,
        "outcome": {
            "figures": Figures(total=total, consideration=total, base=total).document(),
            **outcome.document(),
            "lines": {},
            "amount": 0,
        },
    }
    event = accounting.Event(account.program_id, id_, terms.currency, item.occurred_at, act.period)
    postings = [
        *accounting.return_postings(sale, terms.posting_profile, chart),
        *accounting.withheld_postings(event, outcome.withheld_amount, terms.posting_profile, chart),
    ]
    return Done(row, postings, account)
