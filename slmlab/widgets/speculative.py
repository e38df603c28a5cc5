"""The replay of lesson 06: a real run round by round, and the speed at every draft length."""

from __future__ import annotations

from html import escape
from typing import Any, Literal, overload

import ipywidgets as widgets

from slmlab.widgets.card import CardFigure
from slmlab.widgets.picture_explorer import PictureExplorer
from slmlab.widgets.speculative_bench import Bench
from slmlab.widgets.speculative_picture import ReplayPicture
from slmlab.widgets.speculative_view import (
    QUESTION,
    State,
    View,
    best_for_all,
    given_up,
    most_hurt,
    rounds_of,
    view,
)

__all__ = ["QUESTION", "Replay", "State", "best_for_all", "given_up", "most_hurt", "replay"]


@overload
def replay(bench: Bench, *, state: State | None = ..., static: Literal[False] = ...) -> Replay: ...
@overload
def replay(bench: Bench, *, state: State | None = ..., static: Literal[True]) -> CardFigure: ...
def replay(
    bench: Bench, *, state: State | None = None, static: bool = False
) -> Replay | CardFigure:
    """Three controls: the kind of text, the draft length and the round. Return it from the cell.

    bench: recorded before, so that no move waits for a model. state: where it starts, a long draft
    of the first kind if not given. static=True gives the picture alone. A viewer that runs no
    widgets shows the picture of the start. Tag the cell nbval-ignore-output. Raises TypeError for
    no Bench or State, ValueError for a state that was not recorded.
    """
    if not isinstance(bench, Bench):
        raise TypeError(f"bench must be a Bench, got {type(bench).__name__}")
    start = _start(bench) if state is None else state
    shown = view(bench, start)
    if not static:
        return Replay(bench, start)
    picture = ReplayPicture(bench)
    picture.update(shown)
    return picture.figure


def _start(bench: Bench) -> State:
    """The longest draft, where most is thrown away, some rounds into the text."""
    domain, length = bench.domains[0], bench.lengths[-1]
    return State(domain, length, min(6, len(rounds_of(bench, domain, length))))


class Replay(PictureExplorer):
    """Three controls, the text and the picture; view: what is shown for the state."""

    def __init__(self, bench: Bench, start: State) -> None:
        self.bench = bench
        self.picture = ReplayPicture(bench)
        common = {
            "style": {"description_width": "150px"},
            "layout": widgets.Layout(width="340px", margin="2px"),
        }
        controls: dict[str, Any] = {
            "domain": widgets.Dropdown(
                options=list(bench.domains), value=start.domain, description="text", **common
            ),
            "length": widgets.SelectionSlider(
                options=list(bench.lengths),
                value=start.length,
                description="draft length (tokens)",
                **common,
            ),
            "at": widgets.IntSlider(
                min=1,
                max=len(rounds_of(bench, start.domain, start.length)),
                value=start.at,
                description="round",
                **common,
            ),
        }
        self._run = start.domain, start.length
        self._at = {self._run: start.at}  # the round where each run was left
        super().__init__(controls, start)

    def read(self) -> State:
        domain, length = self.controls["domain"].value, self.controls["length"].value
        slider, last = self.controls["at"], len(rounds_of(self.bench, domain, length))
        if self._run != (domain, length):
            self._run = domain, length
            at = self._at.get(self._run, slider.value)
            # Each run comes back at the round where it was left. Moving the slider calls this again.
            slider.max = last
            slider.value = min(at, last)
        self._at[self._run] = slider.value
        return State(domain, length, slider.value)

    def look(self, state: State) -> tuple[str, str]:
        self.view: View = view(self.bench, state)
        return text_html(self.view), self.view.text

    def draw(self, state: State) -> bytes:
        self.picture.update(self.view)
        return self.picture.png()


def text_html(view: View) -> str:
    """The sentences and the text so far as HTML, in the page's own colours: they read on light and
    on dark. Underlined: accepted. Boxed: the target's own."""
    lines = [view.here, view.rates, view.costs, view.everyone]
    rows = "".join(f"<div>{escape(line)}</div>" for line in lines)
    look = {"accepted": "border-bottom:2px solid", "own": "border:1px solid;padding:0 1px"}
    pieces = "".join(
        f'<span style="{look[kind]}">{escape(piece)}</span>' for piece, kind in view.written
    )
    return (
        f'<div style="line-height:1.5"><div style="font-size:115%"><b>{escape(view.headline)}</b></div>'
        f"{rows}<div>The text so far (underlined: accepted; boxed: the target's own):</div>"
        f'<pre style="white-space:pre-wrap;margin:0.3em 0;line-height:1.7">{pieces}</pre></div>'
    )
