"""What members' points should be: a small model of its own, against which the ledger is tried.

A member is a list of lots that change in place; nothing here knows how the ledger writes any of it down. Points are
whole numbers, instants are in UTC, documents are named by whatever the caller likes.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import count
from typing import Any

Document = Any
_numbers = count()
_NEVER = datetime.max.replace(tzinfo=UTC)


class Refused(Exception):
    """What the service should answer instead of doing it: the code of its problem."""


@dataclass(eq=False)
class Lot:
    """Points granted together. `left` are neither held nor gone."""

    document: Document
    left: int
    occurred: datetime
    available_from: datetime | None
    """None: once something has happened."""
    expires: datetime | None
    lapses: bool
    pending: bool = False
    held: int = 0
    expired: int = 0
    granted: int = 0
    number: int = field(default_factory=lambda: next(_numbers))


@dataclass
class Cover:
    """What stands in for `points` of what `of` granted that were gone when a return wanted them, used or elsewhere: a
    lot, debt, or nobody."""

    of: Document
    by: Lot | str
    why: str
    points: int


DEBT, NOBODY = "debt", "nobody"


@dataclass(eq=False)
class Hold:
    """Points reserved, lot by lot."""

    ends: datetime
    parts: dict[Lot, int]

    @property
    def points(self) -> int:
        return sum(self.parts.values())


@dataclass(eq=False)
class Return:
    """What a return did to a member, so that it can be undone."""

    units: int
    taken_back: int = 0
    given_back: int = 0
    own: list[tuple[Lot, int]] = field(default_factory=list)
    gone: Counter[str] = field(default_factory=Counter)
    """How many points it took back that were used, elsewhere, or expired."""
    covers: list[Cover] = field(default_factory=list)
    no_more: list[Cover] = field(default_factory=list)
    """What its own lots stood in for before."""
    qualifying: int = 0
    withheld: int = 0
    withheld_amount: int = 0
    written_off: int = 0
    settled: list[tuple[Lot, Cover]] = field(default_factory=list)
    stayed: list[tuple[Lot, int, bool]] = field(default_factory=list)
    """Points that stayed expired, and whether they count as used again if the return is undone."""
    restored: Lot | None = None
    undone: bool = False


@dataclass(eq=False)
class Purchase:
    """`quantity` units at `price` points each, of which `tendered` were paid with points."""

    member: "Member"
    document: Document
    quantity: int
    price: int
    tendered: int
    at: datetime
    activated: int = 0
    spent: Counter[Lot] = field(default_factory=Counter)
    returns: list[Return] = field(default_factory=list)
    voided: bool = False

    @property
    def earned(self) -> int:
        return self.quantity * self.price - self.tendered

    @property
    def kept(self) -> int:
        """What returns have left of what it earned."""
        return self.earned - sum(each.taken_back for each in self.returns if not each.undone)

    @property
    def units_back(self) -> int:
        return sum(each.units for each in self.returns if not each.undone)

    def part(self, whole: int, units: int) -> int:
        """What is left of `whole` when so many units have come back."""
        return round(Fraction(whole * (self.quantity - units), self.quantity))


@dataclass(frozen=True)
class Rules:
    """What of the terms the model needs to know."""

    spent_already: str = "debt"
    most_debt: int | None = None
    expired_meanwhile: str = "stay_expired"
    expiry_after: Callable[[datetime], datetime | None] = lambda _at: None
    """When points granted then are gone."""
    lapse_after: Callable[[datetime], datetime | None] = lambda _at: None
    """When a member lapses who did something then."""
    pending_days: int | None = 0
    """None: points are pending until an event."""
    cancel_days: int = 0
    """After which they wait for it no more."""
    grace_days: int = 1


@dataclass(eq=False)
class Member:
    """A member's points."""

    rules: Rules
    lots: list[Lot] = field(default_factory=list)
    holds: list[Hold] = field(default_factory=list)
    debt: int = 0
    qualifying: int = 0
    lifetime: int = 0
    lapses_at: datetime | None = None
    expired: Counter[Document] = field(default_factory=Counter)
    """How many points of what a document granted have gone unused here, and have not been taken back since."""
    used: Counter[Document] = field(default_factory=Counter)
    """How many were used, likewise."""
    covers: list[Cover] = field(default_factory=list)
    unpaid: int = 0
    """Points for which nothing was ever taken: a shortfall that the terms forgave, debt written off."""

    @property
    def available(self) -> int:
        return sum(lot.left for lot in self.lots if not lot.pending)

    @property
    def held(self) -> int:
        return sum(lot.held for lot in self.lots)

    @property
    def pending(self) -> int:
        return sum(lot.left for lot in self.lots if lot.pending)

    def expiry(self, lot: Lot) -> datetime | None:
        return self.lapses_at if lot.lapses else lot.expires

    def act(self, at: datetime) -> None:
        """The member did something that keeps points from lapsing."""
        lapse = self.rules.lapse_after(at)
        if lapse is not None:
            self.lapses_at = lapse if self.lapses_at is None else max(lapse, self.lapses_at)

    # --- what happens by itself

    def settle(self, now: datetime) -> None:
        while True:
            free = [lot for lot in self.lots if lot.left]
            instants = [self.expiry(lot) for lot in free]
            instants += [lot.available_from for lot in free if lot.pending and lot.available_from]
            instants += [hold.ends for hold in self.holds]
            due = [at for at in instants if at is not None and at <= now]
            if not due:
                return
            self._happen(min(due))

    def _happen(self, at: datetime) -> None:
        waiting = [lot for lot in self.lots if lot.pending and lot.left]
        ripe = [lot for lot in waiting if lot.available_from is not None and lot.available_from <= at]
        for lot in ripe:
            lot.pending = False
        self.pay_debt(ripe)
        for hold in [hold for hold in self.holds if hold.ends <= at]:
            self.capture(hold, 0)
        for lot in self.lots:
            expiry = self.expiry(lot)
            if lot.left and expiry is not None and expiry <= at:
                self.expire(lot, lot.left)
                lot.left = 0

    def expire(self, lot: Lot, points: int) -> None:
        lot.expired += points
        self.expired[lot.document] += points

    # --- what the member does

    def turn(self, lot: Lot) -> tuple[datetime, datetime, int]:
        return self.expiry(lot) or _NEVER, lot.occurred, lot.number

    def queue(self) -> list[Lot]:
        return sorted((lot for lot in self.lots if lot.left and not lot.pending), key=self.turn)

    def grant(self, lot: Lot) -> Lot:
        lot.granted = lot.left
        self.lots.append(lot)
        self.pay_debt([lot])
        return lot

    def pay_debt(self, lots: Iterable[Lot]) -> None:
        free = sorted((lot for lot in lots if not lot.pending), key=self.turn)
        for owed in [cover for cover in self.covers if cover.by is DEBT]:
            for lot, part in take(free, owed.points):
                self.cover(owed.of, DEBT, owed.why, -part)
                self.cover(owed.of, lot, owed.why, part)
                self.debt -= part
                if owed.why == "used":
                    self.used[lot.document] += part

    def cover(self, of: Document, by: Lot | str, why: str, points: int) -> None:
        for cover in self.covers:
            if (cover.of, cover.by, cover.why) == (of, by, why):
                cover.points += points
                break
        else:
            self.covers.append(Cover(of, by, why, points))
        self.covers = [cover for cover in self.covers if cover.points]

    def use(self, points: int) -> list[tuple[Lot, int]]:
        """Spends points on something."""
        parts = self.spend(points)
        for lot, part in parts:
            self.used[lot.document] += part
        return parts

    def spend(self, points: int) -> list[tuple[Lot, int]]:
        if points > self.available:
            raise Refused("insufficient_points")
        return take(self.queue(), points)

    def forfeit(self, points: int) -> None:
        """Points are gone as if they had expired: no return takes them a second time."""
        for lot, part in self.spend(points):
            self.expired[lot.document] += part

    def hold(self, points: int, ends: datetime) -> None:
        parts = dict(self.spend(points))
        for lot, part in parts.items():
            lot.held += part
        self.holds.append(Hold(ends, parts))

    def capture(self, hold: Hold, points: int) -> None:
        """Ends a hold; with 0 points it is released."""
        if points > hold.points:
            raise Refused("capture_above_hold")
        self.holds.remove(hold)
        for lot in sorted(hold.parts, key=self.turn):
            part = hold.parts[lot]
            used = min(part, points)
            points -= used
            self.used[lot.document] += used
            lot.held -= part
            lot.left += part - used
        self.pay_debt(hold.parts)

    def move(self, lot: Lot, points: int, receiver: "Member", **changes: Any) -> Lot:
        """Points live on in another lot. They have left this one before."""
        facts = {
            "document": lot.document,
            "occurred": lot.occurred,
            "available_from": lot.available_from,
            "expires": lot.expires,
            "lapses": lot.lapses,
            "pending": lot.pending,
        }
        fresh = Lot(left=points, granted=points, **facts | changes)
        receiver.lots.append(fresh)
        return fresh

    def give(self, points: int, receiver: "Member") -> None:
        """They are no longer what a purchase granted, and are good until the day on which they would have gone here."""
        gift = object()
        receiver.pay_debt(
            [
                self.move(lot, part, receiver, document=gift, expires=self.expiry(lot), lapses=False)
                for lot, part in self.spend(points)
            ]
        )

    def extend(self, lot: Lot, expires: datetime) -> None:
        self.move(lot, lot.left, self, expires=expires, lapses=False)
        lot.left = 0

    def reinstate(self, lot: Lot, points: int, expires: datetime, now: datetime) -> None:
        lot.expired -= points
        self.expired[lot.document] -= points
        changes = {"expires": expires, "lapses": False, "pending": False, "available_from": now}
        self.pay_debt([self.move(lot, points, self, **changes)])

    def write_off(self, points: int) -> None:
        for owed in self.first([cover for cover in self.covers if cover.by is DEBT], points):
            self.cover(owed.of, DEBT, owed.why, -owed.points)
            self.cover(owed.of, NOBODY, owed.why, owed.points)
            self.debt -= owed.points
            self.unpaid += owed.points

    # --- returns

    def take_back(
        self, document: Document, granted: int, points: int, done: Return, most: int | None, refund: "Refund | None"
    ) -> None:
        """`granted`: what is left of what the document granted, wherever it is. `most` debt there may be; what is
        missing then is kept back of the `refund`, if that can be, or forgiven."""
        mine = sorted((lot for lot in self.lots if lot.left and lot.document == document), key=lambda lot: lot.number)
        there = {"used": self.used[document], "expired": self.expired[document]}
        there["elsewhere"] = granted - sum(lot.left for lot in mine) - sum(there.values())
        done.own = take(mine, points)
        missing = points - sum(part for _, part in done.own)
        gaps = []
        for why in ("expired", "used", "elsewhere"):
            gone = done.gone[why] = min(there[why], missing)
            missing -= gone
            if why != "expired":
                stood_in = self.covers_by(document, why)
                no_more = self.first(stood_in, sum(cover.points for cover in stood_in) - (there[why] - gone))
                gaps += [Cover(cover.of, DEBT, why, cover.points) for cover in no_more]
                gaps.append(Cover(document, DEBT, why, gone - sum(cover.points for cover in no_more)))
                done.no_more += no_more
        self.expired[document] -= done.gone["expired"]
        self.used[document] -= done.gone["used"]
        self._stand_in(document, gaps, done, most, refund)
        done.qualifying = min(points, self.qualifying)
        self.qualifying -= done.qualifying
        self.lifetime -= points

    def _stand_in(
        self, document: Document, gaps: list[Cover], done: Return, most: int | None, refund: "Refund | None"
    ) -> None:
        others = [lot for lot in self.queue() if lot.document != document]
        short = []
        for gap in gaps:
            parts = take(others, gap.points)
            done.covers += [Cover(gap.of, lot, gap.why, part) for lot, part in parts]
            short.append(Cover(gap.of, DEBT, gap.why, gap.points - sum(part for _, part in parts)))
        lacking = sum(gap.points for gap in short)
        debts = self.first(short, lacking if most is None else max(0, min(lacking, most - self.debt)))
        debt = sum(gap.points for gap in debts)
        self.debt += debt
        self.unpaid += lacking - debt
        for cover in done.covers:
            if isinstance(cover.by, Lot) and cover.why == "used":
                self.used[cover.by.document] += cover.points
        done.written_off = lacking - debt
        if refund is not None:
            done.withheld, done.withheld_amount = refund.keep(lacking - debt)
            done.written_off -= done.withheld
        left = [Cover(gap.of, NOBODY, gap.why, gap.points) for gap in short]
        for owed in debts:
            for gap in left:
                gap.points -= owed.points if (gap.of, gap.why) == (owed.of, owed.why) else 0
        done.covers += debts + self.first(left, done.written_off)
        for cover in done.no_more:
            self.cover(cover.of, cover.by, cover.why, -cover.points)
        for cover in done.covers:
            self.cover(cover.of, cover.by, cover.why, cover.points)

    @staticmethod
    def first(covers: Iterable[Cover], points: int) -> list[Cover]:
        parts = []
        for cover in covers:
            part = min(cover.points, points)
            if part > 0:
                parts.append(Cover(cover.of, cover.by, cover.why, part))
                points -= part
        return parts

    def covers_of(self, document: Document, why: str) -> list[Cover]:
        """Debt first, nobody last."""
        mine = [cover for cover in self.covers if cover.of == document and cover.why == why]
        return sorted(mine, key=lambda cover: (cover.by is not DEBT, cover.by is NOBODY))

    def covers_by(self, document: Document, why: str) -> list[Cover]:
        mine = [cover for cover in self.covers if isinstance(cover.by, Lot) and cover.by.document == document]
        return [cover for cover in mine if cover.why == why]

    def free_again(self, cover: Cover) -> None:
        """What stood in for points that others used is used no more."""
        self.cover(cover.of, cover.by, cover.why, -cover.points)
        if cover.by is DEBT:
            self.debt -= cover.points
        elif isinstance(cover.by, Lot) and cover.why == "used":
            self.used[cover.by.document] -= cover.points

    def put_back(self, lot: Lot, points: int) -> Lot:
        if lot.left + lot.held + points > lot.granted:
            return self.move(lot, points, self)
        lot.left += points
        return lot

    def undo_take_back(self, document: Document, done: Return) -> None:
        self.expired[document] += done.gone["expired"]
        self.used[document] += done.gone["used"]
        freed, loose = [], 0
        for of, why in dict.fromkeys((cover.of, cover.why) for cover in [*done.no_more, *done.covers]):
            made = sum(cover.points for cover in done.covers if (cover.of, cover.why) == (of, why))
            ended = self.first(self.covers_of(of, why), made)
            lost = made - sum(cover.points for cover in ended)
            loose += lost
            self.used[document] -= lost if why == "used" else 0
            for cover in ended:
                self.free_again(cover)
            for cover in [cover for cover in done.no_more if (cover.of, cover.why) == (of, why)]:
                part = min(cover.points, lost)
                lost -= part
                self.cover(of, cover.by, why, cover.points - part)
            freed += ended
        self.qualifying += done.qualifying
        self.lifetime += done.taken_back
        heir = [lot for lot in self.lots if lot.document == document][-1]
        arrived = [self.move(heir, loose, self)] if loose else []
        arrived += [self.put_back(lot, part) for lot, part in done.own]
        arrived += [self.put_back(cover.by, cover.points) for cover in freed if isinstance(cover.by, Lot)]
        self.pay_debt(arrived)

    def give_back(self, purchase: Purchase, points: int, done: Return, now: datetime) -> None:
        def gone(lot: Lot) -> bool:
            expiry = self.expiry(lot)
            return expiry is not None and expiry <= now

        def latest_first(lot: Lot) -> tuple[float, int]:
            return (float("-inf") if lot.expires is None else -lot.expires.timestamp(), -lot.number)

        spent = sorted(purchase.spent, key=latest_first)
        back: list[tuple[Lot, int, bool]] = []
        for lot, part in split({lot: purchase.spent[lot] for lot in spent}, points):
            purchase.spent[lot] -= part
            back += self._come_back(lot, part, done)
            done.restored = done.restored or lot
        done.restored = back[0][0] if back else done.restored
        arrived = []
        for lot, part, counted in back:
            if not gone(lot):
                arrived.append(self.put_back(lot, part))
            elif self.rules.expired_meanwhile == "stay_expired":
                self.expire(lot, part)
                done.stayed.append((lot, part, counted))
            else:
                days = self.rules.grace_days
                until = next_day(now, days) if self.rules.expired_meanwhile == "grace_days" else None
                fresh = self.rules.expiry_after(now) if until is None else until
                arrived.append(self.move(lot, part, self, expires=fresh, lapses=False))
        self.pay_debt(arrived)

    def _come_back(self, lot: Lot, points: int, done: Return) -> list[tuple[Lot, int, bool]]:
        """To which lots points come back that were spent of one, and whether they counted as used there. Debt for them
        goes first."""
        covers = self.covers_of(lot.document, "used")
        relieved = self.first([cover for cover in covers if cover.by is DEBT], points)
        points -= sum(cover.points for cover in relieved)
        standing = self.covers_by(lot.document, "used")
        own = max(0, min(points, self.used[lot.document] - sum(cover.points for cover in standing)))
        self.used[lot.document] -= own
        freed = self.first([cover for cover in covers if cover.by is not DEBT], points - own)
        bare = points - own - sum(cover.points for cover in freed)
        for cover in relieved + freed:
            self.free_again(cover)
        done.settled += [(lot, cover) for cover in freed if cover.by is NOBODY]
        others = [(cover.by, cover.points, True) for cover in freed if isinstance(cover.by, Lot)]
        back = [(lot, own, True), *others, (lot, bare, False)]
        self.unpaid += bare
        return [each for each in back if each[1]]

    def spend_again(self, purchase: Purchase, done: Return) -> None:
        points = done.given_back - sum(part for _, part, _ in done.stayed)
        points -= sum(cover.points for _, cover in done.settled)
        parts = self.use(min(points, self.available))
        debt = points - sum(part for _, part in parts)
        for lot, part in parts:
            purchase.spent[lot] += part
        for lot, part, counted in done.stayed:
            purchase.spent[lot] += part
            self.expire(lot, -part)
            self.used[lot.document] += part if counted else 0
        if debt:
            assert done.restored is not None
            self.debt += debt
            self.cover(done.restored.document, DEBT, "used", debt)
            purchase.spent[done.restored] += debt
        for lot, cover in done.settled:
            self.cover(cover.of, NOBODY, cover.why, cover.points)
            purchase.spent[lot] += cover.points


