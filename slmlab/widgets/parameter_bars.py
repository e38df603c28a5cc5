"""Where the parameters of a decoder are, and where its bytes are after quantisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from slmlab.measure import parse_scheme, read_architecture, weight_bytes_stored
from slmlab.widgets.card import CardFigure, lesson_figure
from slmlab.widgets.plot_style import CARD, INK, SERIES, Series, lesson_style, spread
from slmlab.widgets.units import bytes_text, count_text, digits

PARTS = ("embedding", "attention", "MLP", "norms", "head")
LOOKS: Mapping[str, Series] = dict(zip(PARTS, SERIES, strict=True))
_LABEL_INSIDE = 0.17


@dataclass(frozen=True)
class PartSizes:
    """Parameters and stored bytes of each part; a tied head is the embedding and has no row."""

    parameters: dict[str, int]
    bytes: dict[str, int]


def part_sizes(config: Any, scheme: str = "float16") -> PartSizes:
    """Parameters and bytes (under ``scheme``) of embedding, attention, MLP, norms and head.

    Biases count as norms do: they are vectors and stay in 16 bit. Raises as `predict_decode`.
    """
    shape, parsed = read_architecture(config), parse_scheme(scheme)
    # Q, K and V, and the output projection come first, then the three matrices of the MLP.
    groups = {"attention": shape.linears[:3], "MLP": shape.linears[3:]}
    parameters = {"embedding": shape.table_parameters}
    sizes = {"embedding": 0}
    for name, group in groups.items():
        parameters[name] = sum(rows * columns * count for rows, columns, count in group)
        bits = sum(parsed.matrix_bits(rows, columns) * count for rows, columns, count in group)
        sizes[name] = -(-bits // 8)
    parameters["norms"] = shape.vectors
    if not shape.tied:
        parameters["head"] = shape.table_parameters
    vector_bits = parsed.code_bits if parsed.is_float else 16
    sizes["norms"] = shape.vectors * vector_bits // 8
    tables = weight_bytes_stored(config, scheme) - sum(sizes.values())
    # What is left are one or two equal tables, whatever precision they are kept in.
    sizes["embedding"] = tables if shape.tied else tables // 2
    if not shape.tied:
        sizes["head"] = tables - tables // 2
    return PartSizes(parameters, sizes)


def parameter_bars(config: Any, scheme: str = "float16", *, title: str | None = None) -> CardFigure:
    """One horizontal bar, 100 % wide: the share of embedding, attention, MLP and norms.

    config: any object with Hugging Face's names. Under a float scheme parameters and bytes have
    the same shares, so one bar shows both; a quantised scheme adds a second bar with its bytes
    (embedding, head and norms stay in 16 bit). Raises as `predict_decode`.
    """
    sizes = part_sizes(config, scheme)
    total, stored = sum(sizes.parameters.values()), sum(sizes.bytes.values())
    quantised = not parse_scheme(scheme).is_float
    bars = [(f"{count_text(total)} parameters", sizes.parameters, count_text)]
    if quantised:
        bars.append((f"{bytes_text(stored)} in {scheme}", sizes.bytes, bytes_text))
    else:
        bars[0] = (f"{bars[0][0]},\n{bytes_text(stored)} in {scheme}", *bars[0][1:])
    message = title or _message(sizes, scheme, quantised)
    figure, axes = lesson_figure(7.2, 1.15 + 1.15 * len(bars), alt=_alt(message, bars))
    with lesson_style():
        figure.set_message(message)
        axes.set_xlim(0, 1)
        axes.set_ylim(len(bars) - 0.45, -0.32)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100"])
        axes.set_xlabel("share (%)")
        axes.set_yticks(range(len(bars)), [name for name, _, _ in bars])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        for row, (_, amounts, text) in enumerate(bars):
            _stack(axes, row, amounts, text)
    return figure


def _message(sizes: PartSizes, scheme: str, quantised: bool) -> str:
    share = _shares(sizes.parameters)
    if quantised:
        tables = ("embedding", "head") if "head" in share else ("embedding",)
        before = sum(share[t] for t in tables)
        after = sum(_shares(sizes.bytes)[t] for t in tables)
        named = "Embedding and head hold" if len(tables) == 2 else "The embedding holds"
        return (
            f"{named} {digits(100 * before, 2)} % of the parameters and "
            f"{digits(100 * after, 2)} % of the {scheme} bytes"
        )
    largest = max(share, key=lambda part: share[part])
    return f"The {largest} holds {digits(100 * share[largest], 2)} % of the parameters"


def _shares(amounts: Mapping[str, int]) -> dict[str, float]:
    total = sum(amounts.values())
    return {part: amount / total for part, amount in amounts.items()}


def _alt(message: str, bars: list[Any]) -> str:
    rows = [
        f"{name}: " + ", ".join(f"{part} {text(amount)}" for part, amount in amounts.items())
        for name, amounts, text in bars
    ]
    return f"Stacked bar. {message}. " + ". ".join(rows).replace("\n", " ") + "."


def _stack(axes: Axes, row: int, amounts: Mapping[str, int], text: Any) -> None:
    left = 0.0
    outside: list[tuple[float, str]] = []
    for part, share in _shares(amounts).items():
        look = LOOKS[part]
        axes.barh(
            row,
            share,
            left=left,
            height=0.42,
            facecolor=look.colour,
            edgecolor=CARD,
            hatch=look.hatch,
            linewidth=1,
        )
        label = f"{part} {text(amounts[part])}, {digits(100 * share, 2)} %"
        if share >= _LABEL_INSIDE:
            axes.text(
                left + share / 2,
                row,
                label.replace(" ", "\n", 1),
                ha="center",
                va="center",
                fontsize=8.5,
                bbox={"facecolor": CARD, "edgecolor": "none", "pad": 1.5},
            )
        else:
            outside.append((left + share / 2, label))
        left += share
    places = spread([x for x, _ in outside], 0.27, 0.13, 0.86)
    for (x, label), place in zip(outside, places, strict=True):
        axes.annotate(
            label,
            (x, row + 0.21),
            xytext=(place, row + 0.36),
            ha="center",
            va="center",
            fontsize=8.5,
            arrowprops={"arrowstyle": "-", "color": INK, "linewidth": 0.8, "shrinkA": 0},
        )
