"""The explorer of lesson 07: what a student is pulled to, by divergence and temperature."""

from __future__ import annotations

from html import escape
from typing import Any, Literal, overload

import ipywidgets as widgets

from slmlab.widgets.card import CardFigure
from slmlab.widgets.distillation_bench import Bench
from slmlab.widgets.distillation_picture import PullPicture
from slmlab.widgets.distillation_view import (
    PULLS,
    QUESTION,
    TEMPERATURES,
    State,
    View,
    border,
    border_sentence,
    favourites_share,
    view,
)
from slmlab.widgets.picture_explorer import PictureExplorer

__all__ = ["QUESTION", "Pull", "State", "border", "border_sentence", "favourites_share", "pull"]


@overload
def pull(bench: Bench, *, state: State | None = ..., static: Literal[False] = ...) -> Pull: ...
@overload
def pull(bench: Bench, *, state: State | None = ..., static: Literal[True]) -> CardFigure: ...
def pull(bench: Bench, *, state: State | None = None, static: bool = False) -> Pull | CardFigure:
    """Three controls: the prompt, the divergence and the temperature. Return it from the cell.

    bench: logits asked before, so that no move waits for a model. state: where it starts, forward
    KL at T = 4 of the first prompt if not given. static=True gives the picture alone. A viewer that
    runs no widgets shows the picture of the start. Tag the cell nbval-ignore-output. Raises
    TypeError for no Bench or State, ValueError for a state that is not offered.
    """
    if not isinstance(bench, Bench):
        raise TypeError(f"bench must be a Bench, got {type(bench).__name__}")
    start = State(bench.prompts[0]) if state is None else state
    shown = view(bench, start)
    if not static:
        return Pull(bench, start)
    picture = PullPicture()
    picture.update(shown)
    return picture.figure


class Pull(PictureExplorer):
    """Three controls, the sentences and the picture; view: what is shown for the state."""

    def __init__(self, bench: Bench, start: State) -> None:
        self.bench = bench
        self.picture = PullPicture()
        common = {
            "style": {"description_width": "110px"},
            "layout": widgets.Layout(width="340px", margin="2px"),
        }
        controls: dict[str, Any] = {
            "prompt": widgets.Dropdown(
                options=list(bench.prompts), value=start.prompt, description="prompt", **common
            ),
            "divergence": widgets.SelectionSlider(
                options=list(PULLS), value=start.divergence, description="divergence", **common
            ),
            "temperature": widgets.SelectionSlider(
                options=[(f"{value:g}", value) for value in TEMPERATURES],
                value=start.temperature,
                description="temperature T",
                **common,
            ),
        }
        super().__init__(controls, start)

    def read(self) -> State:
        return State(
            self.controls["prompt"].value,
            self.controls["divergence"].value,
            self.controls["temperature"].value,
        )

    def look(self, state: State) -> tuple[str, str]:
        self.view: View = view(self.bench, state)
        return text_html(self.view), self.view.text

    def draw(self, state: State) -> bytes:
        self.picture.update(self.view)
        return self.picture.png()


def text_html(view: View) -> str:
    """The sentences as HTML, in the page's own colours: they read on light and on dark."""
    lines = [view.loss_line, view.tokens, view.strongest]
    rows = "".join(f"<div>{escape(line)}</div>" for line in lines)
    return (
        f'<div style="line-height:1.5"><div style="font-size:115%"><b>{escape(view.headline)}</b></div>'
        f"{rows}</div>"
    )
