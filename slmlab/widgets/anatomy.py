"""The explorer of lesson 01: model, precision, context, batch and device against the two limits."""

from __future__ import annotations

import dataclasses
from html import escape
from typing import Any, Literal, overload

import ipywidgets as widgets

from slmlab.measure import Roofline
from slmlab.widgets.anatomy_picture import AnatomyPicture
from slmlab.widgets.anatomy_view import (
    BATCHES,
    CONTEXTS,
    QUESTION,
    SCHEMES,
    Bench,
    State,
    View,
    answer,
    cache_equals_weights_at,
    make_bench,
    view,
)
from slmlab.widgets.card import CardFigure
from slmlab.widgets.picture_explorer import PictureExplorer

__all__ = ["QUESTION", "Explorer", "State", "answer", "cache_equals_weights_at", "explorer"]


@overload
def explorer(
    model: Any = ...,
    roofline: Roofline | None = ...,
    *,
    state: State | None = ...,
    static: Literal[False] = ...,
) -> Explorer: ...
@overload
def explorer(
    model: Any = ...,
    roofline: Roofline | None = ...,
    *,
    state: State | None = ...,
    static: Literal[True],
) -> CardFigure: ...
def explorer(
    model: Any = None,
    roofline: Roofline | None = None,
    *,
    state: State | None = None,
    static: bool = False,
) -> Explorer | CardFigure:
    """Five controls, and what they mean for memory and speed. Return it from the cell.

    model: a LanguageModel, a Decoder, a transformers model or a config, offered as "loaded
    model" beside the published shapes. roofline: `Roofline.measure()`, offered as "this machine"
    beside the device table. state: where it starts. static=True gives the picture alone.
    A viewer that runs no widgets (GitHub, a printed notebook) shows the picture of the start.
    Tag the cell nbval-ignore-output. Raises ValueError for a state that is not offered, TypeError
    for a roofline of another type, else as `predict_decode` for the model.
    """
    bench = make_bench(model, roofline)
    start = bench.start() if state is None else state
    _check_offered(bench, start)
    if not static:
        return Explorer(bench, start)
    picture = AnatomyPicture()
    picture.update(view(bench, start))
    return picture.figure


def _check_offered(bench: Bench, state: State) -> None:
    if not isinstance(state, State):
        raise TypeError(f"state must be a State, got {type(state).__name__}")
    for name, offered in _offers(bench).items():
        if getattr(state, name) not in offered:
            raise ValueError(
                f"state.{name}={getattr(state, name)!r} is not offered; choose one of "
                f"{', '.join(map(str, offered))}"
            )


def _offers(bench: Bench) -> dict[str, tuple[Any, ...]]:
    return {
        "model": tuple(bench.models),
        "scheme": SCHEMES,
        "context": CONTEXTS,
        "batch": BATCHES,
        "device": tuple(bench.devices),
    }


class Explorer(PictureExplorer):
    """Five controls, the text and the picture; view: what is shown for the state."""

    def __init__(self, bench: Bench, start: State) -> None:
        self.bench = bench
        self.picture = AnatomyPicture()
        super().__init__(_controls(bench, start), start)

    def read(self) -> State:
        return State(**{name: control.value for name, control in self.controls.items()})

    def look(self, state: State) -> tuple[str, str]:
        self.view: View = view(self.bench, state)
        return text_html(self.view), self.view.text

    def draw(self, state: State) -> bytes:
        self.picture.update(self.view)
        return self.picture.png()


def _controls(bench: Bench, start: State) -> dict[str, Any]:
    wide = widgets.Layout(width="340px", margin="2px")
    common = {"style": {"description_width": "125px"}, "layout": wide}
    offers = _offers(bench)
    labels = {
        "model": "model",
        "scheme": "weights stored as",
        "batch": "batch (sequences)",
        "device": "device",
    }
    controls: dict[str, Any] = {}
    for field in dataclasses.fields(State):
        name = field.name
        value = getattr(start, name)
        if name == "context":
            controls[name] = widgets.SelectionSlider(
                options=[(f"{tokens:,}", tokens) for tokens in offers[name]],
                value=value,
                description="context (tokens)",
                **common,
            )
        else:
            controls[name] = widgets.Dropdown(
                options=list(offers[name]), value=value, description=labels[name], **common
            )
    return controls


def text_html(view: View) -> str:
    """The sentences as HTML, in the page's own colours: they read on light and on dark."""
    lines = [view.limit, view.memory, view.cache, *view.notes]
    rows = "".join(f"<div>{escape(line)}</div>" for line in lines)
    headline = f'<div style="font-size:115%"><b>{escape(view.headline)}</b></div>'
    return f'<div style="line-height:1.5">{headline}{rows}</div>'
