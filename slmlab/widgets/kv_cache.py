"""The explorer of lesson 04: a cache's bytes, and the context that fits next to the weights."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any, Literal, overload

import ipywidgets as widgets

from slmlab.widgets.card import CardFigure
from slmlab.widgets.kv_cache_picture import KVCachePicture
from slmlab.widgets.kv_cache_view import (
    BATCHES,
    CONTEXTS,
    KINDS,
    LOADED_MODEL,
    OWN,
    QUESTION,
    WEIGHTS,
    WINDOWS,
    State,
    View,
    cache_bytes,
    context_that_fits,
    fits_beside_weights,
    longest,
    make_models,
    tokens_text,
    view,
)
from slmlab.widgets.picture_explorer import PictureExplorer

__all__ = [
    "LOADED_MODEL",
    "OWN",
    "QUESTION",
    "Explorer",
    "State",
    "cache_bytes",
    "context_that_fits",
    "explorer",
    "fits_beside_weights",
    "longest",
    "tokens_text",
]


@overload
def explorer(
    model: Any = ..., *, state: State | None = ..., static: Literal[False] = ...
) -> Explorer: ...
@overload
def explorer(
    model: Any = ..., *, state: State | None = ..., static: Literal[True]
) -> CardFigure: ...
def explorer(
    model: Any = None, *, state: State | None = None, static: bool = False
) -> Explorer | CardFigure:
    """Six controls, and the bytes that follow from them. Return it from the cell.

    model: a LanguageModel, a model or a config, offered as "loaded model" beside the published
    shapes. state: where it starts, Llama-3.2-1B if not given. static=True gives the picture alone.
    A viewer that runs no widgets shows the picture of the start. Tag the cell
    nbval-ignore-output. Raises TypeError for no State, ValueError for a state that is not offered,
    else as `make_models`.
    """
    models = make_models(model)
    start = State() if state is None else state
    _check_offered(models, start)
    if not static:
        return Explorer(models, start)
    picture = KVCachePicture(models)
    picture.update(view(models, start))
    return picture.figure


def _offers(models: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    return {
        "model": tuple(models),
        "weights": WEIGHTS,
        "kind": KINDS,
        "context": CONTEXTS,
        "batch": BATCHES,
        "window": WINDOWS,
    }


def _check_offered(models: Mapping[str, Any], state: State) -> None:
    if not isinstance(state, State):
        raise TypeError(f"state must be a State, got {type(state).__name__}")
    for name, offered in _offers(models).items():
        if getattr(state, name) not in offered:
            raise ValueError(
                f"state.{name}={getattr(state, name)!r} is not offered; choose one of "
                f"{', '.join(map(str, offered))}"
            )


class Explorer(PictureExplorer):
    """Six controls, the text and the picture; view: what is shown for the state."""

    def __init__(self, models: Mapping[str, Any], start: State) -> None:
        self.models = models
        self.picture = KVCachePicture(models)
        super().__init__(_controls(models, start), start)

    def read(self) -> State:
        return State(**{name: control.value for name, control in self.controls.items()})

    def look(self, state: State) -> tuple[str, str]:
        self.view: View = view(self.models, state)
        return text_html(self.view), self.view.text

    def draw(self, state: State) -> bytes:
        self.picture.update(self.view)
        return self.picture.png()


def _controls(models: Mapping[str, Any], start: State) -> dict[str, Any]:
    common = {
        "style": {"description_width": "150px"},
        "layout": widgets.Layout(width="340px", margin="2px"),
    }
    kinds = [(f"{kind}, with scales" if kind.startswith("int") else kind, kind) for kind in KINDS]
    contexts = [(f"{context:,}", context) for context in CONTEXTS]
    windows = [(w if w == OWN else f"{w:,} tokens at most", w) for w in WINDOWS]
    return {
        "model": widgets.Dropdown(
            options=list(models), value=start.model, description="model", **common
        ),
        "weights": widgets.Dropdown(
            options=list(WEIGHTS), value=start.weights, description="weights", **common
        ),
        "kind": widgets.Dropdown(
            options=kinds, value=start.kind, description="cache (number)", **common
        ),
        "window": widgets.Dropdown(
            options=windows, value=start.window, description="window (a layer)", **common
        ),
        "context": widgets.SelectionSlider(
            options=contexts, value=start.context, description="context (tokens)", **common
        ),
        "batch": widgets.SelectionSlider(
            options=list(BATCHES), value=start.batch, description="conversations", **common
        ),
    }


def text_html(view: View) -> str:
    """The sentences as HTML, in the page's own colours: they read on light and on dark."""
    lines = [view.token, view.room, *view.notes]
    rows = "".join(f"<div>{escape(line)}</div>" for line in lines)
    headline = f'<div style="font-size:115%"><b>{escape(view.headline)}</b></div>'
    return f'<div style="line-height:1.5">{headline}{rows}</div>'
