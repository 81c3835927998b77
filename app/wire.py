"""What travels in requests and answers: strict models, and the few scalar types they are made of."""

import json
import re
from datetime import date, datetime
from functools import lru_cache
from typing import Annotated, Any, get_args
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

LARGEST = 2**53 - 1
"""The largest integer that every JSON reader keeps exactly."""


class Request(BaseModel):
    """A request body: no conversions ("1" is not 1, true is not 1), no unknown fields, immutable."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)


class Answer(BaseModel):
    """An answer body, built by us."""

    model_config = ConfigDict(frozen=True, from_attributes=True, hide_input_in_errors=True)


_RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-5][0-9])"
)


def _instant(value: Any) -> Any:
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or not _RFC_3339.fullmatch(value):
        raise PydanticCustomError("instant", "an RFC 3339 date and time with its offset is needed")
    try:
        instant = datetime.fromisoformat(value)
    except ValueError:
        raise PydanticCustomError("instant", "an RFC 3339 date and time with its offset is needed") from None
    if not 1970 <= instant.year <= 9990:
        raise PydanticCustomError("instant_out_of_range", "the year must be between 1970 and 9990")
    return instant


def _uuid(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", value):
        return UUID(value)
    if isinstance(value, UUID):
        return value
    raise PydanticCustomError("uuid", "an identifier of ours (a UUID) is needed")


WireInstant = Annotated[AwareDatetime, BeforeValidator(_instant), Field(examples=["2026-11-01T11:53:26-05:00"])]
"""RFC 3339 with an offset. The offset is kept."""

WireId = Annotated[UUID, BeforeValidator(_uuid)]

Text = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""One line of text: no control characters."""

Token = Annotated[str, Field(min_length=1, max_length=32, pattern=r"^[a-z0-9_]+$")]
"""A short word chosen by whoever integrates: `cash`, `gift_card`."""

CurrencyCode = Annotated[str, Field(pattern=r"^[A-Z]{3}$", examples=["USD"])]

Points = Annotated[int, Field(ge=1, le=LARGEST)]
"""Whole points, at least one."""

Minor = Annotated[int, Field(ge=0, le=LARGEST)]
"""Minor units of a currency."""

Quantity = Annotated[str, Field(pattern=r"^-?[0-9]{1,12}(\.[0-9]{1,6})?$", examples=["1"])]
"""A decimal in a string: things sold by weight have a fraction."""

Source = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,64}$", examples=["store-330"])]
"""Whoever numbers the receipts: a store system, not a key and not a till."""

ExternalId = Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,128}$", examples=["31198570044"])]
"""The receipt's number, unique within its source."""

Stamp = Annotated[datetime, PlainSerializer(datetime.isoformat, return_type=str)]
"""An instant in an answer, with its offset."""


def _day(value: Any) -> Any:
    if isinstance(value, date):
        return value
    try:
        return date.fromisoformat(value) if isinstance(value, str) and len(value) == len("2026-11-22") else value
    except ValueError:
        raise PydanticCustomError("not_a_day", "there is no such day") from None


Day = Annotated[date, BeforeValidator(_day)]
"""A day of the calendar, `2026-11-22`."""


class JsonText(str):
    """A document that is JSON already: the database gets it as it is."""

    def parsed(self) -> Any:
        return json.loads(self)


def chosen_by(name: str, value: Any, *models: type[Request]) -> Any:
    """A document as that of some models which its field `name` names; where it names none, as one that need not be
    named.

    Unlike a discriminated union's, the findings of what is wrong with it point at its fields; of one that none is meant
    by, only that can be said.
    """
    if isinstance(value, Request):
        return value
    if not isinstance(value, dict):
        raise PydanticCustomError("model_type", "an object is needed")
    kinds, unnamed = _kinds(name, models)
    kind = value.get(name, unnamed)
    if isinstance(kind, str) and kind in kinds:
        return kinds[kind].model_validate(value)
    code = "literal_error" if name in value else "missing"
    told = PydanticCustomError(code, "one of {kinds} is needed", {"kinds": ", ".join(kinds)})
    raise ValidationError.from_exception_data(name, [InitErrorDetails(type=told, loc=(name,), input=kind)])


@lru_cache
def _kinds(name: str, models: tuple[type[Request], ...]) -> tuple[dict[str, type[Request]], str | None]:
    """The models by what names them, and the name of the one that need not be named."""
    fields = {model: model.model_fields[name] for model in models}
    kinds = {kind: model for model, field in fields.items() for kind in get_args(field.annotation)}
    return kinds, next((field.default for field in fields.values() if not field.is_required()), None)


class Money(Answer):
    """An amount in minor units of a currency."""

    amount: Annotated[int, Field(examples=[1999])]
    currency: CurrencyCode
