"""What the API refuses, as one tree: a class per refusal, with its status, its stable code and what to do about it.

Every refusal leaves as RFC 9457 problem+json with `code` and, where a part of the request is at fault, `errors` with
JSON pointers. The class docstring is the public explanation; `docs/errors.md` and `openapi.yaml` are made from it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import cleandoc
from typing import Any, ClassVar, ParamSpec, TypeVar

from pydantic import BaseModel, ConfigDict

MEDIA_TYPE = "application/problem+json"

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: where (JSON pointer into the body, `#/...`, or the parameter's name), what, in words."""

    pointer: str
    code: str
    detail: str

    def under(self, prefix: str) -> "Finding":
        """The same finding, seen from a body that holds this one at `prefix` (`/transactions/3`)."""
        return Finding(f"#{prefix}{self.pointer.removeprefix('#')}", self.code, self.detail)


class Problem(Exception):
    """A request that is refused. Subclasses are the refusals."""

    status: ClassVar[int]
    code: ClassVar[str]
    title: ClassVar[str]
    retry_after: ClassVar[int | None] = None
    final: ClassVar[bool] = False
    """A business refusal after execution began: the same `Idempotency-Key` gets the same answer again."""

    def __init__(self, detail: str = "", *, findings: Sequence[Finding] = (), extra: Mapping[str, Any] | None = None):
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.findings = tuple(findings)
        self.extra = dict(extra or {})

    def body(self) -> dict[str, Any]:
        """The problem details object, without the request id (the edge adds it)."""
        body: dict[str, Any] = {
            "type": f"/problems/{self.code}",
            "title": self.title,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
        }
        if self.findings:
            body["errors"] = [{"pointer": f.pointer, "code": f.code, "detail": f.detail} for f in self.findings]
        return body | self.extra

    @property
    def passing(self) -> bool:
        """Whether the same request may well succeed in a moment."""
        return self.status >= 500 or self.retry_after is not None

    @classmethod
    def help(cls) -> str:
        return cleandoc(cls.__doc__ or "")


def or_problem(decide: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R | Problem:
    """What `decide` answers, or its refusal as a value: one item of a batch must not disturb the others."""
    try:
        return decide(*args, **kwargs)
    except Problem as problem:
        return problem


class ProblemItem(BaseModel):
    """One finding of a problem."""

    pointer: str
    code: str
    detail: str


class ProblemBody(BaseModel):
    """RFC 9457 problem details."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    code: str
    detail: str
    request_id: str | None = None
    errors: list[ProblemItem] | None = None


# --- refusals every route shares ------------------------------------------------------------------------------------


class InvalidJson(Problem):
    """The body is not one JSON document in UTF-8, repeats a key, holds NaN or Infinity, or nests too deeply."""

    status, code, title = 400, "invalid_json", "The body is not acceptable JSON"


class InvalidRequest(Problem):
    """A field is missing, unknown, of the wrong type or out of range; `errors` names each."""

    status, code, title = 422, "invalid_request", "The request does not have the expected form"


class Unauthenticated(Problem):
    """No key, or one that is malformed, unknown, expired or revoked; below `/v1/me`, the same of a member's token.
    Send `Authorization: Bearer <key>`."""

    status, code, title = 401, "unauthenticated", "A valid API key, or a member's token below /v1/me, is needed"


class Forbidden(Problem):
    """The key is valid but lacks the scope, the programme or the store that this request needs."""

    status, code, title = 403, "forbidden", "The key does not permit this"


class NotFound(Problem):
    """There is no such thing, or it belongs to somebody else."""

    status, code, title = 404, "not_found", "Not found"


class MethodNotAllowed(Problem):
    """The path exists, the method on it does not."""

    status, code, title = 405, "method_not_allowed", "The method is not allowed here"


class BodyTooLarge(Problem):
    """A body may have 64 KiB, a batch 1 MiB. Send a large batch in parts."""

    status, code, title = 413, "body_too_large", "The body is too large"


class ContentLengthInvalid(Problem):
    """`Content-Length` is a number of bytes: digits only. Most HTTP libraries set it by themselves."""

    status, code, title = 400, "content_length_invalid", "The Content-Length is not a number"


class BodyTimeout(Problem):
    """The body did not arrive in time. Send it again."""

    status, code, title, retry_after = 408, "body_timeout", "The body did not arrive in time", 1


class UnsupportedMediaType(Problem):
    """Send the body as `Content-Type: application/json`."""

    status, code, title = 415, "unsupported_media_type", "The body must be application/json"


class Busy(Problem):
    """The service is at its limit, or the database kept a lock too long. Nothing was written; send it again."""

    status, code, title, retry_after = 503, "busy", "Busy", 1


class OutcomeUnknown(Problem):
    """The connection to the database broke during the commit. Send the same request with the same key again."""

    status, code, title, retry_after = 503, "outcome_unknown", "The outcome is not known yet", 1


class InternalError(Problem):
    """A defect of ours. Everything was rolled back. The `request_id` finds it in our logs."""

    status, code, title = 500, "internal_error", "Something went wrong on our side"


class CursorInvalid(Problem):
    """Use the cursor exactly as the previous page gave it, with the same filters."""

    status, code, title = 400, "cursor_invalid", "The cursor is not one of ours"


class PreconditionRequired(Problem):
    """Send `If-Match` with the `ETag` of the version you read."""

    status, code, title = 428, "precondition_required", "If-Match is needed"


class PreconditionFailed(Problem):
    """It was changed since you read it. Read it again, then repeat your change."""

    status, code, title = 412, "precondition_failed", "It was changed in the meantime"


def every_problem() -> list[type[Problem]]:
    """All refusals the service knows, by code."""
    found: list[type[Problem]] = []
    queue = [Problem]
    while queue:
        for child in queue.pop().__subclasses__():
            queue.append(child)
            if "code" in child.__dict__:
                found.append(child)
    return sorted(found, key=lambda problem: problem.code)


def answers(*problems: type[Problem]) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a route that may refuse with `problems`: one entry per status, one example per code."""
    by_status: dict[int | str, dict[str, Any]] = {}
    for problem in sorted(set(problems), key=lambda p: (p.status, p.code)):
        schema = {"$ref": "#/components/schemas/ProblemBody"}
        entry = by_status.setdefault(
            problem.status, {"description": "", "content": {MEDIA_TYPE: {"schema": schema, "examples": {}}}}
        )
        entry["description"] = " · ".join(filter(None, [entry["description"], f"`{problem.code}`"]))
        example = problem().body() | {"request_id": "0199d3a6b1f07c1e8a52"}
        entry["content"][MEDIA_TYPE]["examples"][problem.code] = {"summary": problem.title, "value": example}
    return by_status


def finding(location: Iterable[str | int], code: str, detail: str) -> Finding:
    """A finding at a Pydantic `loc` or any path of keys, as a JSON pointer (RFC 6901) in URI fragment form."""
    path = [*location]
    if path[-1:] == ["[key]"]:  # so Pydantic says that not the value is at fault, but its name
        path, detail = path[:-1], f"its name: {detail}"
    steps = (str(step).replace("~", "~0").replace("/", "~1") for step in path)
    return Finding("#" + "".join(f"/{step}" for step in steps), code, detail)
