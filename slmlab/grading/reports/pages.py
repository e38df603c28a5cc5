"""What the HTML pages share: templates with everything escaped, colours, symbols."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from slmlab.checking.render import LOOKS, Look, prose, visible
from slmlab.grading.reports.results import points_text

ALL_LOOKS: dict[str, Look] = {
    **{str(name): look for name, look in LOOKS.items()},
    "missing": Look("#808080", "#000000", "–", "[-]", "missing"),
    "not returned": Look("#B8679A", "#000000", "!", "[!]", "not returned"),
}
STATUS_WORDS = {
    "graded": "graded",
    "stopped": "stopped before its end; what it had answered counts",
    "unreadable": "could not be read",
    "error": "the grader failed on it",
}


def page(template: str, **values: Any) -> str:
    """A template of this package as HTML text."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("slmlab.grading.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["prose"] = lambda text: Markup(prose(text))
    environment.filters["visible"] = visible
    environment.filters["points"] = points_text
    environment.filters["percent"] = lambda share: f"{100 * share:.0f} %"
    environment.filters["width"] = lambda share: f"{100 * min(max(share, 0.0), 1.0):.1f}%"
    environment.globals["looks"] = ALL_LOOKS
    environment.globals["status_words"] = STATUS_WORDS
    return environment
