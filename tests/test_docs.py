"""The pages say what the code does: settings, errors, terms, accounts, examples, links, and openapi.yaml.

`python -m tests.test_docs > docs/errors.md` writes the page of errors anew.
"""

import ast
import json
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from textwrap import indent
from typing import Any, get_args, get_origin
from uuid import UUID

import pytest
import yaml
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate
from pydantic import AliasChoices, BaseModel, SecretStr
from pydantic.fields import FieldInfo

from app import __version__, accounting, blueprints, clients, db, telemetry, worker
from app.cli import describe
from app.config import Settings
from app.errors import MEDIA_TYPE, Problem, every_problem
from app.holds.schemas import HoldIn
from app.ledger import PlannedEntry
from app.main import create_app
from app.money import show
from app.programs import EXAMPLE_TERMS, Terms, check_basket
from app.redemptions.schemas import RedemptionIn
from app.transactions.schemas import LineIn, PurchaseIn, ReturnIn, TenderIn, basket_of
from app.transfers.schemas import TransferIn
from tests.conftest import settings_for

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("**/*.md"), ROOT / "samples" / "README.md"])
METHODS = ("get", "put", "post", "delete", "patch")


def page(name: str) -> str:
    return (DOCS / f"{name}.md").read_text()


def table(text: str, first_column: str) -> list[list[str]]:
    """The rows of the table whose header begins with `first_column`, cells without their blanks."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {first_column} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def examples(text: str) -> list[Any]:
    """The JSON blocks of a page."""
    return [json.loads(block) for block in re.findall(r"^```json\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)]


def code_of(cell: str) -> str:
    """What stands in a cell's first backticks."""
    found = re.match(r"`([^`]+)`", cell)
    assert found is not None, cell
    return found[1]


# --- errors ---------------------------------------------------------------------------------------------------------


def problems() -> list[type[Problem]]:
    """Refusals of the service; a test may define others."""
    return [problem for problem in every_problem() if problem.__module__.startswith("app.")]


ERRORS_HEAD = """\
# Errors

Every refusal is `application/problem+json` ([form](api.md#refusals)). `code` is stable; go by it, not by the words. A
running service explains a code at `GET /problems/{code}`. This page is made from `app/errors.py` and its subclasses:
`python -m tests.test_docs > docs/errors.md`.

The last column: *kept* is a final answer, which an `Idempotency-Key` gets again for 30 days; *n s* comes with
`Retry-After: n`, and the same request may succeed then. Any other refusal is judged anew when you repeat it.

| code | status | title | what it means, and what to do | again |
|---|---|---|---|---|
"""


def errors_page() -> str:
    """`docs/errors.md` as the tree of refusals has it."""
    rows = []
    for problem in problems():
        meaning = " ".join(problem.help().split())
        cells = [f"`{problem.code}`", str(problem.status), problem.title, meaning, _again(problem)]
        rows.append(f"| {' | '.join(cells)} |\n")
    return ERRORS_HEAD + "".join(rows)


def _again(problem: type[Problem]) -> str:
    waiting = f"{problem.retry_after} s" if problem.retry_after is not None else ""
    return "kept" if problem.final else waiting


def test_errors_page_is_what_the_tree_says() -> None:
    assert page("errors") == errors_page(), "python -m tests.test_docs > docs/errors.md"


def test_codes_named_with_a_status_have_that_status() -> None:
    known = {(str(problem.status), problem.code) for problem in problems()}
    named = {found for path in PAGES for found in re.findall(r"\b([45]\d\d) `([a-z_]+)`", path.read_text())}
    assert ("409", "transaction_conflict") in named
    assert named <= known


# --- settings -------------------------------------------------------------------------------------------------------


def names_of(name: str, field: FieldInfo) -> set[str]:
    """The environment variables a setting is read from."""
    if isinstance(field.validation_alias, AliasChoices):
        return {str(choice) for choice in field.validation_alias.choices}
    return {f"LOYALTY_{name.upper()}"}


def default_of(field: FieldInfo) -> str:
    if field.default is None or isinstance(field.default, SecretStr):
        return "none"
    return f"`{str(field.default).lower()}`"


ENVIRONMENT = {name for key, field in Settings.model_fields.items() for name in names_of(key, field)}


