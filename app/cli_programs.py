"""`loyalty programs`: programmes as files, and what a draft would have given."""

import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer
from sqlalchemy.orm import Session

from app import blueprints, insight, programs
from app.blueprints import Blueprint, NotABlueprint, Plan
from app.config import Settings
from app.db import Database
from app.insight import Figures, Given, Moves, Period, Totals
from app.money import show
from app.programs import Terms

commands = typer.Typer(no_args_is_help=True, help="Programmes as files.")

LEFT_TO_DO = 3
"""The exit code of `apply` when there is something to do that was not done."""

File = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A programme as YAML")]


@commands.command("export")
def export(
    code: str, version: Annotated[int | None, typer.Option(help="Of the terms; those published last without it")] = None
) -> None:
    """Prints a programme as the YAML file that `apply` reads."""
    found = Database(Settings()).read(lambda session: blueprints.export(session, code, version))
    print(blueprints.write(found), end="")


@commands.command("apply")
def apply(
    file: File,
    yes: Annotated[bool, typer.Option("--yes", help="Does it without asking")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only says what would be done")] = False,
    effective_from: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%dT%H:%M:%S%z"], help="From when new terms hold, with an offset; now without it"),
    ] = None,
) -> None:
    """Makes a programme as its file says: shows what that changes, asks, and does it.

    Exit code 0: it is as the file says; 1: it cannot be, and why; 3: there is something to do and it was not done.
    """
    text = _text(file)
    wanted, database = _read(text, file), Database(Settings())
    plan = database.read(lambda session: blueprints.plan(session, wanted))
    _show(plan, text, file)
    if not plan.steps:
        return
    if dry_run or not (yes or _agreed()):
        raise typer.Exit(LEFT_TO_DO)
    now = datetime.now(UTC)
    database.write(lambda session: blueprints.apply(session, wanted, plan, now, effective_from))
    print("done")


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as wrong:
        raise SystemExit(f"{file}: not UTF-8, byte {wrong.start + 1}") from None


def _read(text: str, file: Path) -> Blueprint:
    try:
        return blueprints.read(text)
    except NotABlueprint as wrong:
        raise SystemExit("\n".join(f"{file}: {line}" for line in str(wrong).splitlines())) from None


def _show(plan: Plan, text: str, file: Path) -> None:
    """Prints a plan; ends with its conflicts, if there are any."""
    if plan.conflicts:
        lines = [f"{file}: line {blueprints.line_of(text, each.pointer)}: {each.detail}" for each in plan.conflicts]
        raise SystemExit("\n".join(lines))
    for line in blueprints.lines_of(plan) or ["nothing to do"]:
        print(line)


def _agreed() -> bool:
    """Whether somebody at the terminal says yes; where there is none, nobody does."""
    return sys.stdin.isatty() and typer.confirm("Do that?")


# --- replay ---------------------------------------------------------------------------------------------------------


@commands.command("replay")
def replay(
    file: File,
    since: Annotated[str, typer.Option("--from", help="First day, in the file's zone, or an instant with offset")],
    until: Annotated[str, typer.Option("--to", help="Last day, or the first instant after the period")],
) -> None:
    """Says what the terms of a file would have given for the purchases of a period, and what those were given."""
    wanted, database, now = _read(_text(file), file), Database(Settings()), datetime.now(UTC)
    within = insight.period(_instant(since, wanted.terms, 0), _instant(until, wanted.terms, 1), now)

    def about(session: Session) -> tuple[UUID, int]:
        program = programs.find_program(session, wanted.program.code)
        if program is None:
            raise typer.BadParameter(f"no programme {wanted.program.code}")
        return program.id, insight.count_members(session, program.id)

    program_id, members = database.read(about)
    _report(_replayed(database, program_id, wanted.terms, within, now, members), wanted.terms.currency)


def _replayed(
    database: Database, program_id: UUID, terms: Terms, within: Period, now: datetime, members: int
) -> Totals:
    totals = Totals()
    with typer.progressbar(length=members, label="replaying members", file=sys.stderr) as bar:
        for totals in insight.replay(database, program_id, terms, within, now):
            bar.update(totals.members - bar.pos)
    return totals


def _instant(text: str, terms: Terms, days: int) -> datetime:
    """An instant, or the beginning of a day so many days later."""
    try:
        if len(text) == len("2026-11-22"):
            return programs.day_begins(date.fromisoformat(text) + timedelta(days=days), terms.zone)
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text} is neither a date nor an instant") from None
    if instant.tzinfo is None:
        raise typer.BadParameter(f"{text} has no offset")
    return instant.astimezone(UTC)


def _report(totals: Totals, currency: str) -> None:
    """A line for each figure: what was given, what the file's terms would have given, and the difference."""
    print(f"{totals.purchases:,} purchases of {totals.members:,} members")
    print(f"{'':<32}{'published':>14}{'this file':>14}{'difference':>14}")
    _compare("points", totals.all.published, totals.all.draft, "points")
    _compare("  taken back", totals.all.published, totals.all.draft, "taken_back")
    _compare(f"deferred revenue ({currency})", totals.all.published, totals.all.draft, "deferred", currency)
    _compare("  given back", totals.all.published, totals.all.draft, "given_back", currency)
    for title, groups in (("store", totals.stores), ("segment", totals.segments)):
        for name, each in sorted(groups.items(), key=lambda item: item[0] or ""):
            _compare(f"points, {title} {name or 'unknown'}", each.published, each.draft, "points")
    for name, rule in totals.rules.items():
        _compare(f"points, rule {name}", rule.published, rule.draft, "points")
    tiers = [
        ("", totals.tiers),
        *((f", segment {name}", each) for name, each in sorted(totals.tiers_by_segment.items())),
    ]
    for group, moved in tiers if totals.tiers.published.members else ():
        _compare(f"members who rose{group}", moved.published, moved.draft, "rose")
        _compare(f"members who fell{group}", moved.published, moved.draft, "fell")
    for code, count in sorted(totals.refused.items()):
        print(f"{count:,} purchases would have been refused: {code}")
    if totals.assumed:
        print(f"{totals.assumed:,} purchases were judged by what is known of their members today")


def _compare(
    label: str,
    published: Figures | Given | Moves,
    draft: Figures | Given | Moves,
    name: str,
    currency: str | None = None,
) -> None:
    before, after = getattr(published, name), getattr(draft, name)
    figures = [f"{each:,}" if currency is None else show(each, currency) for each in (before, after, after - before)]
    print(f"{label:<32}" + "".join(f"{figure:>14}" for figure in figures))
