"""Programmes as files: read with everything that is wrong, planned, applied once, written back; and the examples."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import update
from sqlalchemy.orm import Session

from app import blueprints, programs
from app.blueprints import Blueprint, NotABlueprint, Plan, PlanChanged
from app.db import Database
from app.demo import EXAMPLES
from app.programs.service import retire_terms
from app.redemptions import RewardRow
from tests.shop import PEPPER, TERMS

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
MUG = {"code": "mug", "name": "Mug", "points": 100, "currency": "USD"}
SMALL: dict[str, Any] = {"program": {"code": "small", "name": "Small shop"}, "terms": TERMS, "rewards": [MUG]}
TEXT = """\
program: {code: small, name: Small shop}
terms:
  currency: USD
  time_zone: America/New_York
  earning: {points: 1, per: 100}
  point_value: {amount: 1000, points: 1000}
  redemption_rate: {numerator: 4, denominator: 5}
"""


def blueprint(**changes: Any) -> Blueprint:
    return Blueprint.model_validate(SMALL | changes)


# --- reading --------------------------------------------------------------------------------------------------------


def test_words_that_older_yaml_takes_for_something_else() -> None:
    """`on` is a field, `20:00` a time of day, `no` a name, a date a date; in the way people write them."""
    rule = """
  rules:
    - code: no
      name: off
      gives: {type: fixed, points: 5}
      on: {departments: [yes, NO, 1e3]}
      when: {first_day: 2026-12-01, hours: {begin: 20:00, end: 08:30}}