def test_every_setting_is_documented_with_its_default() -> None:
    rows = table(page("operations"), "setting")
    documented = {frozenset(re.findall(r"`([A-Z_]+)`", row[0])): row[1] for row in rows}
    fields = Settings.model_fields.items()
    assert documented == {frozenset(names_of(name, field)): default_of(field) for name, field in fields}


def test_environment_variables_named_are_settings() -> None:
    files = [*PAGES, ROOT / "compose.yaml", ROOT / "Dockerfile", ROOT / "Makefile"]
    named = {name for path in files for name in re.findall(r"\bLOYALTY_[A-Z_]*[A-Z]\b", path.read_text())}
    assert "LOYALTY_KEY_PEPPER" in named
    assert named <= ENVIRONMENT


def test_metrics_and_jobs_are_documented() -> None:
    telemetry.REQUESTS.labels("GET", "/", 200)
    families = re.findall(r"^# TYPE (loyalty_\w+) ", telemetry.exposition().decode(), re.MULTILINE)
    families = [name for name in families if not name.endswith("_created")]
    assert {code_of(row[0]) for row in table(page("operations"), "metric")} == set(families)
    assert {code_of(row[0]) for row in table(page("operations"), "job")} == worker.JOBS.keys()


# --- the API --------------------------------------------------------------------------------------------------------


