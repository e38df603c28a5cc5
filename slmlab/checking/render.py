"""Shows a report as HTML in a notebook and as plain text in a terminal.

Colours are never the only cue: every outcome has a word and a symbol. Text and background are
inherited from the page, so light and dark themes both read well; only the bar on the left and the
symbol's chip are coloured. Everything is escaped, whoever wrote it.
"""

from __future__ import annotations

import html
import re
import sys
from dataclasses import dataclass

from slmlab.checking.report import Report
from slmlab.checking.runner import Outcome


@dataclass(frozen=True)
class Look:
    """How an outcome appears: chip colours (from the Okabe-Ito palette, darkened where a border
    needs it), symbol, the symbol in ASCII and the word."""

    colour: str
    ink: str
    symbol: str
    ascii: str
    word: str


LOOKS: dict[Outcome, Look] = {
    "passed": Look("#0072B2", "#FFFFFF", "\u2713", "[+]", "passed"),
    "wrong": Look("#D55E00", "#000000", "\u2717", "[x]", "wrong"),
    "error": Look("#B8679A", "#000000", "!", "[!]", "error"),
    "unattempted": Look("#808080", "#000000", "\u25cb", "[ ]", "not started"),
}
PLAIN_COLOUR = "#808080"


@dataclass(frozen=True, repr=False)
class Panel:
    """Something to show: HTML for a notebook, text for everything else."""

    html: str
    text: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text

    def quiet(self) -> Shown:
        """The same panel for a caller that has shown it: it does not appear a second time."""
        return Shown(self.html, self.text)

    def above(self, other: Panel) -> Panel:
        """Both panels as one, this one first."""
        return Panel(self.html + other.html, f"{self.text}\n{other.text}")

    def show(self) -> None:
        """Displays itself in the running notebook, or prints its text."""
        if in_notebook():
            from IPython.display import display

            display(self)
            return
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        print(self.text.encode(encoding, "replace").decode(encoding, "replace"))


@dataclass(frozen=True, repr=False)
class Shown(Panel):
    """A panel that has been shown; as the last value of a cell it displays nothing."""

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return "<shown above>"

    def _ipython_display_(self) -> None:
        """Displays nothing."""


def in_notebook() -> bool:
    """True under IPython, without importing it."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return get_ipython() is not None


def visible(text: str) -> str:
    """Replaces control characters (terminal escapes among them) by their code."""
    return "".join(
        char if char in "\n\t" or char.isprintable() else f"\\x{ord(char):02x}" for char in text
    )


def escaped(text: str) -> str:
    """Text made safe for HTML."""
    return html.escape(visible(text), quote=True)


def prose(text: str) -> str:
    """Escaped text in which `code` in backticks becomes <code>."""
    return re.sub(r"`([^`\n]+)`", r"<code>\1</code>", escaped(text))


def card(body: str, colour: str = PLAIN_COLOUR) -> str:
    """A box with a coloured bar on its left, in the page's own colours otherwise."""
    return (
        f'<div style="border-left:5px solid {colour};padding:0.3em 0.9em;margin:0.4em 0;'
        f'color:inherit;background:transparent;line-height:1.5">{body}</div>'
    )


def chip(outcome: Outcome) -> str:
    """Symbol and word of an outcome."""
    look = LOOKS[outcome]
    return (
        f'<span aria-hidden="true" style="display:inline-block;min-width:1.4em;text-align:center;'
        f'border-radius:3px;font-weight:bold;background:{look.colour};color:{look.ink}">'
        f"{look.symbol}</span> <strong>{look.word}</strong>"
    )


def message(text: str) -> Panel:
    """A panel for one piece of prose."""
    return Panel(card(prose(text)), visible(text))


def report_panel(report: Report) -> Panel:
    """The panel for a check."""
    return Panel(_report_html(report), _report_text(report))


def _count(report: Report) -> str:
    return "" if report.outcome == "unattempted" else f"{report.passed} of {report.total} cases"


def _report_html(report: Report) -> str:
    count = _count(report)
    lines = [
        f"<div>{chip(report.outcome)} &middot; {prose(report.title)} "
        f"<code>{escaped(report.exercise_id)}</code>{' &middot; ' + count if count else ''}</div>"
    ]
    if report.diagnosis is not None:
        lines.append(f"<div>{prose(report.diagnosis.sentence)}</div>")
        lines.append(_example_html(report))
    lines += [f"<div>Note: {prose(note)}</div>" for note in report.notes]
    if report.printed:
        lines.append(
            "<details><summary>What your code printed</summary>"
            f'<pre style="color:inherit;background:transparent">{escaped(report.printed)}</pre>'
            "</details>"
        )
    return card("".join(lines), LOOKS[report.outcome].colour)


def _example_html(report: Report) -> str:
    example = report.diagnosis.counterexample if report.diagnosis else None
    if example is None or not example.rows:
        return ""
    cell = 'style="text-align:left;padding:0 0.8em 0 0;background:transparent;color:inherit"'
    body = "".join(
        f'<tr style="background:transparent"><th scope="row" {cell}>{escaped(name)}</th>'
        f"<td {cell}><code>{escaped(text)}</code></td></tr>"
        for name, text in example.rows
    )
    head = "<div>Smallest case:</div>" if example.given else ""
    return f'{head}<table style="margin:0.2em 0;border:none;color:inherit">{body}</table>'


def _report_text(report: Report) -> str:
    look = LOOKS[report.outcome]
    count = _count(report)
    head = f"{look.ascii} {look.word}: {report.title} ({report.exercise_id})"
    lines = [head + (f", {count}" if count else "")]
    if report.diagnosis is not None:
        lines.append(f"    {report.diagnosis.sentence}")
        example = report.diagnosis.counterexample
        if example is not None and example.sentence:
            lines.append(f"    {example.sentence}")
    lines += [f"    Note: {note}" for note in report.notes]
    if report.printed:
        kept = report.printed.strip().splitlines()[:5]
        lines += ["    Your code printed:", *(f"    | {line[:100]}" for line in kept)]
    return visible("\n".join(lines))
