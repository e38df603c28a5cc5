"""Predictions are stored before, scored after, and cannot be improved afterwards."""

import math
import os
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib.text import Text

from slmlab.checking import ProgressFile, calibration_plot, measured, predict
from slmlab.checking.logbook import Guess, PredictionRecord, now
from slmlab.checking.numbers_text import quantity

mpl.use("Agg")


def test_nothing_predicted_yet(capsys: pytest.CaptureFixture[str]) -> None:
    result = predict("tok/s at int4", None, "tok/s")
    assert result.value is None and result.ratio is None
    assert "not predicted yet" in capsys.readouterr().out
    assert measured("tok/s at int4", 100.0).ratio is None
    assert "not predicted yet" in capsys.readouterr().out
    assert ProgressFile().read().predictions == {}


def test_none_shows_what_was_predicted_before(capsys: pytest.CaptureFixture[str]) -> None:
    predict("size", 5.0, "MB")
    capsys.readouterr()
    assert predict("size", None).value == 5.0
    assert "you predicted 5 MB" in capsys.readouterr().out


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.floats(1e-9, 1e9), result=st.floats(1e-9, 1e9))
def test_the_ratio(value: float, result: float, tmp_path: Path) -> None:
    Path(os.environ["SLMLAB_PROGRESS"]).unlink(missing_ok=True)
    predict("x", value)
    ratio = measured("x", result).ratio
    assert ratio is not None and ratio >= 1
    assert math.log(ratio) == pytest.approx(abs(math.log(value) - math.log(result)), abs=1e-9)


@pytest.mark.parametrize(
    ("value", "result", "words"),
    [
        (320, 100, "3.2 too high, the right order of magnitude"),
        (100, 150, "1.5 too low, within a factor of 2"),
        (100, 101, "within 5%"),
        (1, 50, "factor of 50 too low."),
    ],
)
def test_the_verdict(
    value: float, result: float, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    predict("x", value, "tok/s")
    measured("x", result)
    assert words in capsys.readouterr().out


@pytest.mark.parametrize(
    ("value", "result", "words"),
    [
        (70, 74, "within 5 points."),
        (69.3, 64.3, "within 5 points."),
        (90, 60, ": 30 points too high."),
        (0.74, 74, ": 73.3 points too low."),
        (0, 40, "you predicted 0 %, measured 40 %: 40 points too low."),
        (3, 0, "within 5 points."),
        (0, 0, "within 5 points."),
    ],
)
def test_shares_are_compared_in_points(
    value: float, result: float, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    predict("share", value, "%")
    outcome = measured("share", result)
    said = capsys.readouterr().out
    assert words in said and "factor" not in said
    assert outcome.ratio is not None and outcome.ratio >= 1
    calibration_plot()


@pytest.mark.parametrize("value", [-1, 100.5, 740, math.inf, math.nan])
def test_shares_lie_between_0_and_100(value: float) -> None:
    with pytest.raises(ValueError, match="value"):
        predict("share", value, "%")
    assert ProgressFile().read().predictions == {}
    predict("share", 50, "%")
    with pytest.raises(ValueError, match="value"):
        measured("share", value)
    assert ProgressFile().read().prediction("share").measured is None
    with pytest.raises(ValueError, match=r"between 0 and 100.*write 25 for a quarter"):
        predict("share", 740, "%")
    with pytest.raises(ValueError, match="predict again in the unit"):
        measured("share", 740)
    predict("share", 740, "tokens/s")
    assert measured("share", 740).ratio == 1.0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (320, "320"),
        (1e3, "1,000"),
        (0.04, "0.04"),
        (9612345, "9,612,000"),
        (1.23456, "1.235"),
        (2e-6, "2e-06"),
        (99999, "100,000"),
        (5e13, "5e+13"),
    ],
)
def test_quantities_in_prose(value: float, text: str) -> None:
    assert quantity(value) == text


def test_a_change_of_mind_before_the_measurement_counts() -> None:
    predict("x", 1.0)
    predict("x", 2.0)
    assert measured("x", 2.0).ratio == 1.0


def test_a_prediction_after_the_measurement_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    predict("x", 8.0, "ms")
    measured("x", 2.0)
    capsys.readouterr()
    late = predict("x", 2.0, "ms")
    said = capsys.readouterr().out
    assert late.value == 8.0 and late.ratio == 4.0
    assert "2 ms is recorded" in said and "from before it counts: 8 ms" in said
    assert [g.value for g in ProgressFile().read().prediction("x").guesses] == [8.0, 2.0]
    assert measured("x", 4.0).ratio == 2.0


def test_running_the_cells_again_adds_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        predict("x", 8.0, "ms")
        measured("x", 2.0)
    assert len(ProgressFile().read().prediction("x").guesses) == 1
    assert "stands; it has been measured" in capsys.readouterr().out


