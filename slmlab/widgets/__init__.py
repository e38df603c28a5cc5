"""Floor 7: the lessons' plots in one style, and one explorer a lesson.

Plots are imported here; an explorer comes from its own module, as in
``from slmlab.widgets.anatomy import explorer``.
"""

from slmlab.widgets.card import CardFigure, lesson_figure
from slmlab.widgets.parameter_bars import parameter_bars
from slmlab.widgets.plot_style import SERIES, contrast, label_at_end, lesson_style
from slmlab.widgets.prediction_plot import prediction_vs_measured
from slmlab.widgets.published import PUBLISHED, Published
from slmlab.widgets.roofline_plot import RooflinePoint, roofline_plot

__all__ = [
    "PUBLISHED",
    "SERIES",
    "CardFigure",
    "Published",
    "RooflinePoint",
    "contrast",
    "label_at_end",
    "lesson_figure",
    "lesson_style",
    "parameter_bars",
    "prediction_vs_measured",
    "roofline_plot",
]
