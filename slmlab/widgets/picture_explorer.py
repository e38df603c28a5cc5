"""What every lesson's explorer shares: controls in a row, sentences, and a picture as PNG.

Only what ipywidgets 7.7 and 8.1 share is used, and the picture travels as PNG inside an HTML
widget: no matplotlib backend for widgets, which Binder, Colab and VS Code each handle differently.
"""

from __future__ import annotations

import base64
from collections import OrderedDict
from collections.abc import Hashable
from html import escape
from typing import Any

import ipywidgets as widgets

KEPT_PICTURES = 64


class PictureExplorer:
    """The controls (``controls["name"].value = 8`` moves one), the text and the picture.

    A subclass says what the controls mean (`read`), what is shown for it (`look`) and how it is
    drawn (`draw`). A picture is drawn once for a state and kept.

    state: what is set, hashable. box: the widget.
    """

    def __init__(self, controls: dict[str, Any], start: Hashable) -> None:
        self.controls = controls
        self._pictures: OrderedDict[Any, bytes] = OrderedDict()
        self.text = widgets.HTML()
        self.image = widgets.HTML()
        for control in controls.values():
            control.observe(lambda _: self._show(self.read()), names="value")
        rows = widgets.Box(
            list(controls.values()),
            layout=widgets.Layout(display="flex", flex_flow="row wrap", width="100%"),
        )
        self.box = widgets.VBox([rows, self.text, self.image])
        self._show(start)

    def read(self) -> Hashable:
        """The state that the controls are set to."""
        raise NotImplementedError

    def look(self, state: Any) -> tuple[str, str]:
        """The sentences for a state: as HTML, and as plain text in reading order."""
        raise NotImplementedError

    def draw(self, state: Any) -> bytes:
        """The picture for the state that was looked at last, as PNG."""
        raise NotImplementedError

    def _show(self, state: Hashable) -> None:
        self.state: Any = state
        # The text first: it needs no drawing.
        self.text.value, self._spoken = self.look(state)
        self.image.value = image_html(self._png(), self._spoken)

    def _png(self) -> bytes:
        if self.state not in self._pictures:
            self._pictures[self.state] = self.draw(self.state)
            if len(self._pictures) > KEPT_PICTURES:
                self._pictures.popitem(last=False)
        self._pictures.move_to_end(self.state)
        return self._pictures[self.state]

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        # One output with three forms: a front end shows the richest that it can. The build of the
        # lessons drops the widget's, and GitHub and every other viewer then shows the picture.
        return {
            "text/plain": self._spoken,
            "image/png": base64.b64encode(self._png()).decode("ascii"),
            "application/vnd.jupyter.widget-view+json": {
                "version_major": 2,
                "version_minor": 0,
                "model_id": self.box.model_id,
            },
        }


def image_html(png: bytes, alt: str) -> str:
    """An image that carries its own bytes and says in words what it shows."""
    data = base64.b64encode(png).decode("ascii")
    return (
        f'<img alt="{escape(alt, quote=True)}" src="data:image/png;base64,{data}" '
        'style="width:720px;max-width:100%;height:auto">'
    )