@pytest.mark.parametrize("value", [np.float32(3), np.int64(3), torch.tensor(3), torch.tensor([3])])
def test_numbers_of_other_libraries(value: Any) -> None:
    assert predict("x", value).value == 3.0
    assert measured("x", value).ratio == 1.0


@pytest.mark.parametrize(
    "value",
    [
        0,
        -1,
        math.inf,
        -math.inf,
        math.nan,
        10**400,
        1e101,
        1e-101,
        pytest.param(10**5000, id="huge"),
    ],
)
def test_values_that_cannot_be_scored(value: Any) -> None:
    for call in (predict, measured):
        with pytest.raises(ValueError, match="value"):
            call("x", value)


@pytest.mark.parametrize("value", ["3", True, [3], 3j, torch.ones(2), object()])
def test_values_of_a_wrong_type(value: Any) -> None:
    for call in (predict, measured):
        with pytest.raises(TypeError, match="value"):
            call("x", value)


def test_names_and_units_are_checked() -> None:
    with pytest.raises(TypeError, match="name"):
        predict(3, 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="name"):
        predict(" ", 3)
    with pytest.raises(TypeError, match="unit"):
        predict("x", 3, None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="name"):
        measured(None, 3)  # type: ignore[arg-type]


def test_the_plot_without_predictions_says_so() -> None:
    axes = calibration_plot().axes[0]
    assert "yet" in axes.get_title(loc="left")
    assert any("left every prediction at None" in text.get_text() for text in axes.texts)


@pytest.mark.parametrize(("count", "words"), [(1, "One prediction waits"), (2, "2 predictions wa")])
def test_the_plot_says_what_was_predicted_and_not_measured(count: int, words: str) -> None:
    predict("left at None", None)
    for index in range(count):
        predict(f"number {index}", 3.0)
    (text,) = calibration_plot().axes[0].texts
    assert words in text.get_text() and "Run the cell that measures" in text.get_text()


def test_the_plot(tmp_path: Path) -> None:
    pairs = {"tok/s at int4": (320, 100, "tok/s"), "bytes $a$_b": (5e6, 4e6, "B"), "KL": (3, 3, "")}
    for name, (value, result, unit) in pairs.items():
        predict(name, value, unit)
        measured(name, result)
    predict("never measured", 1.0)
    figure = calibration_plot()
    axes = figure.axes[0]
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert axes.get_title(loc="left") == "2 of 3 predictions are within a factor of 2"
    assert "unit" in axes.get_xlabel() and "unit" in axes.get_ylabel()
    drawn = [(np.asarray(line.get_xydata()), line.get_marker()) for line in axes.lines]
    points = {tuple(xy[0].tolist()): marker for xy, marker in drawn if len(xy) == 1}
    assert points == {(100, 320): "^", (4e6, 5e6): "o", (3, 3): "o"}
    labels = {text.get_text() for text in axes.texts}
    assert {"tok/s at int4 [tok/s]", "bytes $a$_b [B]", "KL"} <= labels
    figure.savefig(tmp_path / "plot.png")


def test_the_plot_of_the_farthest_numbers(tmp_path: Path) -> None:
    predict("far", 1e100)
    assert measured("far", 1e-100).ratio == pytest.approx(1e200)
    predict("near", 1e-100)
    measured("near", 1e-100)
    calibration_plot().savefig(tmp_path / "plot.png")


def test_the_plot_leaves_out_what_an_older_file_holds(tmp_path: Path) -> None:
    record = PredictionRecord((Guess(now(), 1e299),), now(), now(), 1e-299)
    ProgressFile().update(lambda logbook: logbook.with_prediction("old", record))
    predict("x", 2.0)
    measured("x", 2.0)
    figure = calibration_plot()
    assert figure.axes[0].get_title(loc="left").startswith("1 of 1 prediction")
    figure.savefig(tmp_path / "plot.png")


def test_labels_do_not_overlap(tmp_path: Path) -> None:
    for index in range(12):
        predict(f"prediction number {index}", 100 + index, "ms")
        measured(f"prediction number {index}", 90 + 3 * index)
    figure = calibration_plot()
    figure.savefig(tmp_path / "plot.png")
    # Annotation's own extent includes the line to its point.
    boxes = [
        Text.get_window_extent(text) for text in figure.axes[0].texts if "number" in text.get_text()
    ]
    assert len(boxes) == 12
    overlaps = [(one, two) for one, two in combinations(boxes, 2) if one.overlaps(two)]
    assert overlaps == []
    frame = figure.axes[0].get_window_extent()
    assert all(frame.y0 <= box.y0 and box.y1 <= frame.y1 for box in boxes)
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)


def test_pyplot_keeps_no_figure_open() -> None:
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    calibration_plot()
    assert plt.get_fignums() == before
