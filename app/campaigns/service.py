"""Give what campaigns promise, many members at a time: load, decide, write.

Locked in this order: the members' accounts, the budgets of the campaigns.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from app import accounting, db, ledger, members, outbox, programs, tiers
from app.accounting import Chart, Posting
from app.campaigns import rules
from app.campaigns.models import CampaignBudget, CampaignGrant
from app.campaigns.rules import Bonus, Bought, Due, Friend, Given, Known, Round
from app.ids import new_id
from app.ledger import Account, Act
from app.members import GATES
from app.programs import Gift, Referral, Timeline, WinBack


@dataclass(frozen=True, slots=True)
class Purchases:
    """What only those know who record purchases: `last` answers when each of some members bought last, `kept` what each
    has bought, oldest first, and what is left of it."""

    last: Callable[[Session, Collection[UUID]], Mapping[UUID, datetime]]
    kept: Callable[[Session, Collection[UUID]], Mapping[UUID, Sequence[Bought]]]


def members_of(session: Session, program_id: UUID, round_: Round, after: UUID | None, limit: int) -> Sequence[UUID]:
    """The next members of a round's walk."""
    since = round_.since if round_.newcomers else None
    return members.joined(session, program_id, _just_after(round_.as_of), after, limit, since)


def _just_after(instant: datetime) -> datetime:
    return instant + timedelta(microseconds=1)


def give(
    session: Session,
    program_id: UUID,
    terms: Timeline,
    round_: Round,
    member_ids: Sequence[UUID],
    purchases: Purchases,
    now: datetime,
) -> int:
    """Gives some members what is due to them in a round; answers how many grants that made.

    First it looks who has anything to get, so that nobody else waits. What is given rests on what is read once their
    accounts are claimed.
    """
    found = _due(session, terms, round_, member_ids, purchases, now)
    if not found:
        return 0
    waiting = {each.member_id for each in found}
    accounts = programs.claim(session, program_id, {id_ for each in found for id_ in each.concerns}, now)
    dues = _due(session, terms, round_, sorted(waiting), purchases, now)
    codes = sorted({each.window.campaign.code for each in dues})
    spent = claim_budgets(session, program_id, codes)
    points = {code: row.points for code, row in spent.items()}
    bonuses = rules.decide(dues, before(session, accounts), points)
    if bonuses:
        chart = accounting.chart(session, program_id)
        write(session, accounts, grant(program_id, terms, accounts, bonuses, spent, chart, now), now)
    return len(bonuses)


# --- load -----------------------------------------------------------------------------------------------------------


def _due(
    session: Session,
    terms: Timeline,
    round_: Round,
    member_ids: Sequence[UUID],
    purchases: Purchases,
    now: datetime,
) -> list[Due]:
    """What is due to some members and was not given."""
    bought = purchases.last(session, member_ids) if round_.has(WinBack) else {}
    friends = _friends(session, round_, member_ids, purchases) if round_.has(Referral) else {}
    people = members.persons(session, member_ids)
    known = [Known(person, bought.get(person.id), friends.get(person.id)) for person in people]
    dues = [due for each in known for due in rules.due(each, round_)]
    open_ = rules.not_given(dues, before(session, {due.member_id for due in dues})) if dues else []
    return of_tiers(session, terms, open_, now)


def of_tiers(session: Session, terms: Timeline, dues: list[Due], now: datetime) -> list[Due]:
    """What of it is for the tier that the member was in on the occasion, as known now; who is asked for none is not
    looked for."""
    asked = {due.member_id for due in dues if due.tiers}
    if not asked:
        return dues
    records = tiers.records(session, sorted(asked))
    return [
        due
        for due in dues
        if not due.tiers or tiers.standing(records[due.member_id], terms, due.at, now).tier in due.tiers
    ]


def _friends(session: Session, round_: Round, member_ids: Sequence[UUID], purchases: Purchases) -> dict[UUID, Friend]:
    """Those of some members whom others brought and who were not given everything for it."""
    brought = members.referrers(session, member_ids)
    codes = {each.campaign.code for each in round_.windows if isinstance(each.campaign.occasion, Referral)}
    own = [each for each in before(session, brought) if each.occasion == str(each.member_id)]
    given = {(each.member_id, each.campaign) for each in own}
    brought = {id_: by for id_, by in brought.items() if any((id_, code) not in given for code in codes)}
    if not brought:
        return {}
    earning = {each.id for each in members.persons(session, set(brought.values())) if GATES[each.status].earn}
    kept = purchases.kept(session, sorted(brought))
    return {friend: Friend(by, by in earning, kept.get(friend, ())) for friend, by in brought.items()}


def before(session: Session, member_ids: Collection[UUID]) -> list[Given]:
    """All that some members were given."""
    return [Given(*row) for row in db.found(session, _grants, ids=sorted(member_ids))]


