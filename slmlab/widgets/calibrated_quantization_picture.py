"""The picture of lesson 03's explorer: bits of every matrix, and the damage of all budgets."""

from __future__ import annotations

import re
from collections.abc import Sequence

from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.patches import Rectangle

from slmlab.quant import parse_scheme
from slmlab.widgets.calibrated_quantization_bench import Bench, Stop
from slmlab.widgets.card import CardFigure
from slmlab.widgets.plot_style import CARD, INK, SERIES, contrast, lesson_style, text_colour
from slmlab.widgets.units import bytes_text, digits

_FEW, _MANY = "#E8F1F8", SERIES[0].colour
_SHADES = LinearSegmentedColormap.from_list("bits", (_FEW, _MANY))
_LEGIBLE_BLOCKS = 12


def place_of(name: str) -> tuple[str, int]:
    """Kind and block of a layer: "layers.3.mlp.down_proj" is ("down", 3)."""
    number = re.search(r"\.(\d+)\.", f".{name}.")
    return name.rsplit(".", 1)[-1].removesuffix("_proj"), int(number[1]) if number else 0


def bits_of(bench: Bench, stop: Stop) -> dict[str, float]:
    """Bits a weight of each layer of a plan, metadata included."""
    return {
        name: parse_scheme(scheme).bits_per_weight(*bench.shapes[name])
        for name, scheme in stop.plan.items()
    }


def message(bench: Bench, stop: Stop) -> str:
    """The plot's one message."""
    return (
        f"{digits(stop.bits)} bits a weight, {bytes_text(stop.nbytes)}: "
        f"KL {digits(stop.kl_nats, 2)} nats a token"
    )


def plan_text(bench: Bench, stop: Stop) -> str:
    """Who gets most and who least, in one sentence."""
    bits = bits_of(bench, stop)
    low, high = min(bits, key=bits.__getitem__), max(bits, key=bits.__getitem__)
    if bits[low] == bits[high]:
        return f"Every matrix has {digits(bits[low])} bits."
    return (
        f"{_spoken(high)} has most, {digits(bits[high])} bits ({stop.plan[high]}); "
        f"{_spoken(low)} has least, {digits(bits[low])} ({stop.plan[low]})."
    )


def fewest_bits_text(stop: Stop) -> str:
    """Which matrices of a plan have the scheme of fewest bits, and which scheme that is."""
    least = min(stop.plan.values(), key=lambda scheme: parse_scheme(scheme).matrix_bits(1024, 1024))
    kinds: dict[str, list[int]] = {}
    for name, scheme in stop.plan.items():
        if scheme == least:
            kind, block = place_of(name)
            kinds.setdefault(kind, []).append(block)
    count = sum(map(len, kinds.values()))
    where = "; ".join(
        f"{kind} of block{'s' if len(blocks) > 1 else ''} {', '.join(map(str, blocks))}"
        for kind, blocks in kinds.items()
    )
    return f"{count} of {len(stop.plan)} matrices have {least}: {where}."


def _spoken(name: str) -> str:
    kind, block = place_of(name)
    return f"{kind} of block {block}"


def plan_picture(bench: Bench, stop: Stop) -> CardFigure:
    """A grid of bits (kind of matrix by block) and KL against bits for all budgets."""
    figure = CardFigure(
        figsize=(7.2, 3.9),
        alt=f"{message(bench, stop)}. {plan_text(bench, stop)}",
    )
    figure.set_message(message(bench, stop))
    with lesson_style():
        _grid(figure, bench, stop)
        _frontier(figure, bench, stop)
    return figure


def _grid(figure: CardFigure, bench: Bench, stop: Stop) -> None:
    axes = figure.add_axes((0.085, 0.17, 0.42, 0.64))
    bits = bits_of(bench, stop)
    kinds = list(dict.fromkeys(place_of(name)[0] for name in bits))
    blocks = max(place_of(name)[1] for name in bits) + 1
    for name, value in bits.items():
        kind, block = place_of(name)
        shade = to_hex(_SHADES(min(max((value - 2.0) / 6.5, 0.0), 1.0)))
        row = kinds.index(kind)
        axes.add_patch(
            _cell(block, row, shade),
        )
        if blocks <= _LEGIBLE_BLOCKS:
            ink = INK if contrast(INK, shade) >= contrast(CARD, shade) else CARD
            axes.text(
                block, row, digits(value, 2), ha="center", va="center", color=ink, fontsize=8.5
            )
    axes.set(xlim=(-0.5, blocks - 0.5), ylim=(len(kinds) - 0.5, -0.5), xlabel="block (number)")
    axes.set_yticks(range(len(kinds)), kinds)
    axes.set_xticks(range(0, blocks, max(1, blocks // 8)))
    axes.tick_params(length=0)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_title("bits a weight of each matrix", fontsize=9.5, weight="normal")


def _cell(block: int, row: int, shade: str) -> Rectangle:
    return Rectangle((block - 0.47, row - 0.45), 0.94, 0.9, facecolor=shade, edgecolor=CARD)


def _frontier(figure: CardFigure, bench: Bench, stop: Stop) -> None:
    axes = figure.add_axes((0.62, 0.17, 0.35, 0.64))
    mixed, other = SERIES[0], SERIES[1]
    axes.plot(
        [s.bits for s in bench.stops],
        [s.kl_nats for s in bench.stops],
        color=mixed.colour,
        marker=mixed.marker,
        markersize=4,
        linewidth=1.5,
    )
    axes.plot(
        [s.bits for s in bench.uniform],
        [s.kl_nats for s in bench.uniform],
        color=other.colour,
        marker=other.marker,
        linestyle="none",
        markersize=6,
    )
    for each in bench.uniform:
        axes.annotate(
            each.name,
            (each.bits, each.kl_nats),
            xytext=(6, 4),
            textcoords="offset points",
            fontsize=7.5,
            color=text_colour(other.colour),
        )
    axes.plot(
        [stop.bits],
        [stop.kl_nats],
        marker=mixed.marker,
        markersize=11,
        markerfacecolor=CARD,
        markeredgecolor=mixed.colour,
        markeredgewidth=2.5,
    )
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    low, high = _ends([s.bits for s in (*bench.stops, *bench.uniform)])
    axes.set_xlim(low - 0.2, high + 0.25 * (high - low))
    axes.set_xlabel("bits a weight (with metadata)")
    axes.set_ylabel("KL (nats a token)")
    axes.set_title("mixed (line) and uniform (triangles)", fontsize=9.5, weight="normal")


def _ends(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)
