"""The scrubber of lesson 05: a recorded engine run, pass by pass, at several pool sizes."""

from __future__ import annotations

from html import escape
from typing import Any, Literal, overload

import ipywidgets as widgets

from slmlab.widgets.card import CardFigure
from slmlab.widgets.paged_serving_picture import PagedPicture
from slmlab.widgets.paged_serving_view import QUESTION, Runs, State, View, never_twice, view
from slmlab.widgets.picture_explorer import PictureExplorer

__all__ = ["QUESTION", "Runs", "Scrubber", "State", "never_twice", "scrubber"]


@overload
def scrubber(
    runs: Runs, *, state: State | None = ..., static: Literal[False] = ...
) -> Scrubber: ...
@overload
def scrubber(runs: Runs, *, state: State | None = ..., static: Literal[True]) -> CardFigure: ...
def scrubber(
    runs: Runs, *, state: State | None = None, static: bool = False
) -> Scrubber | CardFigure:
    """Two sliders, the pool's size and the pass, and what the engine holds there.

    runs: recorded before, so that no move waits for the model. state: where it starts, in the
    middle of a run on a small pool if not given. static=True gives the picture alone. A viewer that
    runs no widgets shows the picture of the start. Tag the cell nbval-ignore-output. Raises
    TypeError for no Runs or State, ValueError for a state that was not recorded.
    """
    if not isinstance(runs, Runs):
        raise TypeError(f"runs must be a Runs, got {type(runs).__name__}: pass Runs(lm)")
    start = _middle(runs) if state is None else state
    shown = view(runs, start)
    if not static:
        return Scrubber(runs, start)
    picture = PagedPicture(runs)
    picture.update(shown)
    return picture.figure


def _middle(runs: Runs) -> State:
    """The first preemption on the second smallest pool, or the middle of the run without one."""
    blocks = runs.pools[min(1, len(runs.pools) - 1)]
    frames = runs.recordings[blocks].frames
    preempted = (i for i, frame in enumerate(frames, 1) if frame.preemptions)
    return State(blocks, next(preempted, len(frames) // 2 + 1))


class Scrubber(PictureExplorer):
    """Two sliders, the text and the picture; view: what is shown for the state."""

    def __init__(self, runs: Runs, start: State) -> None:
        self.runs = runs
        self.picture = PagedPicture(runs)
        common = {
            "style": {"description_width": "110px"},
            "layout": widgets.Layout(width="420px", margin="2px"),
        }
        controls: dict[str, Any] = {
            "blocks": widgets.SelectionSlider(
                options=list(runs.pools), value=start.blocks, description="pool (blocks)", **common
            ),
            "at": widgets.IntSlider(
                min=1,
                max=runs.recordings[start.blocks].passes,
                value=start.at,
                description="forward pass",
                **common,
            ),
        }
        super().__init__(controls, start)

    def read(self) -> State:
        blocks, slider = self.controls["blocks"].value, self.controls["at"]
        last = self.runs.recordings[blocks].passes
        if slider.max != last:
            # A shorter run: the slider moves its own value, which calls this again.
            slider.max = last
        return State(blocks, min(slider.value, last))

    def look(self, state: State) -> tuple[str, str]:
        self.view: View = view(self.runs, state)
        return text_html(self.view), self.view.text

    def draw(self, state: State) -> bytes:
        self.picture.update(self.view)
        return self.picture.png()


def text_html(view: View) -> str:
    """The sentences as HTML, in the page's own colours: they read on light and on dark."""
    lines = [view.memory, view.queue, view.work, " ".join(view.events) or "Nothing else happened."]
    rows = "".join(f"<div>{escape(line)}</div>" for line in lines)
    headline = f'<div style="font-size:115%"><b>{escape(view.headline)}</b></div>'
    return f'<div style="line-height:1.5">{headline}{rows}</div>'
