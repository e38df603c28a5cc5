"""The table of lesson 02, read from what `make prove` measured, and the sentences it supports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slmlab.measure import load_result
from slmlab.widgets.card import CardFigure, lesson_figure
from slmlab.widgets.plot_style import INK, SERIES, label_axes, lesson_style, text_colour
from slmlab.widgets.roof import set_log_axis

BENCHMARK = "quantization_table"
_ROOM = 0.032  # of the axes' width: a line of text
_BELOW = 0.38  # of the axes' height: stays free below the dots for their names
HOW_TO_MAKE_IT = (
    "There is no results/quantization_table.json here. In a checkout of slmlab, run\n"
    "    make prove\n"
    "or only this table: python -m authoring.prove quantization_table\n"
    "It answers 200 tool calls under every scheme and takes some minutes."
)


@dataclass(frozen=True)
class Table:
    """rows: one dict a scheme, in the order measured. model, text, text_tokens, machine: of what
    and where. commit: of the code that measured. bandwidth_gb_s: of that machine, 10**9 bytes."""

    rows: tuple[dict[str, Any], ...]
    model: str
    text: str
    text_tokens: int
    machine: str
    commit: str
    bandwidth_gb_s: float

    def bytes_read(self, scheme: str) -> float:
        """Bytes that a token takes from memory: the weights as they were timed, and the cache."""
        return self.bandwidth_gb_s * 1e9 / self.row(scheme)["tokens_per_second_predicted"]

    def row(self, scheme: str) -> dict[str, Any]:
        """The row of one scheme. ValueError where it was not measured."""
        for row in self.rows:
            if row["scheme"] == scheme:
                return row
        known = ", ".join(row["scheme"] for row in self.rows)
        raise ValueError(f"scheme {scheme!r} is not in the table; it has {known}")

    def text_table(self) -> str:
        """All columns, one line a scheme, and a line that says what they are of."""
        head = (
            f"{'scheme':14} {'bits/w':>6} {'file MB':>8} {'KL nats':>9} {'flips':>6} {'ppl':>7} "
            f"{'tools':>8} {'MB read':>8} {'ceiling':>8} {'tokens/s':>9}"
        )
        lines = [head, *(self._line(row) for row in self.rows)]
        return "\n".join(lines) + (
            f"\n{self.model}; KL, flips and perplexity on {self.text_tokens:,} tokens of "
            f"{self.text}; one thread of {self.machine}; commit {self.commit[:7]}"
            f"\nMB read: for one token; ceiling: {self.bandwidth_gb_s:.1f} GB/s over that, in tokens/s"
            "\ntokens/s: float32's undisturbed rate times the ratio of steps in alternation"
        )

    def _line(self, row: dict[str, Any]) -> str:
        tools = f"{row['tool_calls_right']}/{row['tool_calls_n']}"
        return (
            f"{row['scheme']:14} {row['bits_per_weight']:6.2f} {row['file_bytes'] / 1e6:8.2f} "
            f"{row['kl_nats']:9.2g} {row['argmax_flip_share']:6.1%} {row['perplexity']:7.2f} "
            f"{tools:>8} {self.bytes_read(row['scheme']) / 1e6:8.2f} "
            f"{row['tokens_per_second_predicted']:8,.0f} {row['tokens_per_second_measured']:9,.0f}"
        )


def load_table(folder: str | Path | None = None) -> Table | None:
    """What `make prove` measured; None where there is no such file.

    folder: where it lies, by default results/ beside the package. Raises ValueError for a file
    that is damaged or of another benchmark.
    """
    record = load_result(BENCHMARK, folder)
    if record is None:
        return None
    measured = record["measured"]
    try:
        return Table(
            tuple(measured["rows"]),
            measured["model"],
            measured["text"],
            measured["text_tokens"],
            record["machine"]["cpu"],
            str(record["commit"]),
            float(measured["bandwidth_gb_s"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"results/{BENCHMARK}.json lacks {error}: make it anew with `python -m "
            f"authoring.prove {BENCHMARK}`"
        ) from None


def speed_plot(table: Table) -> CardFigure:
    """Bytes of the file against tokens a second: measured, with its quartiles, under the ceiling."""
    title = _fastest(table)
    figure, axes = lesson_figure(7.2, 4.2, alt=title)
    with lesson_style():
        figure.set_message(title)
        x = [row["file_bytes"] / 1e6 for row in table.rows]
        ceiling = [row["tokens_per_second_predicted"] for row in table.rows]
        rates = [row["tokens_per_second_measured"] for row in table.rows]
        axes.plot(x, ceiling, linestyle="none", marker="_", markersize=16, color=SERIES[1].colour)
        axes.plot(x, rates, linestyle="none", marker="o", markersize=6, color=SERIES[0].colour)
        for row, a in zip(table.rows, x, strict=True):
            ends = [row["tokens_per_second_low"], row["tokens_per_second_high"]]
            axes.plot([a, a], ends, color=SERIES[0].colour, marker="", linestyle="-", alpha=0.6)
        axes.annotate(
            "dashes: bandwidth over bytes read",
            (1, 1),
            xycoords="axes fraction",
            ha="right",
            va="top",
            color=INK,
        )
        set_log_axis(axes.xaxis, min(x) / 1.7, max(x) * 1.5)
        high, lowest = max(ceiling) * 1.6, min(row["tokens_per_second_low"] for row in table.rows)
        low = lowest * (lowest / high) ** (_BELOW / (1 - _BELOW))
        set_log_axis(axes.yaxis, low, high)
        _name_the_dots(axes, table.rows)
        label_axes(axes, "file", "MB", "decode speed", "tokens/s")
    return figure


def _fastest(table: Table) -> str:
    """The plot's message: the fastest scheme, and how many others its quartiles reach."""
    quantised = [row for row in table.rows if row["scheme"] != "float32"]
    base = table.row("float32")
    best = max(quantised, key=lambda row: row["tokens_per_second_measured"])
    gain = best["tokens_per_second_measured"] / base["tokens_per_second_measured"]
    title = f"{best['scheme']} decodes fastest: {gain:.1f} times the speed of float32"
    near = sum(
        row is not best and row["tokens_per_second_high"] >= best["tokens_per_second_low"]
        for row in quantised
    )
    return f"{title}; the quartiles of {near} more overlap" if near else title