def split(most: dict[Lot, int], points: int) -> list[tuple[Lot, int]]:
    """`points` shared out, as much of it to each lot as it takes at most."""
    parts = []
    for lot, limit in most.items():
        part = max(0, min(limit, points))
        points -= part
        if part:
            parts.append((lot, part))
    return parts


def take(lots: Iterable[Lot], points: int) -> list[tuple[Lot, int]]:
    """Takes points from `lots`, in their order: which, and how many of each."""
    parts = split({lot: lot.left for lot in lots}, points)
    for lot, part in parts:
        lot.left -= part
    return parts


def next_day(at: datetime, days: int) -> datetime:
    """The end of the day (UTC) so many days later."""
    return (at + timedelta(days=days + 1)).replace(hour=0, minute=0, second=0, microsecond=0)


# --- what tills post ------------------------------------------------------------------------------------------------


def buy(purchase: Purchase, now: datetime) -> None:
    """Spends what was tendered, and earns. Refused where fewer points are available."""
    member, rules, at = purchase.member, purchase.member.rules, purchase.at
    if purchase.tendered:
        purchase.spent.update(dict(member.use(purchase.tendered)))
        member.act(at)
    if purchase.earned:
        available_from = None if rules.pending_days is None else at + timedelta(days=rules.pending_days)
        expires, lapses = rules.expiry_after(at), rules.lapse_after(at) is not None
        if available_from is None:
            expires, lapses = at + timedelta(days=rules.cancel_days), False
        pending = available_from is None or available_from > now
        lot = Lot(purchase.document, purchase.earned, at, available_from, expires, lapses, pending)
        member.act(at)
        member.grant(lot)
        member.qualifying += purchase.earned
        member.lifetime += purchase.earned
    member.settle(now)


