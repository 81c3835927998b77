"""The checks of the proof: each a query that answers the rows whose kept figure differs from the recomputed one.

A check answers `(subject, expected, actual)`: which row, what the underlying rows come to, what is kept. No rows: it
holds. Each works in sets and is limited to one programme or, for None, to no programme.
"""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from sqlalchemy import Select

from app.insight.checks import books, documents, given, points, standing

Check = Callable[[UUID | None], Select[*tuple[Any, ...]]]

CHECKS: tuple[Check, ...] = (
    points.accounts_are_sums_of_entries,
    points.balance_is_sum_of_lots,
    points.lots_are_what_uses_left,
    points.held_points_are_of_open_holds,
    points.moved_points_live_on,
    points.returns_are_within_lots,
    points.debt_is_owed_for_something,
    points.lots_stand_in_once,
    points.entries_are_numbered_without_gaps,
    points.entries_carry_the_running_balance,
    points.entries_move_lots,
    points.next_due_is_known,
    points.transfers_conserve_points,
    points.transfers_moved_their_points,
    given.documents_granted_their_points,
    given.bonuses_are_in_their_lots,
    given.budgets_are_sums_of_grants,
    given.rule_budgets_are_what_members_were_given,
    books.deferrals_are_posted,
    books.cohorts_are_sums_of_lots,
    books.liability_is_sum_of_cohorts,
    books.provision_is_sum_of_cohorts,
    books.recognised_is_posted,
    books.money_is_posted_whole,
    books.clearing_is_points_tendered,
    books.forgiven_costs_were_booked,
    documents.transactions_hold_their_keys,
    documents.rows_belong_to_one_program,
    documents.orders_hold_their_points,
    documents.redemptions_took_their_points,
    documents.fulfilments_are_posted,
    documents.vouchers_are_issued,
    documents.supplies_count_their_orders,
    standing.standings_are_sums_of_entries,
    standing.tiers_are_their_last_change,
    standing.purchases_count_what_they_earned,
    standing.memberships_have_left_what_is_posted,
    standing.promises_are_sums_of_credits,
    standing.memberships_follow_each_other,
    standing.cards_hold_their_stamps,
    standing.stamps_are_points,
    standing.points_wait_on_open_cards,
)
"""All checks, in the order they are answered."""
