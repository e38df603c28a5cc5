from __future__ import annotations

import itertools
from typing import Any, cast

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from slmlab.widgets.card import CardFigure, lesson_figure
from slmlab.widgets.plot_style import (
    CARD,
    DARK_PAGE,
    INK,
    LIGHT_PAGE,
    SERIES,
    STYLE,
    contrast,
    label_at_end,
    label_axes,
    lesson_style,
    spread,
    text_colour,
)
from tests.widgets.colours import VISION, difference, oracle_contrast

colours = st.integers(0, 0xFFFFFF).map(lambda n: f"#{n:06X}")


@given(colours, colours)
def test_contrast_agrees_with_the_luminance_row_of_srgb_to_xyz(first, second):
    assert contrast(first, second) == pytest.approx(oracle_contrast(first, second), rel=1e-3)
    assert 1 <= contrast(first, second) <= 21


def test_contrast_of_black_on_white_is_21():
    assert contrast("#000000", "#FFFFFF") == pytest.approx(21)


def test_no_grey_is_text_on_both_pages_which_is_why_there_is_a_card():
    best = max(
        min(contrast(grey, LIGHT_PAGE), contrast(grey, DARK_PAGE))
        for grey in (f"#{g:02X}{g:02X}{g:02X}" for g in range(256))
    )
    assert best == pytest.approx(4.34, abs=0.01)
    assert best < 4.5


def test_text_on_the_card_and_lines_on_every_page():
    assert contrast(INK, CARD) >= 4.5
    for series in SERIES:
        for page in (CARD, LIGHT_PAGE, DARK_PAGE):
            assert contrast(series.colour, page) >= 3, (series.name, page)
        assert contrast(text_colour(series.colour), CARD) >= 4.5


@pytest.mark.parametrize("vision", VISION)
def test_colours_differ_for_every_kind_of_colour_vision(vision):
    for a, b in itertools.combinations(SERIES, 2):
        assert difference(a.colour, b.colour, vision) >= 10, (a.name, b.name)


@pytest.mark.parametrize("cue", ["colour", "marker", "hatch", "line"])
def test_every_cue_tells_the_series_apart(cue):
    assert len({str(getattr(series, cue)) for series in SERIES}) == len(SERIES)


@given(colours)
def test_text_colour_reads_and_changes_no_more_than_it_must(colour):
    darker = text_colour(colour)
    assert contrast(darker, CARD) >= 4.5
    if contrast(colour, CARD) >= 4.5:
        assert darker == colour


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: contrast("blue", "#FFFFFF"), ValueError, "'blue'"),
        (lambda: contrast(cast(Any, 3), "#FFFFFF"), TypeError, "colour must be a str"),
        (lambda: text_colour("#0072B2", "#000000"), ValueError, "too dark"),
        (lambda: lesson_figure(0, 3), ValueError, "width"),
        (lambda: label_axes(lesson_figure()[1], "time", ""), ValueError, "needs a unit"),
        (lambda: label_at_end(lesson_figure()[1].plot([], [])[0], "a"), ValueError, "plot it"),
    ],
)
def test_bad_arguments_are_named(call, error, words):
    with pytest.raises(error) as caught:
        call()
    assert words in str(caught.value)


def test_lesson_style_gives_back_what_was_set():
    before = matplotlib.rcParams["axes.facecolor"], matplotlib.rcParams["font.size"]
    with lesson_style():
        assert matplotlib.rcParams["axes.edgecolor"] == INK
        assert matplotlib.rcParams["figure.facecolor"] == STYLE["figure.facecolor"] == CARD
    assert (matplotlib.rcParams["axes.facecolor"], matplotlib.rcParams["font.size"]) == before


def _pixels(figure: Figure) -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())  # type: ignore[attr-defined]


def test_the_card_is_opaque_whatever_the_page_set():
    with matplotlib.rc_context({"figure.facecolor": "none", "text.color": "white"}):
        figure, axes = lesson_figure(3, 2)
        axes.plot([1, 2], [1, 2])
        pixels = _pixels(figure)
        assert (pixels[..., 3] == 255).all()
        assert tuple(pixels[0, 0]) == (255, 255, 255, 255)


def test_a_late_draw_under_a_dark_theme_looks_the_same():
    def picture() -> np.ndarray:
        figure, axes = lesson_figure(3, 2)
        axes.set_xlim(0, 30)
        with matplotlib.rc_context({"xtick.color": "white", "font.size": 20} if dark else {}):
            return _pixels(figure)

    dark = False
    plain = picture()
    dark = True
    assert (picture() == plain).all()


def test_a_card_shows_itself_once_as_png_with_words():
    figure, _ = lesson_figure(4, 2, alt="A flat line.")
    data, metadata = figure._repr_mimebundle_()
    assert set(data) == {"image/png", "text/plain"}
    assert data["text/plain"] == metadata["image/png"]["alt"] == "A flat line."
    assert (metadata["image/png"]["width"], metadata["image/png"]["height"]) == (400, 200)
    # Nothing that pyplot's inline backend would show a second time at the end of the cell.
    import matplotlib.pyplot as plt

    assert plt.get_fignums() == []
    assert isinstance(figure, CardFigure)


def test_label_at_end_stands_right_of_the_last_point():
    figure, axes = lesson_figure()
    (line,) = axes.plot([1, 2, 3], [4, 5, 9])
    label = label_at_end(line, "groups of 32")
    figure.canvas.draw()
    end = axes.transData.transform((3, 9))
    box = label.get_window_extent()
    assert box.x0 > end[0] and box.y0 < end[1] < box.y1
    assert box.x1 <= figure.bbox.x1


@given(st.lists(st.floats(0, 100), max_size=8), st.floats(0.1, 10))
def test_spread_keeps_order_distance_and_bounds(positions, gap):
    moved = spread(positions, gap, 0, 100)
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    for a, b in itertools.pairwise(order):
        assert moved[b] - moved[a] >= gap - 1e-6
    assert all(-1e-6 <= m <= 100 + 1e-6 for m in moved)
    apart = sorted(positions)
    if all(b - a >= gap for a, b in itertools.pairwise(apart)):
        assert moved == pytest.approx(positions, abs=1e-9)