def _name_the_dots(axes: Any, rows: tuple[dict[str, Any], ...]) -> None:
    """Upright names along the lower edge, in the order of the sizes, each with a line to its dot.

    Sizes crowd around four bits, so names are moved apart: by ``_ROOM`` of the axes' width.
    """
    to_axes = axes.transScale + axes.transLimits
    ordered = sorted(rows, key=lambda row: (row["file_bytes"], row["tokens_per_second_measured"]))
    dots = [(row["file_bytes"] / 1e6, row["tokens_per_second_measured"]) for row in ordered]
    wished = [float(to_axes.transform(dot)[0]) for dot in dots]
    for row, dot, place in zip(ordered, dots, _apart(wished), strict=True):
        axes.annotate(
            row["scheme"],
            dot,
            xytext=(place, _BELOW - 0.06),
            textcoords="axes fraction",
            rotation=90,
            ha="center",
            va="top",
            color=text_colour(SERIES[0].colour),
            fontsize=8.5,
            arrowprops={
                "arrowstyle": "-",
                "color": INK,
                "linewidth": 0.5,
                "relpos": (0.5, 1.0),
                "shrinkB": 4,
            },
        )


def _apart(wished: list[float]) -> list[float]:
    """Places at least ``_ROOM`` apart, near the ones that are wished, in rising order.

    Places that would touch form a block around the mean of their wishes.
    """
    blocks: list[list[float]] = []
    for wish in wished:
        blocks.append([wish])
        while len(blocks) > 1 and _last(blocks[-2]) + _ROOM > _first(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    return [_first(block) + _ROOM * k for block in blocks for k in range(len(block))]


def _first(block: list[float]) -> float:
    return sum(block) / len(block) - _ROOM * (len(block) - 1) / 2


def _last(block: list[float]) -> float:
    return _first(block) + _ROOM * (len(block) - 1)
