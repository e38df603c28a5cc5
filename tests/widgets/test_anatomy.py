from __future__ import annotations

import base64
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import ipywidgets
import nbformat
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nbclient import NotebookClient
from PIL import Image

from authoring.environment import kernel_environment
from authoring.outputs import clean_outputs
from slmlab.widgets import anatomy_view, picture_explorer
from slmlab.widgets.anatomy import Explorer, State, explorer
from slmlab.widgets.anatomy_picture import AnatomyPicture
from slmlab.widgets.anatomy_view import view
from slmlab.widgets.card import CardFigure
from tests.widgets.test_anatomy_view import BENCH, ROOFLINE, TINY, states

ROOT = Path(__file__).parents[2]
VIEW_MIME = "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    seen: list[Any] = []
    original = anatomy_view.predict_decode

    def counted(*args: Any, **kwargs: Any) -> Any:
        seen.append(kwargs)
        return original(*args, **kwargs)

    monkeypatch.setattr(anatomy_view, "predict_decode", counted)
    return seen


def _png_in(html: str) -> bytes:
    return base64.b64decode(html.split("base64,")[1].split('"')[0])


def test_a_move_costs_one_prediction_and_one_picture(calls):
    shown = explorer(TINY, ROOFLINE)
    moves = [
        ("model", "SmolLM2-135M"),
        ("scheme", "float16"),
        ("context", 8192),
        ("batch", 8),
        ("device", "Apple M1"),
    ]
    for name, value in moves:
        calls.clear()
        before = shown.picture.pictures
        text, image = shown.text.value, shown.image.value
        shown.controls[name].value = value
        assert (len(calls), shown.picture.pictures - before) == (1, 1), name
        assert getattr(shown.state, name) == value
        assert shown.text.value != text and shown.image.value != image
    assert shown.state == State("SmolLM2-135M", "float16", 8192, 8, "Apple M1")
    # Axes, ticks and labels were drawn once for all six pictures.
    assert shown.picture.figure.draws == 1


def test_the_same_value_again_costs_nothing_and_a_known_state_no_picture(calls):
    shown = explorer()
    calls.clear()
    drawn = shown.picture.pictures
    shown.controls["context"].value = shown.state.context
    assert (len(calls), shown.picture.pictures) == (0, drawn)
    first = shown.image.value
    shown.controls["context"].value = 8192
    shown.controls["context"].value = 4096
    assert shown.picture.pictures == drawn + 1
    assert shown.image.value == first


def test_pictures_are_kept_within_a_bound(monkeypatch):
    monkeypatch.setattr(picture_explorer, "KEPT_PICTURES", 3)
    shown = explorer()
    for context in (128, 256, 512, 1024):
        shown.controls["context"].value = context
    assert [state.context for state in shown._pictures] == [256, 512, 1024]


def test_moving_artists_gives_the_same_picture_as_drawing_everything():
    picture = AnatomyPicture()
    for state in (
        BENCH.start(),
        State("SmolLM2-135M", "int8", 128, 64, "NVIDIA H100 SXM"),
        State("Qwen2.5-0.5B", "float16", 32768, 64, "Intel Core Ultra 200V (Lunar Lake)"),
        State("loaded model", "float32", 128, 1, "NVIDIA H100 SXM"),
    ):
        picture.update(view(BENCH, state))
        moved = np.asarray(Image.open(io.BytesIO(picture.png())), dtype=int)
        whole = Image.open(io.BytesIO(picture.figure.png())).convert("RGB")
        # Lines and axes change their order where they cross; nothing else may differ.
        differing = np.abs(moved - np.asarray(whole, dtype=int)).max(axis=-1) > 8
        assert differing.mean() < 2e-3, state


def test_artists_are_made_once():
    picture = AnatomyPicture()
    picture.update(view(BENCH, BENCH.start()))
    before = [id(artist) for artist in picture.figure.findobj()]
    for state in (State("SmolLM2-135M", batch=64), State("loaded model", device="NVIDIA T4")):
        picture.update(view(BENCH, state))
        picture.figure.canvas.draw()
    after = {id(artist) for artist in picture.figure.findobj()}
    # Ticks are the only artists that matplotlib may add when it draws.
    assert set(before) <= after


@given(states)
@settings(max_examples=12)
def test_the_picture_shows_every_state(state):
    picture = AnatomyPicture()
    shown = view(BENCH, state)
    picture.update(shown)
    picture.figure.canvas.draw()
    x, y = shown.prediction.intensity_flop_per_byte, shown.gflop_s
    (left, right), (bottom, top) = picture.axes.get_xlim(), picture.axes.get_ylim()
    assert left < x < right and bottom < y < top
    # On the line: the roof passes through the point.
    roof_x, roof_y = (np.asarray(v, dtype=float) for v in picture.roof.line.get_data())
    at = np.exp(np.interp(np.log(x), np.log(roof_x), np.log(roof_y)))
    assert at == pytest.approx(y, rel=1e-6)
    widths = [bar.get_width() for bar in picture.rectangles]
    p = shown.prediction
    assert widths[1] / widths[0] == pytest.approx(p.kv_bytes / p.weight_bytes)
    for text in (picture.point_text, *picture.bar_texts, picture.roof.flat_text):
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= picture.figure.bbox.x1 + 1, text.get_text()
    title = picture.title
    assert p.limiting in title.get_text().replace("\n", " ")
    assert title.get_window_extent().y0 >= picture.axes.get_window_extent().y1