def happen(purchase: Purchase, shipped: bool, now: datetime) -> None:
    """What its points wait for has happened, or never will."""
    member, rules = purchase.member, purchase.member.rules
    own = [lot for lot in member.lots if lot.document == purchase.document and lot.available_from is None]
    waiting = [lot for lot in own if lot.left]
    points = sum(lot.left for lot in waiting)
    if not points and not shipped and purchase.activated:
        raise Refused("points_activated")
    if not points and shipped and not purchase.activated and any(lot.expired for lot in own):
        raise Refused("points_cancelled")
    arrived = []
    for lot in waiting:
        if shipped:
            expires, lapses = rules.expiry_after(purchase.at), rules.lapse_after(purchase.at) is not None
            changes = {"expires": expires, "lapses": lapses, "pending": False, "available_from": now}
            arrived.append(member.move(lot, lot.left, member, **changes))
        else:
            member.expire(lot, lot.left)
        lot.left = 0
    if shipped:
        purchase.activated += points
    member.pay_debt(arrived)
    member.settle(now)


@dataclass(frozen=True)
class Refund:
    """What a return pays back in money, and what earlier ones of its purchase have kept back for points (each is worth
    one) or forgiven."""

    money: int
    past: list[Return]

    def keep(self, missing: int) -> tuple[int, int]:
        """How many of `missing` points are kept back of it, and how much that is."""
        points, amount, forgiven = (
            sum(getattr(each, name) for each in self.past) for name in ("withheld", "withheld_amount", "written_off")
        )
        owed = max(0, points + forgiven + missing - amount)
        if owed <= self.money:
            return missing, owed
        return min(missing, max(0, amount + self.money - points)), self.money