def leaves(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """The fields of a document, dotted; a list, or one that may be absent as a whole, comes itself, too."""
    for name, field in model.model_fields.items():
        inner = [kind for kind in (field.annotation, *get_args(field.annotation)) if _is_model(kind)]
        many = "[]" if get_origin(field.annotation) is list else ""
        if not inner or many or field.default is None:
            yield f"{path}{name}", field
        for kind in inner:
            yield from leaves(kind, f"{path}{name}{many}.")


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def test_every_terms_field_is_documented_with_its_default() -> None:
    section = page("api").split("\n## Terms\n")[1]
    kinds = (
        "field",
        "field of a rule",
        "field of a stamp card",
        "field of a tier",
        "field of a club",
        "field of a campaign",
    )
    rows = [row for kind in kinds for row in table(section, kind)]
    documented = {code_of(row[0]): row[1] for row in rows}
    expected: dict[str, str] = {}
    for path, field in leaves(Terms):  # of a field of several modes, the first mode says the default
        expected.setdefault(path, "required" if field.is_required() else f"`{json.dumps(field.default)}`")
    assert documented == expected


def test_every_purchase_field_is_documented() -> None:
    section = page("api").split("\n## A purchase\n")[1].split("\n## ")[0]
    named = {name for row in table(section, "field") for name in re.findall(r"`([^`]+)`", row[0])}
    short = {name.removeprefix("lines[].").removeprefix("tenders[].") for name in named}
    whole = {*PurchaseIn.model_fields, *LineIn.model_fields, *TenderIn.model_fields} - {"lines", "tenders"}
    assert short == whole


def test_examples_of_the_api_page_are_accepted() -> None:
    found = iter(examples(page("api")))
    entry, problem, purchase, goods_back, hold, gift, terms, ruled, stamped, tiered, clubbed, offered, redemption = (
        found
    )
    planned = PlannedEntry.model_validate(entry)
    assert planned.points == planned.available == sum(lot.points for lot in planned.lots)
    read = Terms.model_validate(terms)
    assert read.currency == "EUR"
    assert [rule.gives.type for rule in Terms.model_validate(terms | ruled).rules] == ["multiply", "fixed"]
    assert Terms.model_validate(terms | stamped).stamp_cards[0].head_start == 2
    assert Terms.model_validate(terms | tiered).tiers is not None
    assert [club.joining.type for club in Terms.model_validate(terms | clubbed).clubs] == ["fee", "promise", "purchase"]
    campaigns = Terms.model_validate(terms | offered).campaigns
    assert [campaign.occasion.type for campaign in campaigns] == ["sign_up", "birthday", "win_back", "referral"]
    body = PurchaseIn.model_validate(purchase)
    assert check_basket(basket_of(body), read) == []
    assert ReturnIn.model_validate(goods_back).original is not None
    assert HoldIn.model_validate(hold).points == TransferIn.model_validate(gift).points * 5
    assert RedemptionIn.model_validate(redemption).immediate
    known = {kind.code: kind for kind in problems()}
    assert problem == known[problem["code"]]().body() | {key: problem[key] for key in ("errors", "request_id")}


def test_every_scope_is_documented_with_its_kinds() -> None:
    rows = [[code_of(row[0]), *row[1:]] for row in table(page("api"), "scope")]
    kinds: list[clients.Kind] = ["terminal", "partner", "staff"]
    assert rows == [
        [scope, meaning, *("yes" if scope in clients.KINDS[kind] else "" for kind in kinds)]
        for scope, meaning in clients.SCOPES.items()
    ]


# --- accounting -----------------------------------------------------------------------------------------------------


def test_chart_of_accounts_is_the_one_in_the_code() -> None:
    rows = [[*row[:3], code_of(row[3])] for row in table(page("accounting"), "code")]
    assert rows == [[role.code, role.name, role.kind, name] for name, role in accounting.ROLES.items()]


SEED_POINTS = 150 * Fraction(2000, 1000) * Fraction(100, 150)
"""150 points at 20.00 per 1,000, of which 100 in 150 are expected to be used: their stand-alone price, in cents."""


def test_the_seed_example_is_what_the_code_computes() -> None:
    text = page("accounting")
    relative = accounting.allocate(15000, [Fraction(15000)], SEED_POINTS)
    residual = accounting.allocate(15000, [Fraction(15000)], SEED_POINTS, method="residual")
    exact = 15000 * SEED_POINTS / (15000 + SEED_POINTS)
    assert f"= {float(exact / 100):.6f}... → {show(relative.points, 'USD')}" in text
    assert f"150.00 − {show(relative.points, 'USD')} = {show(sum(relative.goods), 'USD')}" in text
    assert f"{float(exact):.6f} minor units: {relative.points} and a residue of {relative.residue}." in text
    full_price, rest = show(residual.points, "USD"), show(sum(residual.goods), "USD")
    assert re.search(
        rf"stand-alone price, {full_price}, at most what was\npaid, and the goods the rest, {rest}\.", text
    )


def test_the_seed_postings_are_what_the_code_posts() -> None:
    share = accounting.allocate(15000, [Fraction(15000)], SEED_POINTS).points
    chart = accounting.default_codes()
    some, day = UUID(int=1), datetime(2026, 11, 1, tzinfo=UTC)
    sale = accounting.Sale(some, some, "USD", day, day.date(), 15000, 0, share, some)
    profiles: list[accounting.Profile] = ["adjustment", "full"]
    posted = [
        [profile, posting.debit, posting.credit, show(posting.amount, "USD")]
        for profile in profiles
        for posting in accounting.sale_postings(sale, profile, chart)
    ]
    assert table(page("accounting"), "profile") == posted


def test_the_rounding_example_is_what_the_code_computes() -> None:
    """Two hundred thousand sales of 0.50, one point each."""
    price = Fraction(2000, 1000) * Fraction(2, 3)
    one = accounting.allocate(50, [Fraction(50)], price)
    exact = 200_000 * 50 * price / (50 + price)
    text = page("accounting")
    assert f"0.{round(exact / 200_000 / 100 * 10**6):06}... = {show(round(exact), 'USD')}" in text
    assert f"posted    200,000 × {show(one.points, 'USD')}        = {show(200_000 * one.points, 'USD')}" in text
    assert f"residue   {show(round(Fraction(200_000 * one.residue, 10**6)), 'USD')}\n" in text


# --- structure ------------------------------------------------------------------------------------------------------


def test_every_table_and_module_is_on_the_map() -> None:
    text = page("architecture")
    named = {name for row in table(text, "table") for name in re.findall(r"`([a-z_]+)`", row[0])}
    assert named == db.Base.metadata.tables.keys()
    tower = re.sub("#.*", "", text.split("```text\n")[1].split("```")[0]).split()
    modules = {
        path.stem for path in (ROOT / "app").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert sorted(tower) == sorted(modules - {"__init__"})


def test_names_on_the_map_exist() -> None:
    text = page("architecture")
    files = re.findall(r"`([a-z_]+(?:/[a-z_]+)*\.py)`", text)
    assert "programs/earning.py" in files
    assert [name for name in files if not (ROOT / "app" / name).exists()] == []
    helpers = re.findall(r"`db\.(\w+)`", text.replace("db.py", ""))
    assert "insert_rows" in helpers
    assert [name for name in helpers if not hasattr(db, name)] == []


def test_tests_named_exist() -> None:
    """And each known failure names one."""
    named = {found for path in PAGES for found in re.findall(r"`(tests/\w+\.py)::(\w+)`", path.read_text())}
    assert named
    for name in sorted({name for name, _ in named}):
        known = {node.name for node in ast.parse((ROOT / name).read_text()).body if isinstance(node, ast.FunctionDef)}
        assert sorted(test for file, test in named if file == name and test not in known) == [], name
    failures = [row for row in page("known-failures").splitlines() if re.match(r"\| (?!elsewhere)", row)]
    assert [row for row in failures if not re.search(r"`tests/test_\w+\.py::test_\w+`( \||, )", row)] == []


@pytest.mark.parametrize("path", sorted(DOCS.glob("decisions/*.md")), ids=lambda path: path.stem)
def test_decisions_have_one_form(path: Path) -> None:
    text = path.read_text()
    assert re.match(rf"# {int(path.stem[:4])}\. ", text)
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences", "Alternatives"]


def test_the_changelog_knows_this_version() -> None:
    assert re.search(rf"^## \[{re.escape(__version__)}\] - ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert f'version = "{__version__}"' in (ROOT / "pyproject.toml").read_text()


def test_offers_are_terms_that_hold() -> None:
    pieces = re.findall(r"^```yaml\n(.*?)^```$", page("offers"), re.MULTILINE | re.DOTALL)
    assert len(pieces) >= 7
    needed = {name: value for name, value in EXAMPLE_TERMS.items() if name != "expiry"}
    around = yaml.safe_dump({"program": {"code": "shop", "name": "Shop"}, "terms": needed}, sort_keys=False)
    for piece in pieces:
        blueprints.read(around + indent(piece, "  "))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_page_has_a_merge_in_it_that_was_not_finished(path: Path) -> None:
    assert not re.search(r"^(<<<<<<<|=======|>>>>>>>)( |$)", path.read_text(), re.MULTILINE)


def anchors(path: Path) -> set[str]:
    """The headings of a page as a browser finds them."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.M | re.S), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    broken = []
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", path.read_text()):
        name, _, anchor = target.partition("#")
        found = (path.parent / name).resolve() if name else path
        if not found.exists() or (anchor and anchor not in anchors(found)):
            broken.append(target)
    assert not broken


# --- openapi.yaml ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    settings = settings_for(f"sqlite:///{tmp_path_factory.mktemp('openapi')}/unused.db")
    return create_app(settings).openapi()


def operations(described: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            assert method in METHODS
            yield f"{method.upper()} {path}", operation


def test_openapi_yaml_is_the_application(described: dict[str, Any]) -> None:
    assert (ROOT / "openapi.yaml").read_text() == describe(described), "make openapi"


def test_openapi_yaml_is_valid() -> None:
    validate(yaml.safe_load((ROOT / "openapi.yaml").read_text()))


def test_every_route_has_a_summary(described: dict[str, Any]) -> None:
    summaries = [operation.get("summary", "") for _, operation in operations(described)]
    assert all(summaries)
    assert len(set(summaries)) == len(summaries)


def test_every_declared_refusal_has_an_example(described: dict[str, Any]) -> None:
    """One for each code, as the service would send it; and nothing but problem+json."""
    known = {problem.code: problem for problem in problems()}
    checked = 0
    for name, operation in operations(described):
        for status, response in operation["responses"].items():
            if int(status) < 400:
                continue
            assert set(response["content"]) == {MEDIA_TYPE}, (name, status)
            content = response["content"][MEDIA_TYPE]
            assert content["examples"], (name, status)
            for code, example in content["examples"].items():
                assert known[code].status == int(status) == example["value"]["status"], (name, code)
                assert list(_violations(described, content["schema"], example["value"])) == [], (name, code)
                checked += 1
    assert checked > 100


def test_every_request_body_has_an_example_that_is_valid(described: dict[str, Any]) -> None:
    without = set()
    for name, operation in operations(described):
        if "requestBody" not in operation:
            continue
        content = operation["requestBody"]["content"]["application/json"]
        if not content.get("examples"):
            without.add(name)
        for example in content.get("examples", {}).values():
            assert list(_violations(described, content["schema"], example["value"])) == [], name
    assert not without


def _violations(described: dict[str, Any], schema: dict[str, Any], value: Any) -> Iterator[str]:
    """What the JSON schema of `described` has against `value`."""
    whole = {"allOf": [schema], "components": described["components"]}
    for error in OAS31Validator(whole).iter_errors(value):
        yield error.message


if __name__ == "__main__":
    sys.stdout.write(errors_page())
