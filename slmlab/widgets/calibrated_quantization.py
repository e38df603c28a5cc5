"""The explorer of lesson 03: a bit budget, the bits of every matrix, the size and the damage.

Everything that takes time was measured before, in ``measure_bench``, and the few pictures there
are have been drawn when the widget appears: a move looks one up.
"""

from __future__ import annotations

from html import escape

import ipywidgets as widgets

from slmlab.widgets.calibrated_quantization_bench import Bench, Stop, least_budget_as_good
from slmlab.widgets.calibrated_quantization_picture import message, plan_picture, plan_text
from slmlab.widgets.picture_explorer import PictureExplorer
from slmlab.widgets.units import digits

QUESTION = (
    "How few bits a weight does a mixed plan need to do as little damage as int4 with groups of 32 "
    "does everywhere?"
)

__all__ = ["QUESTION", "Explorer", "explorer", "least_budget_as_good"]


def explorer(bench: Bench, start: int | None = None) -> Explorer:
    """A slider over the budgets of ``bench``. Return it from the cell.

    start: index of the first stop shown; None takes the last but one, so that the way is down to
    the answer. A viewer that runs no widgets shows its picture. Tag the cell nbval-ignore-output. Raises TypeError for anything but
    a Bench, ValueError for a start that is not one of its stops.
    """
    if not isinstance(bench, Bench):
        raise TypeError(f"bench must be a Bench, not {type(bench).__name__}: use measure_bench")
    place = max(len(bench.stops) - 2, 0) if start is None else start
    if not 0 <= place < len(bench.stops):
        raise ValueError(f"start={start} must lie between 0 and {len(bench.stops) - 1}")
    return Explorer(bench, place)


class Explorer(PictureExplorer):
    """The slider (``control.value = 3`` moves it to the fourth budget), the text and the picture.

    state: the place of ``stop``, which is shown, among the bench's.
    """

    def __init__(self, bench: Bench, start: int) -> None:
        self.bench = bench
        self._drawn = [plan_picture(bench, stop).png() for stop in bench.stops]
        self.control = widgets.SelectionSlider(
            options=[(stop.name, place) for place, stop in enumerate(bench.stops)],
            value=start,
            description="budget (bits a weight)",
            style={"description_width": "160px"},
            layout=widgets.Layout(width="440px", margin="2px"),
        )
        super().__init__({"budget": self.control}, start)

    def read(self) -> int:
        return int(self.control.value)

    def look(self, state: int) -> tuple[str, str]:
        self.stop: Stop = self.bench.stops[state]
        return text_html(self.bench, self.stop), spoken(self.bench, self.stop)

    def draw(self, state: int) -> bytes:
        return self._drawn[state]


def comparison(bench: Bench, stop: Stop) -> str:
    """The plan against the smallest uniform scheme that is no smaller than it."""
    larger = [other for other in bench.uniform if other.bits >= stop.bits - 0.01]
    if not larger:
        return "No uniform scheme that was measured is as large."
    near = min(larger, key=lambda other: other.bits)
    ratio = stop.kl_nats / near.kl_nats
    return (
        f"Uniform {near.name} takes {digits(near.bits)} bits, KL {digits(near.kl_nats, 2)}: this "
        f"plan does {digits(ratio, 2)} times its damage."
    )


def spoken(bench: Bench, stop: Stop) -> str:
    """All sentences in reading order."""
    parts = (f"{message(bench, stop)}.", plan_text(bench, stop), comparison(bench, stop))
    return " ".join(parts)


def text_html(bench: Bench, stop: Stop) -> str:
    """The sentences as HTML, in the page's own colours."""
    lines = (plan_text(bench, stop), comparison(bench, stop))
    rows = "".join(f"<div>{escape(line)}</div>" for line in lines)
    headline = f'<div style="font-size:115%"><b>{escape(message(bench, stop))}</b></div>'
    return f'<div style="line-height:1.5">{headline}{rows}</div>'