def bring_back(purchase: Purchase, units: int, now: datetime, *, void: bool = False) -> Return:
    """Returns `units`. Nothing is withheld from a void."""
    member, rules = purchase.member, purchase.member.rules
    if purchase.voided or not units:
        raise Refused("nothing_to_return")
    if units > purchase.quantity - purchase.units_back:
        raise Refused("return_too_large")
    done = Return(units)
    in_all, past = purchase.units_back + units, [each for each in purchase.returns if not each.undone]
    given = purchase.tendered - purchase.part(purchase.tendered, in_all)
    done.given_back = max(0, given - sum(each.given_back for each in past))
    if done.given_back:
        member.give_back(purchase, done.given_back, done, now)
        member.settle(now)
    taken = purchase.earned - purchase.part(purchase.earned, in_all)
    done.taken_back = max(0, taken - sum(each.taken_back for each in past))
    if done.taken_back:
        withholds = rules.spent_already == "withhold" and not void
        most = 0 if withholds or rules.spent_already == "write_off" else rules.most_debt
        refund = Refund(units * purchase.price - done.given_back, past) if withholds else None
        member.take_back(purchase.document, purchase.kept, done.taken_back, done, most, refund)
    purchase.returns.append(done)
    member.settle(now)
    return done


def undo(purchase: Purchase, done: Return, now: datetime) -> None:
    """Voids a return."""
    member = purchase.member
    if done.undone:
        raise Refused("already_voided")
    if purchase.voided:
        raise Refused("nothing_to_return")
    done.undone = True
    if done.taken_back:
        member.undo_take_back(purchase.document, done)
        member.settle(now)
    if done.given_back:
        member.spend_again(purchase, done)