"""
    (read,) = blueprints.read(TEXT + rule).terms.rules
    assert (read.code, read.name, read.on.departments) == ("no", "off", ["yes", "NO", "1e3"])
    assert read.when.hours is not None
    assert (str(read.when.first_day), str(read.when.hours.begin), str(read.when.hours.end)) == (
        "2026-12-01",
        "20:00:00",
        "08:30:00",
    )


def test_everything_that_is_wrong_is_said_at_once_with_its_line() -> None:
    text = TEXT.replace("points: 1, per: 100", "points: -1, per: 1.5").replace("America/New_York", "Nowhere")
    text += "  expiri: {months: 12}\nrewards:\n  - code: mug\n    name: Mug\n    points: many\n    currency: USD\n"
    with pytest.raises(NotABlueprint) as wrong:
        blueprints.read(text)
    lines = [line.split(": ")[:2] for line in str(wrong.value).splitlines()]
    assert lines == [
        ["line 4", "terms.time_zone"],
        ["line 5", "terms.earning.per"],
        ["line 5", "terms.earning.points"],
        ["line 8", "terms.expiri"],
        ["line 12", "rewards.0.points"],
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: the file: "),
        ("just words", "line 1: the file: "),
        ("program: [", "line 1: "),
        ("program: {}\nprogram: {}", "line 2: program is there twice"),
        ("program: &p {}\nterms: *p", "line 2: anchors are not read"),
        ("program: !!python/name:os.system\n", "line 1: could not determine a constructor"),
        ("[" * 5000, "not YAML"),
        (TEXT + "rewards: [{code: a, name: A, points: 1, currency: EUR}]", "line 1: the file: reward a is not in the"),
    ],
)
def test_what_is_no_blueprint(text: str, message: str) -> None:
    with pytest.raises(NotABlueprint) as wrong:
        blueprints.read(text)
    assert str(wrong.value).startswith(message), wrong.value


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"rewards": [MUG | {"supplier": {"type": "own", "cost": 40}, "available_from": "2026-11-01T08:00:00-05:00"}]},
        {"rewards": [MUG | {"supplier": {"type": "agent", "name": "Yes", "charge": 0}, "blackout_dates": ["12-24"]}]},
        {"rewards": [MUG | {"item": {"kind": "voucher", "value": 5, "valid_days": 9}, "supply": 0}]},
        {"terms": TERMS | {"expiry": {"mode": "fixed_dates", "dates": ["12-31"]}, "transfers": {}, "pools": {}}},
        {"terms": TERMS | {"expiry": {"mode": "inactivity", "days": 9}, "pending": {"mode": "days", "days": 2}}},
        {
            "terms": TERMS
            | {
                "rules": [
                    {
                        "code": "on",
                        "name": "Nr. 5: \"off\" # no, 20:00",
                        "gives": {"type": "multiply", "times": 3, "divisor": 2},
                        "when": {"hours": {"begin": "20:00", "end": "00:00"}, "first_day": "2026-12-01"},
                        "on": {"departments": ["1e3", "null", "0x1F", "1_000", "=", "~"]},
                        "who": {"attributes": {"a": ["true", "12"]}, "birthday": {}},
                    }
                ]
            }
        },
        {"program": {"code": "small", "name": "Ünï", "accounts": {"cash": "1001"}}},
    ],
)  # fmt: skip
def test_what_is_written_is_read_back(changes: dict[str, Any]) -> None:
    """And other readers of YAML see the same."""
    wanted = blueprint(**changes)
    text = blueprints.write(wanted)
    assert blueprints.read(text) == wanted
    assert Blueprint.model_validate(yaml.safe_load(text)) == wanted


# --- planning and applying ------------------------------------------------------------------------------------------


def planned(database: Database, wanted: Blueprint) -> Plan:
    return database.read(lambda session: blueprints.plan(session, wanted))


def applied(database: Database, wanted: Blueprint, now: datetime = NOW) -> list[str]:
    """What was done, in words."""
    plan = planned(database, wanted)
    assert not plan.conflicts
    database.write(lambda session: blueprints.apply(session, wanted, plan, now))
    return blueprints.lines_of(plan)


def test_a_file_applied_twice_is_applied_once(database: Database) -> None:
    wanted = blueprint()
    assert applied(database, wanted) == ["+ programme small", "~ terms: publish", "+ reward mug"]
    assert planned(database, wanted) == Plan((), ())
    assert database.read(lambda session: blueprints.export(session, "small")) == wanted


def test_a_plan_says_what_changes_and_nothing_else_does(database: Database) -> None:
    applied(database, blueprint(rewards=[MUG, MUG | {"code": "old"}]))
    changed = blueprint(
        program={"code": "small", "name": "Small store"},
        terms=TERMS | {"earning": {"points": 2, "per": 100}},
        rewards=[MUG | {"points": 90}, MUG | {"code": "new"}],
    )
    later = NOW + timedelta(hours=1)
    assert applied(database, changed, later) == [
        "~ programme small: another name",
        "~ terms: publish",
        "    earning, points: 2 instead of 1",
        "~ reward mug",
        "    points: 90 instead of 100",
        "+ reward new",
        "- reward old: retire",
    ]
    assert planned(database, changed) == Plan((), ())
    exported = database.read(lambda session: blueprints.export(session, "small"))
    assert (exported.program, exported.terms) == (changed.program, changed.terms)
    assert {reward.code: reward.points for reward in exported.rewards} == {"mug": 90, "new": 100}


def test_a_draft_that_says_the_same_is_published(database: Database) -> None:
    """Instead of a copy; a retired one is not."""
    applied(database, blueprint())
    double = blueprint(terms=TERMS | {"earning": {"points": 2, "per": 100}})

    def draft(session: Session) -> int:
        program = programs.find_program(session, "small")
        assert program is not None
        first, second = (programs.draft_terms(session, program.id, double.terms, NOW).version for _ in range(2))
        retire_terms(session, program.id, first, NOW)
        return second

    version = database.write(draft)
    assert applied(database, double, NOW + timedelta(hours=1))[0] == f"~ terms: publish draft {version}"


def test_conflicts_are_all_said_and_nothing_is_planned(database: Database) -> None:
    applied(database, blueprint(rewards=[MUG, MUG | {"code": "old"}]))
    applied(database, blueprint())
    wanted = blueprint(
        program={"code": "small", "name": "Other", "accounts": {"cash": "1001"}}, rewards=[MUG | {"code": "old"}]
    )
    plan = planned(database, wanted)
    assert plan.steps == ()
    assert [each.pointer for each in plan.conflicts] == ["/program/accounts/cash", "/rewards/0/code"]


def test_a_programme_that_changed_since_the_plan_is_left_alone(database: Database) -> None:
    applied(database, blueprint())
    wanted = blueprint(rewards=[MUG | {"points": 90}])
    plan = planned(database, wanted)
    applied(database, blueprint(rewards=[MUG | {"points": 80}]))
    with pytest.raises(PlanChanged):
        database.write(lambda session: blueprints.apply(session, wanted, plan, NOW))


def test_pieces_that_are_ordered_stay_in_the_supply(database: Database) -> None:
    applied(database, blueprint(rewards=[MUG | {"supply": 5}]))
    database.write(lambda session: session.execute(update(RewardRow).values(taken=3)))
    (conflict,) = planned(database, blueprint(rewards=[MUG | {"supply": 2}])).conflicts
    assert (conflict.pointer, conflict.detail) == ("/rewards/0/supply", "3 pieces have been ordered")
    assert planned(database, blueprint(rewards=[MUG | {"supply": 3}])).conflicts == ()


# --- the examples, and the command line -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", EXAMPLES.values(), ids=EXAMPLES.keys())
def test_each_example_loads(database: Database, path: Path) -> None:
    wanted = blueprints.read(path.read_text(encoding="utf-8"))
    assert wanted.program.code == path.stem
    assert applied(database, wanted)[0] == f"+ programme {path.stem}"
    assert planned(database, wanted) == Plan((), ())


FIRED = {
    "airline": {"base", "tier:silver", "partner_shop", "first_flight"},
    "coffee-shop": {"stamps:drinks", "stamps:pastry"},
    "department-store": {"base", "evening", "cosmetics"},
    "grocer": {"base", "triple_produce", "big_shop", "welcome"},
    "hotel-club": {"base", "tier:gold", "breakfast", "sunday_night", "members_week"},
}
"""What gives points for three days of a grocer's baskets. Nobody is known to have a birthday, is invited to a tier, or
has paid for a club before."""


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_example_runs_on_real_baskets(tmp_path: Path, name: str) -> None:
    """No basket is refused, its rules give points, and the books are right afterwards: else the demo ends with 1."""
    done = loyalty(tmp_path, "demo", "--program", name)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "REFUSED" not in done.stdout
    told = done.stdout.split("points by rule")[1].split("\n\n")[0].splitlines()[1:]
    rows = [line.split() for line in told if line.startswith("  ")]
    assert {code for code, _, points in rows if points != "0"} == FIRED[name]


def loyalty(folder: Path, *words: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"DATABASE_URL": f"sqlite:///{folder}/loyalty.db", "LOYALTY_KEY_PEPPER": PEPPER}
    if words[0] == "demo":
        del environment["DATABASE_URL"]
    command = [sys.executable, "-m", "app.cli", *words]
    return subprocess.run(
        command, env=environment, input=typed, capture_output=True, text=True, timeout=180, check=False
    )


def test_apply_export_and_replay_at_the_command_line(tmp_path: Path) -> None:
    """Nothing is done unasked; done once there is nothing to do; a replay finds what there is."""
    assert loyalty(tmp_path, "migrate").returncode == 0
    grocer = str(EXAMPLES["grocer"])
    dry = loyalty(tmp_path, "programs", "apply", grocer, "--dry-run")
    assert (dry.returncode, dry.stdout.splitlines()[:2]) == (3, ["+ programme grocer", "~ terms: publish"]), dry.stderr
    assert loyalty(tmp_path, "programs", "apply", grocer, typed="y\n").returncode == 3, "nobody is at the terminal"
    since = "2000-01-01T00:00:00+0000"
    done = loyalty(tmp_path, "programs", "apply", grocer, "--yes", "--effective-from", since)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "done"), done.stderr
    again = loyalty(tmp_path, "programs", "apply", grocer, "--yes")
    assert (again.returncode, again.stdout) == (0, "nothing to do\n")
    edited = tmp_path / "edited.yaml"
    edited.write_text(EXAMPLES["grocer"].read_text(encoding="utf-8").replace("per: 100", "per: 50"), encoding="utf-8")
    for_later = ("--yes", "--effective-from", "2100-01-01T00:00:00+0000")
    assert loyalty(tmp_path, "programs", "apply", str(edited), *for_later).returncode == 0
    followed = loyalty(tmp_path, "programs", "apply", grocer, "--yes")
    assert (followed.returncode, followed.stderr) == (
        1,
        "effective_from_invalid: version 2 is published from 2100-01-01T00:00:00+00:00 and would follow;"
        " a later --effective-from would do\n",
    )
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("name: Café\n".encode("latin-1"))
    for words in (("apply",), ("replay", "--from", "2017-01-01", "--to", "2017-01-31")):
        unread = loyalty(tmp_path, "programs", words[0], str(latin), *words[1:])
        assert (unread.returncode, unread.stderr) == (1, f"{latin}: not UTF-8, byte 10\n")
    exported = loyalty(tmp_path, "programs", "export", "grocer")
    copy = tmp_path / "copy.yaml"
    copy.write_text(exported.stdout, encoding="utf-8")
    assert loyalty(tmp_path, "programs", "apply", str(copy), "--dry-run").stdout == "nothing to do\n"
    replayed = loyalty(tmp_path, "programs", "replay", str(copy), "--from", "2017-01-01", "--to", "2017-01-31")
    assert (replayed.returncode, replayed.stdout.splitlines()[0]) == (0, "0 purchases of 0 members"), replayed.stderr
    copy.write_text(exported.stdout.replace("per: 50", "per: 0"), encoding="utf-8")
    wrong = loyalty(tmp_path, "programs", "apply", str(copy))
    assert wrong.returncode == 1
    assert "terms.earning.per" in wrong.stderr
    missing = loyalty(tmp_path, "programs", "export", "nobody")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert missing.stderr.startswith("not_found")
