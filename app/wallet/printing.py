"""Statements as pages to print: one template, its own style, no scripts, nothing from elsewhere."""

import base64
import hashlib
from datetime import datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from app.wallet.statements import Statement

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)
_STYLE = (Path(__file__).parent / "statement.css").read_text()
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
"""What a browser may do with the page: show it."""


def grouped(points: int) -> str:
    """A number in groups of three: 12,345, and a real minus sign."""
    return f"{points:,}".replace("-", "\N{MINUS SIGN}")


def page(statement: Statement) -> str:
    """The statement as HTML. Dates are the programme's."""

    def day(instant: datetime) -> str:
        return instant.astimezone(statement.zone).date().isoformat()

    template = _TEMPLATES.get_template("statement.html")
    return template.render(statement=statement, style=_STYLE, grouped=grouped, day=day)
