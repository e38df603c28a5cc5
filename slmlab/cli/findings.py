"""What `slmlab doctor` found, and how it is shown: terminal table, plain text, HTML, JSON."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

State = Literal["ok", "warning", "problem"]

# Each state has a sign and a word; the colour is a bar: no colour reads as text on both themes.
_SIGNS = {"ok": "✓", "warning": "!", "problem": "✗"}
_COLOURS = {"ok": "#0072B2", "warning": "#B8860B", "problem": "#D55E00"}
_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


@dataclass(frozen=True)
class Finding:
    """One line of the doctor: `found` says what is, `mend` what to do ("" where all is well)."""

    name: str
    state: State
    found: str
    mend: str = ""


class Report(list[Finding]):
    """A list of findings that a notebook shows as a table and a terminal as text."""

    @property
    def healthy(self) -> bool:
        """True where no finding is a problem; warnings do not count."""
        return all(finding.state != "problem" for finding in self)

    def summary(self) -> str:
        """One sentence with the counts."""
        warnings = sum(finding.state == "warning" for finding in self)
        problems = sum(finding.state == "problem" for finding in self)
        if not warnings and not problems:
            return f"All {len(self)} checks are well."
        return f"{len(self)} checks: {problems} problem(s), {warnings} warning(s)."

    def __repr__(self) -> str:
        width = max((len(finding.name) for finding in self), default=0)
        lines = []
        for finding in self:
            lines.append(f"{_SIGNS[finding.state]} {finding.name:<{width}}  {finding.found}")
            if finding.mend:
                lines.append(" " * (width + 4) + finding.mend)
        return "\n".join([*lines, self.summary()])

    def _repr_html_(self) -> str:
        cell = 'style="text-align:left;vertical-align:top;padding:2px 12px 2px 0"'
        rows = []
        for finding in self:
            mend = f"<br><em>{html.escape(finding.mend)}</em>" if finding.mend else ""
            state = (
                f'<span style="border-left:5px solid {_COLOURS[finding.state]};padding-left:6px">'
                f"{_SIGNS[finding.state]} {finding.state}</span>"
            )
            rows.append(
                f"<tr><td {cell}>{state}</td><td {cell}>{html.escape(finding.name)}</td>"
                f"<td {cell}>{html.escape(finding.found)}{mend}</td></tr>"
            )
        return f"<table>{''.join(rows)}</table><p>{html.escape(self.summary())}</p>"

    def to_json(self) -> str:
        """The findings as a JSON list of objects with name, state, found and mend."""
        return json.dumps([asdict(finding) for finding in self], indent=2)


def print_report(report: Iterable[Finding]) -> None:
    """Print `report` as a rich table on stdout."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    for finding in report:
        found = Text(finding.found)
        if finding.mend:
            found.append(f"\n{finding.mend}", style="italic")
        sign = Text(f"{_SIGNS[finding.state]} {finding.state}", style=_STYLES[finding.state])
        table.add_row(sign, Text(finding.name), found)
    Console().print(table)
