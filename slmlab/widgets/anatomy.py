"""The explorer of lesson 01: model, precision, context, batch and device against the two limits.

Only what ipywidgets 7.7 and 8.1 share is used, and the picture travels as PNG inside an HTML
widget: no matplotlib backend for widgets, which Binder, Colab and VS Code each handle differently.
"""

from __future__ import annotations

import base64
import dataclasses
from collections import OrderedDict
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

__all__ = ["QUESTION", "Explorer", "State", "answer", "cache_equals_weights_at", "explorer"]

_KEPT_PICTURES = 64


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


class Explorer:
    """The controls (``controls["context"].value = 8192`` moves one), the text and the picture.

    state: what is set. view: what is shown for it. box: the widget.
    """

    def __init__(self, bench: Bench, start: State) -> None:
        self.bench = bench
        self.picture = AnatomyPicture()
        self._pictures: OrderedDict[State, bytes] = OrderedDict()
        self.controls = _controls(bench, start)
        self.text = widgets.HTML()
        self.image = widgets.HTML()
        for control in self.controls.values():
            control.observe(self._moved, names="value")
        rows = widgets.Box(
            list(self.controls.values()),
            layout=widgets.Layout(display="flex", flex_flow="row wrap", width="100%"),
        )
        self.box = widgets.VBox([rows, self.text, self.image])
        self._show(start)

    def _moved(self, _: Any) -> None:
        self._show(State(**{name: control.value for name, control in self.controls.items()}))

    def _show(self, state: State) -> None:
        self.state = state
        self.view: View = view(self.bench, state)
        # The text first: it needs no drawing.
        self.text.value = text_html(self.view)
        self.image.value = image_html(self._png(), self.view.text)

    def _png(self) -> bytes:
        if self.state not in self._pictures:
            self.picture.update(self.view)
            self._pictures[self.state] = self.picture.png()
            if len(self._pictures) > _KEPT_PICTURES:
                self._pictures.popitem(last=False)
        self._pictures.move_to_end(self.state)
        return self._pictures[self.state]

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        # One output with three forms: a front end shows the richest that it can. The build of the
        # lessons drops the widget's, and GitHub and every other viewer then shows the picture.
        return {
            "text/plain": self.view.text,
            "image/png": base64.b64encode(self._png()).decode("ascii"),
            "application/vnd.jupyter.widget-view+json": {
                "version_major": 2,
                "version_minor": 0,
                "model_id": self.box.model_id,
            },
        }


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


def image_html(png: bytes, alt: str) -> str:
    """An image that carries its own bytes and says in words what it shows."""
    data = base64.b64encode(png).decode("ascii")
    return (
        f'<img alt="{escape(alt, quote=True)}" src="data:image/png;base64,{data}" '
        'style="width:720px;max-width:100%;height:auto">'
    )
