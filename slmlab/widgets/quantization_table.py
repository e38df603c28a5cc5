"""The table of lesson 02, read from what `make prove` measured, and the sentences it supports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slmlab.measure import load_result
from slmlab.widgets.card import CardFigure, lesson_figure
from slmlab.widgets.plot_style import INK, SERIES, label_axes, lesson_style, text_colour
from slmlab.widgets.roof import set_log_axis

_LABELLED = ("float32", "float16", "int8", "int4-g32", "nf4-g64", "int2-g32")
BENCHMARK = "quantization_table"
HOW_TO_MAKE_IT = (
    "There is no results/quantization_table.json here. In a checkout of slmlab, run\n"
    "    make prove\n"
    "or only this table: python -m authoring.prove quantization_table\n"
    "It answers 200 tool calls under every scheme and takes some minutes."
)


@dataclass(frozen=True)
class Table:
    """rows: one dict a scheme, in the order measured. model, text, text_tokens, machine: of what
    and where. commit: of the code that measured."""

    rows: tuple[dict[str, Any], ...]
    model: str
    text: str
    text_tokens: int
    machine: str
    commit: str

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
            f"{'tools':>8}  {'tokens/s: ceiling':>17} {'measured':>9}"
        )
        lines = [head, *(self._line(row) for row in self.rows)]
        return "\n".join(lines) + (
            f"\n{self.model}; KL, flips and perplexity on {self.text_tokens:,} tokens of "
            f"{self.text}; one thread of {self.machine}; commit {self.commit[:7]}"
            "\nmeasured: float32's undisturbed rate times the ratio of steps in alternation"
        )

    @staticmethod
    def _line(row: dict[str, Any]) -> str:
        tools = f"{row['tool_calls_right']}/{row['tool_calls_n']}"
        return (
            f"{row['scheme']:14} {row['bits_per_weight']:6.2f} {row['file_bytes'] / 1e6:8.2f} "
            f"{row['kl_nats']:9.2g} {row['argmax_flip_share']:6.1%} {row['perplexity']:7.2f} "
            f"{tools:>8}  {row['tokens_per_second_predicted']:17,.0f} "
            f"{row['tokens_per_second_measured']:9,.0f}"
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
        )
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"results/{BENCHMARK}.json lacks {error}: make it anew with `python -m "
            f"authoring.prove {BENCHMARK}`"
        ) from None


def speed_plot(table: Table) -> CardFigure:
    """Bytes of the file against tokens a second: measured, with its range, under the ceiling."""
    quantised = [row for row in table.rows if row["scheme"] != "float32"]
    base = table.row("float32")
    best = max(quantised, key=lambda row: row["tokens_per_second_measured"])
    gain = best["tokens_per_second_measured"] / base["tokens_per_second_measured"]
    title = f"{best['scheme']} is the fastest to write: {gain:.1f} times the speed of float32"
    figure, axes = lesson_figure(7.2, 3.9, alt=title)
    with lesson_style():
        figure.set_message(title)
        x = [row["file_bytes"] / 1e6 for row in table.rows]
        ceiling = [row["tokens_per_second_predicted"] for row in table.rows]
        rates = [row["tokens_per_second_measured"] for row in table.rows]
        axes.plot(x, ceiling, linestyle="none", marker="_", markersize=16, color=SERIES[1].colour)
        axes.plot(x, rates, linestyle="none", marker="o", color=SERIES[0].colour)
        for row, a, b in zip(table.rows, x, rates, strict=True):
            ends = [row["tokens_per_second_low"], row["tokens_per_second_high"]]
            axes.plot([a, a], ends, color=SERIES[0].colour, marker="", linestyle="-", alpha=0.6)
            if row["scheme"] in _LABELLED:
                # int4-g32 and nf4-g64 have the same size: one name goes to each side.
                left = row["scheme"] in ("int4-g32", "int2-g32")
                axes.annotate(
                    row["scheme"],
                    (a, b),
                    xytext=(-7 if left else 7, -10),
                    ha="right" if left else "left",
                    textcoords="offset points",
                    color=text_colour(SERIES[0].colour),
                    fontsize=8.5,
                )
        axes.annotate(
            "dashes: bandwidth over bytes",
            (1, 1),
            xycoords="axes fraction",
            ha="right",
            va="top",
            color=INK,
        )
        set_log_axis(axes.xaxis, min(x) / 1.7, max(x) * 1.5)
        set_log_axis(axes.yaxis, min(rates) / 1.5, max(ceiling) * 1.6)
        label_axes(axes, "file", "MB", "decode speed", "tokens/s")
    return figure
