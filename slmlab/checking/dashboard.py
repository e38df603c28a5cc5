"""The progress dashboard: one row and one bar for each installed topic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slmlab.checking import registry
from slmlab.checking.logbook import Logbook
from slmlab.checking.predictions import scored
from slmlab.checking.render import LOOKS, Panel, card, escaped, visible

BAR = 20


@dataclass(frozen=True)
class TopicRow:
    """Totals of one topic; `trouble` says why it could not be loaded, if so."""

    topic: str
    passed: int = 0
    started: int = 0
    total: int = 0
    points: float = 0.0
    points_total: int = 0
    hints: int = 0
    trouble: str = ""


def rows(logbook: Logbook) -> tuple[TopicRow, ...]:
    """One row for each topic; loads every topic. A broken topic becomes a row that says so."""
    return tuple(_row(topic, logbook) for topic in registry.topics())


def _row(topic: str, logbook: Logbook) -> TopicRow:
    try:
        items = registry.exercises(topic)
    except (ValueError, TypeError) as error:
        return TopicRow(topic, trouble=str(error))
    records = [logbook.exercise(item.id) for item in items]
    return TopicRow(
        topic=topic,
        passed=sum(record.outcome == "passed" for record in records),
        started=sum(record.attempts > 0 for record in records),
        total=len(items),
        points=sum(
            item.points * record.credit for item, record in zip(items, records, strict=True)
        ),
        points_total=sum(item.points for item in items),
        hints=sum(record.hint_rung for record in records),
    )


def dashboard(logbook: Logbook) -> Panel:
    """The panel for everything recorded in a logbook."""
    table = rows(logbook)
    return Panel(_html(table, logbook), _text(table, logbook))


def _share(row: TopicRow) -> float:
    return row.passed / row.total if row.total else 0.0


def _points(row: TopicRow) -> str:
    return f"{row.points:.1f}".removesuffix(".0") + f" of {row.points_total}"


def _hints(row: TopicRow) -> str:
    return f"{row.hints} hint{'' if row.hints == 1 else 's'} used"


def _summary(table: Sequence[TopicRow], logbook: Logbook) -> str:
    passed, total = sum(row.passed for row in table), sum(row.total for row in table)
    done = scored(logbook)
    near = sum((prediction.ratio or 0) <= 2 for prediction in done)
    text = f"{passed} of {total} exercises passed"
    if done:
        text += f"; {near} of {len(done)} predictions within a factor of 2"
    return text + "."


def _html(table: Sequence[TopicRow], logbook: Logbook) -> str:
    cell = (
        'style="text-align:left;padding:0.1em 0.9em 0.1em 0;background:transparent;color:inherit"'
    )
    heads = ("topic", "passed", "", "started", "points", "hints used")
    head = "".join(f'<th scope="col" {cell}>{name}</th>' for name in heads)
    body = ""
    for row in table:
        name = f'<th scope="row" {cell}>{escaped(row.topic)}</th>'
        if row.trouble:
            body += f"<tr>{name}<td {cell} colspan='5'>{escaped(row.trouble)}</td></tr>"
            continue
        cells = (f"{row.passed} of {row.total}", _bar(row), row.started, _points(row), row.hints)
        inner = "".join(f"<td {cell}>{value}</td>" for value in cells)
        body += f'<tr style="background:transparent">{name}{inner}</tr>'
    return card(
        f"<div><strong>{escaped(_summary(table, logbook))}</strong></div>"
        f'<table style="border:none;color:inherit"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>",
        LOOKS["passed"].colour,
    )


def _bar(row: TopicRow) -> str:
    percent = round(100 * _share(row))
    return (
        f'<div role="img" aria-label="{percent} percent passed" style="width:9em;height:0.8em;'
        'border:1px solid #808080;border-radius:3px;background:transparent">'
        f'<div style="width:{percent}%;height:100%;background:{LOOKS["passed"].colour}"></div>'
        "</div>"
    )


def _text(table: Sequence[TopicRow], logbook: Logbook) -> str:
    width = max((len(row.topic) for row in table), default=0)
    lines = [_summary(table, logbook)]
    for row in table:
        if row.trouble:
            lines.append(f"{row.topic:{width}}  {row.trouble}")
            continue
        full = round(BAR * _share(row))
        bar = "#" * full + "-" * (BAR - full)
        lines.append(
            f"{row.topic:{width}}  [{bar}] {row.passed} of {row.total} passed, "
            f"{_points(row)} points, {_hints(row)}"
        )
    return visible("\n".join(lines))
