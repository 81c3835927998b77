"""Replaying a draft over the past: what was published, replayed, gives what was granted, to the point."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app import programs, transactions
from app.db import Database
from app.errors import Problem
from app.insight.replay import PeriodInvalid, Period, replay
from app.insight.rules import Totals
from app.programs import Terms
from tests.conftest import settings_for
from tests.shop import TERMS, Shop, TestClock, open_shop, purchase, returned
from tests.test_rules_for_members import PROFILE, RULES, enrol

ALWAYS = Period(datetime(2000, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC))


def replayed(database: Database, program_id: UUID, terms: dict[str, Any] | Terms, within: Period = ALWAYS) -> Totals:
    draft = terms if isinstance(terms, Terms) else Terms.model_validate(terms)
    *_, totals = replay(database, program_id, draft, within, datetime(2030, 1, 1, tzinfo=UTC))
    return totals


def test_x(database_url: str, clock: TestClock) -> None:
    with open_shop(settings_for(database_url), clock, TERMS | {"rules": RULES}) as shop:
        enrol(shop, **PROFILE)
        shop.post(purchase("r1"))
        shop.post(purchase("r2"))
        shop.post(returned("b1", "r1"))
        t = replayed(shop.database, shop.program_id, TERMS | {"rules": RULES})
        print(t)
        assert t.all.published == t.all.draft
        assert 0
