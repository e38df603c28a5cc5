"""The explorer of lesson 02: bits, group size and zero points against error, size and KL."""

from __future__ import annotations

from html import escape
from typing import Any, Literal, overload

import ipywidgets as widgets

from slmlab.widgets.card import CardFigure
from slmlab.widgets.picture_explorer import PictureExplorer
from slmlab.widgets.quantization_bench import Bench
from slmlab.widgets.quantization_picture import QuantizationPicture
from slmlab.widgets.quantization_view import (
    BITS,
    GROUPS,
    QUESTION,
    State,
    View,
    all_schemes,
    stops_paying,
    view,
)

__all__ = ["QUESTION", "Bench", "Explorer", "State", "explorer", "stops_paying"]


@overload
def explorer(
    bench: Bench, *, state: State | None = ..., static: Literal[False] = ...
) -> Explorer: ...
@overload
def explorer(bench: Bench, *, state: State | None = ..., static: Literal[True]) -> CardFigure: ...
def explorer(
    bench: Bench, *, state: State | None = None, static: bool = False
) -> Explorer | CardFigure:
    """Three controls, and what they mean for size and quality. Return it from the cell.

    bench: what was tried already is not tried again; the rest is tried here, so that no move has
    to wait for the model. state: where it starts, int4-g32 if not given. static=True gives the
    picture alone. A viewer that runs no widgets shows the picture of the start. Tag the cell
    nbval-ignore-output. Raises TypeError for no Bench or State, ValueError for a state that is
    not offered.
    """
    if not isinstance(bench, Bench):
        raise TypeError(f"bench must be a Bench, got {type(bench).__name__}: pass Bench(lm, ids)")
    start = State() if state is None else state
    _check_offered(start)
    if not static:
        return Explorer(bench, start)
    picture = QuantizationPicture(bench)
    picture.update(view(bench, start))
    return picture.figure


def _check_offered(state: State) -> None:
    if not isinstance(state, State):
        raise TypeError(f"state must be a State, got {type(state).__name__}")
    for name, offered in (("bits", BITS), ("group", GROUPS), ("symmetric", (True, False))):
        if getattr(state, name) not in offered:
            raise ValueError(
                f"state.{name}={getattr(state, name)!r} is not offered; choose one of "
                f"{', '.join(map(str, offered))}"
            )


class Explorer(PictureExplorer):
    """Three controls, the text and the picture; view: what is shown for the state."""

    def __init__(self, bench: Bench, start: State) -> None:
        self.bench = bench
        schemes = all_schemes(bench.longest_row)
        bench.fill(schemes)
        for scheme in schemes:
            bench.steps(scheme)
        self.picture = QuantizationPicture(bench)
        super().__init__(_controls(start), start)

    def read(self) -> State:
        return State(**{name: control.value for name, control in self.controls.items()})

    def look(self, state: State) -> tuple[str, str]:
        self.view: View = view(self.bench, state)
        return text_html(self.view), self.view.text

    def draw(self, state: State) -> bytes:
        self.picture.update(self.view)
        return self.picture.png()


def _controls(start: State) -> dict[str, Any]:
    common = {
        "style": {"description_width": "150px"},
        "layout": widgets.Layout(width="340px", margin="2px"),
    }
    return {
        "bits": widgets.SelectionSlider(
            options=sorted(BITS), value=start.bits, description="code (bits)", **common
        ),
        "group": widgets.SelectionSlider(
            options=list(GROUPS), value=start.group, description="group (weights)", **common
        ),
        "symmetric": widgets.Dropdown(
            options=[("none: symmetric", True), ("one a group", False)],
            value=start.symmetric,
            description="zero points",
            **common,
        ),
    }


def text_html(view: View) -> str:
    """The sentences as HTML, in the page's own colours: they read on light and on dark."""
    lines = [view.bits, view.codes, *view.notes]
    rows = "".join(f"<div>{escape(line)}</div>" for line in lines)
    rows += f"<div><b>{escape(view.paying)}</b></div>"
    headline = f'<div style="font-size:115%"><b>{escape(view.headline)}</b></div>'
    return f'<div style="line-height:1.5">{headline}{rows}</div>'