def _grants(engine: str) -> Select[*tuple[Any, ...]]:
    columns = (CampaignGrant.campaign, CampaignGrant.member_id, CampaignGrant.occasion, CampaignGrant.day)
    return select(*columns).where(db.one_of(engine, CampaignGrant.member_id.expression, "ids"))


def claim_budgets(session: Session, program_id: UUID, codes: Collection[str]) -> dict[str, Any]:
    """What campaigns have given so far; nobody else adds to it until the transaction ends."""
    empty = {"program_id": program_id, "points": 0, "grants": 0, "budget": None}
    db.claim_rows(session, CampaignBudget, [empty | {"campaign": code} for code in sorted(codes)], ["campaign"])
    return _budgets(session, program_id, codes)


def look_at_budgets(session: Session, program_id: UUID, codes: Collection[str]) -> dict[str, Any]:
    """The same of those that have given anything, with nothing locked."""
    return _budgets(session, program_id, codes, lock=False)


def _budgets(session: Session, program_id: UUID, codes: Collection[str], *, lock: bool = True) -> dict[str, Any]:
    rows = select(*CampaignBudget.__table__.c).where(
        CampaignBudget.program_id == program_id, db.any_of(session, CampaignBudget.campaign.expression, sorted(codes))
    )
    rows = rows.order_by(CampaignBudget.campaign)
    return {row.campaign: row for row in session.execute(rows.with_for_update(key_share=True) if lock else rows)}


# --- write ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Grants:
    """Bonuses as rows of grants, what they post, and what their campaigns have given with them."""

    rows: list[dict[str, Any]]
    postings: list[Posting]
    counted: list[db.Row]


def grant(
    program_id: UUID,
    terms: Timeline,
    accounts: dict[UUID, Account],
    bonuses: Sequence[Bonus],
    spent: Mapping[str, Any],
    chart: Chart,
    now: datetime,
) -> Grants:
    """Gives bonuses to `accounts`, which follow."""
    made = Grants([], [], _counted(program_id, bonuses, spent))
    for bonus in bonuses:
        row = _row(program_id, bonus, now)
        accounts[bonus.member_id], posted = _gift(accounts[bonus.member_id], bonus, row, terms, chart)
        made.postings.extend(posted)
        made.rows.append(row)
    return made


def write(session: Session, accounts: Mapping[UUID, Account], made: Grants, now: datetime) -> None:
    with db.together(session):
        ledger.write(session, accounts.values(), now)
        accounting.post(session, made.postings, now)
        db.insert_rows(session, CampaignGrant, made.rows)
        db.update_rows(session, CampaignBudget, ["program_id", "campaign"], made.counted)
        outbox.put(session, [_event(row) for row in made.rows], now)


def _row(program_id: UUID, bonus: Bonus, now: datetime) -> dict[str, Any]:
    due = bonus.due
    return {
        "id": new_id(),
        "program_id": program_id,
        "member_id": bonus.member_id,
        "campaign": bonus.campaign,
        "occasion": due.occasion,
        "day": due.day,
        "points": bonus.points,
        "terms_id": due.window.version.id,
        "occurred_at": due.at,
        "recorded_at": now,
    }


def _gift(
    account: Account, bonus: Bonus, row: Mapping[str, Any], terms: Timeline, chart: Chart
) -> tuple[Account, list[Posting]]:
    """The account after a bonus, and what that posts: marketing, at cost, under the terms of the occasion."""
    due, promised = bonus.due, bonus.due.window.version.terms
    act = Act(row["program_id"], row["id"], due.at, row["recorded_at"], promised.zone)
    own = rules.end_of_life(bonus) or programs.end_adopted(terms, due.at, due.at, row["recorded_at"])
    expires_at = own or programs.expires_at(due.at, promised)
    gift = Gift("bonus", bonus.points, "marketing", programs.provided(bonus.points, promised), expires_at)
    return programs.give(account, gift, act, promised, chart)


def _counted(program_id: UUID, bonuses: Sequence[Bonus], spent: Mapping[str, Any]) -> list[db.Row]:
    points: Counter[str] = Counter()
    for bonus in bonuses:
        points[bonus.campaign] += bonus.points
    grants = Counter(bonus.campaign for bonus in bonuses)
    return [
        {
            "program_id": program_id,
            "campaign": code,
            "points": (spent[code].points if code in spent else 0) + points[code],
            "grants": (spent[code].grants if code in spent else 0) + grants[code],
            "budget": budget,
        }
        for code, budget in sorted(rules.budgets(bonuses).items())
    ]


def _event(row: Mapping[str, Any]) -> outbox.Event:
    payload = {"grant_id": str(row["id"])} | {name: row[name] for name in ("campaign", "occasion", "points")}
    return outbox.Event(row["program_id"], "campaign.granted", row["member_id"], payload)