@given(
    moves=st.lists(st.tuples(st.sampled_from(["context", "batch", "scheme"]), st.integers(0, 99)))
)
@settings(max_examples=5)
def test_the_widget_shows_what_the_pure_function_says(moves):
    shown = explorer(TINY, ROOFLINE)
    for name, pick in moves[:4]:
        control = shown.controls[name]
        values = [o[1] if isinstance(o, tuple) else o for o in control.options]
        control.value = values[pick % len(values)]
    expected = view(BENCH, shown.state)
    assert shown.view.prediction == expected.prediction
    for sentence in (expected.headline, expected.limit, expected.cache):
        assert sentence in shown.text.value
    assert expected.limit in shown.image.value  # the alternative text


def test_labels_carry_units_and_controls_are_those_of_both_widget_versions():
    shown = explorer()
    labels = {name: control.description for name, control in shown.controls.items()}
    assert labels["context"] == "context (tokens)" and labels["batch"] == "batch (sequences)"
    assert {type(c) for c in shown.controls.values()} == {
        ipywidgets.Dropdown,
        ipywidgets.SelectionSlider,
    }


def test_one_output_with_a_picture_for_viewers_without_widgets():
    shown = explorer()
    data = shown._repr_mimebundle_()
    assert data[VIEW_MIME]["model_id"] == shown.box.model_id
    assert data["text/plain"].startswith("At most")
    picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert picture.size == (1152, 752)
    assert _png_in(shown.image.value) == base64.b64decode(data["image/png"])
    # Far below the 300 KB that the build allows a cell.
    assert len(data["image/png"]) < 150_000
    # Opaque to the edge: it reads on a dark page.
    assert np.asarray(picture.convert("RGBA"))[..., 3].min() == 255


def test_static_gives_the_picture_alone():
    figure = explorer(TINY, ROOFLINE, static=True, state=State("loaded model", "int8", 512))
    assert isinstance(figure, CardFigure)
    assert figure.alt == view(BENCH, State("loaded model", "int8", 512)).text.replace(
        "this machine", "Raspberry Pi 5"
    )


def test_text_is_escaped():
    shown = explorer()
    assert "<script" not in shown.text.value
    assert shown.text.value.count("<div") == shown.text.value.count("</div>")


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: explorer(state=State("GPT-5")), ValueError, "state.model='GPT-5'"),
        (
            lambda: explorer(state=State("SmolLM2-135M", context=100)),
            ValueError,
            "state.context=100",
        ),
        (lambda: explorer(state=State("SmolLM2-135M", batch=3)), ValueError, "state.batch=3"),
        (lambda: explorer(state=cast(Any, "SmolLM2-135M")), TypeError, "state must be a State"),
        (lambda: explorer(roofline=cast(Any, 28)), TypeError, "roofline must be a Roofline"),
    ],
)
def test_bad_arguments_are_named(call, error, words):
    with pytest.raises(error) as caught:
        call()
    assert words in str(caught.value)


def test_it_needs_no_display_and_no_pyplot():
    code = (
        "import sys; from slmlab.widgets.anatomy import explorer; e = explorer();"
        "e.controls['context'].value = 128; assert 'matplotlib.pyplot' not in sys.modules;"
        "print(len(e.image.value) > 1000)"
    )
    environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "MPLBACKEND")}
    environment["OMP_NUM_THREADS"] = "1"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.strip()) == (0, "True"), done.stderr


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> nbformat.NotebookNode:
    cells = [
        ("from slmlab.widgets import roofline_plot\nroofline_plot('Apple M1')", []),
        (
            "from slmlab.widgets.anatomy import answer, explorer\nshown = explorer()\nshown",
            ["nbval-ignore-output"],
        ),
        ("shown.controls['context'].value = 8192\nprint(shown.state.context)", []),
        ("print({name: at for name, (_, at) in answer().items()})", []),
    ]
    notebook = nbformat.v4.new_notebook()
    for index, (source, tags) in enumerate(cells):
        cell = nbformat.v4.new_code_cell(source, id=f"widget-{index}", metadata={"tags": tags})
        notebook.cells.append(cell)
    environment = kernel_environment(tmp_path_factory.mktemp("scratch"))
    environment["PYTHONPATH"] = str(ROOT)
    client = NotebookClient(notebook, timeout=300, startup_timeout=300, store_widget_state=False)
    client.execute(env=environment)
    return notebook


def _data(notebook: nbformat.NotebookNode, cell: int) -> dict[str, Any]:
    (output,) = notebook.cells[cell].outputs
    return output.data


def test_in_a_notebook_each_is_shown_once(executed):
    assert set(_data(executed, 0)) == {"image/png", "text/plain"}
    assert set(_data(executed, 1)) == {"image/png", "text/plain", VIEW_MIME}
    assert executed.cells[2].outputs[0].text == "8192\n"
    assert "'SmolLM2-135M': 5053" in executed.cells[3].outputs[0].text


def test_the_committed_output_keeps_the_picture(executed):
    clean_outputs(executed, ROOT)
    data = _data(executed, 1)
    assert set(data) == {"image/png", "text/plain"}
    Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).verify()
    assert "is the limit" in data["text/plain"]


def test_explorer_is_what_is_returned():
    assert isinstance(explorer(), Explorer)
