from __future__ import annotations

import base64
import io
import itertools
import json
from typing import Any, cast

import ipywidgets
import numpy as np
import pytest
from PIL import Image

import slmlab
from slmlab.generation import LanguageModel
from slmlab.serving import Engine
from slmlab.widgets.card import CardFigure
from slmlab.widgets.paged_serving import QUESTION, Runs, Scrubber, State, never_twice, scrubber
from slmlab.widgets.paged_serving_bench import (
    Ask,
    record,
    record_static,
    sharing_trace,
    static_batches,
    trace,
)
from slmlab.widgets.paged_serving_map import memory_map, picture, places
from slmlab.widgets.paged_serving_plots import gaps_plot, waste_plot
from slmlab.widgets.paged_serving_race import BENCHMARK, race_text
from slmlab.widgets.paged_serving_view import view

VIEW_MIME = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return slmlab.load("tiny-draft")


@pytest.fixture(scope="module")
def runs(lm: LanguageModel) -> Runs:
    return Runs(lm, pools=(12, 14, 23, 32))


@pytest.fixture(scope="module")
def asks(lm: LanguageModel) -> list[Ask]:
    return trace(lm, requests=9, seed=1, longest=128)


def test_the_trace_is_seeded_and_within_its_bound(lm: LanguageModel) -> None:
    asks = trace(lm)
    assert asks == trace(lm) and asks != trace(lm, seed=1) and len(asks) == 40
    assert all(len(a.prompt) + a.max_new_tokens <= 512 for a in asks)
    lengths = [a.max_new_tokens for a in asks]
    assert max(lengths) > 3 * sorted(lengths)[20]


def test_all_servers_give_the_plain_loops_tokens(lm: LanguageModel, asks: list[Ask]) -> None:
    alone = [
        Engine(lm, num_blocks=40).generate([list(a.prompt)], a.max_new_tokens)[0] for a in asks
    ]
    reserved = record(Engine(lm, 2, 128, max_batch=2, prefix_sharing=False), asks)
    paged = record(Engine(lm, 16, 16, prefix_sharing=False), asks)
    static = record_static(lm, asks, slots=256)
    for run in (reserved, paged, static):
        assert run.tokens == alone
        assert len(run.seconds) == run.passes and run.seconds == sorted(run.seconds)
        assert len(run.first_pass) == len(asks) and min(run.first_pass) >= 0
        assert run.ttft(0.0) <= run.ttft(0.5) <= run.ttft(0.99) <= run.seconds[-1]
    assert paged.passes < static.passes < reserved.passes
    assert paged.waste < static.waste < reserved.waste
    stored = sum(len(a.prompt) + a.max_new_tokens - 1 for a in asks)
    assert reserved.computed_tokens == stored
    assert static.computed_tokens > stored


def test_a_static_frame_shows_rows_of_one_width(lm: LanguageModel) -> None:
    asks = [Ask((5, 6, 7), 4), Ask((8,), 2)]
    run = record_static(lm, asks, slots=20)
    assert run.passes == 4 and run.first_pass == [0, 0]
    owner, filled = places(run.frames[0])
    # Width 3 + 4 - 1: the last token of an answer is never stored.
    assert owner.tolist() == [0] * 6 + [1] * 6 + [-1] * 8
    assert filled.tolist() == [True] * 3 + [False] * 3 + [True] + [False] * 13
    alone = [record_static(lm, [ask], slots=20).tokens[0] for ask in asks]
    assert run.tokens == alone
    assert run.used == [12] * 4


def test_static_batches_keep_the_order_and_take_what_fits(asks: list[Ask]) -> None:
    batches = static_batches(asks, 256)
    assert [ask for batch in batches for ask in batch] == asks and len(batches) > 1

    def places(rows: list[Ask]) -> int:
        # The last token of an answer is never stored.
        width = max(len(r.prompt) for r in rows) + max(r.max_new_tokens for r in rows) - 1
        return width * len(rows)

    assert all(places(batch) <= 256 for batch in batches)
    for batch, following in itertools.pairwise(batches):
        assert places([*batch, following[0]]) > 256
    assert static_batches(asks[:2], 1) == [[asks[0]], [asks[1]]]
    assert static_batches([], 8) == []


def test_the_map_colours_owners_and_leaves_free_places_white(
    lm: LanguageModel, asks: list[Ask]
) -> None:
    run = record(Engine(lm, 16, 16), asks, "paged")
    image = picture(run, 2 * run.passes)
    assert image.shape[2] == 3 and (image[:, image.shape[1] // 2 + 8 :] == 1).all()
    owner, filled = places(run.frames[0])
    first = image[:, 0]
    rows = np.arange(len(first)) * len(owner) // len(first)
    white = (first == 1).all(axis=1)
    assert white[owner[rows] < 0].all() and not white[filled[rows]].any()
    shown = memory_map([run], "one message")
    assert isinstance(shown, CardFigure) and shown.alt == "one message"
    Image.open(io.BytesIO(shown.png())).verify()


@pytest.mark.parametrize("blocks", [12, 14, 32])
def test_tokens_computed_twice_are_those_that_a_large_pool_spares(runs: Runs, blocks: int) -> None:
    run, twice = runs.recordings[blocks], runs.twice(blocks)
    assert twice[-1] == run.computed_tokens - runs.recordings[32].computed_tokens
    assert twice == sorted(twice)
    # Nothing is computed twice before somebody has given blocks back.
    first = next((i for i, f in enumerate(run.frames) if f.preemptions), run.passes)
    assert not any(twice[: first + 1])


def test_the_blocks_in_use_are_those_during_the_pass(runs: Runs) -> None:
    for blocks in runs.pools:
        run = runs.recordings[blocks]
        after = [frame.num_used for frame in run.frames]
        assert len(run.used) == run.passes
        assert all(a <= u <= blocks for a, u in zip(after, run.used, strict=True))
    # The pool that suffices is as large as the peak; one that a snapshot calls enough is not.
    roomy = runs.recordings[32]
    assert max(roomy.used) == 24 and max(frame.num_used for frame in roomy.frames) == 23
    assert runs.twice(23)[-1] > 0
    at = roomy.used.index(24) + 1
    assert "24 of 32 blocks used (" in view(runs, State(32, at)).headline


def test_preemption_and_sharing_are_in_the_recording(runs: Runs) -> None:
    tight, roomy = runs.recordings[14], runs.recordings[32]
    assert tight.frames[-1].preemptions > 0 == roomy.frames[-1].preemptions
    assert max(frame.num_shared for frame in roomy.frames) > 0
    assert tight.tokens == roomy.tokens
    told = " ".join(view(runs, State(14, at)).text for at in range(1, tight.passes + 1))
    for words in ("preempted", "starts again", "did not have to compute", "ended", "wait"):
        assert words in told
    assert "nan" not in told and "None" not in told


def test_the_answer_is_the_smallest_pool_without_double_work(runs: Runs, lm: Any) -> None:
    assert never_twice(runs) == 32 and runs.twice(14)[-1] > 0
    assert never_twice(Runs(lm, pools=(14,))) is None
    assert "twice" in QUESTION


def test_the_widget_shows_what_the_view_says_and_keeps_pictures(runs: Runs) -> None:
    shown = scrubber(runs)
    assert isinstance(shown, Scrubber) and shown.view.frame.preemptions == 1
    shown.controls["at"].value = 9
    expected = view(runs, State(shown.state.blocks, 9))
    for sentence in (expected.headline, expected.memory, expected.queue, expected.work):
        assert sentence in shown.text.value
    drawn = shown.picture.pictures
    shown.controls["at"].value = 10
    shown.controls["at"].value = 9
    assert shown.picture.pictures == drawn + 1
    last = runs.recordings[14].passes
    shown.controls["blocks"].value = 14
    shown.controls["at"].value = last
    shown.controls["blocks"].value = 32
    assert shown.state == State(32, runs.recordings[32].passes) and shown.state.at < last
    assert {type(c) for c in shown.controls.values()} == {
        ipywidgets.IntSlider,
        ipywidgets.SelectionSlider,
    }
    data = shown._repr_mimebundle_()
    assert data[VIEW_MIME]["model_id"] == shown.box.model_id
    Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).verify()
    assert len(data["image/png"]) < 250_000
    assert isinstance(scrubber(runs, static=True), CardFigure)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda r, lm: scrubber(cast(Any, None)), TypeError, "pass Runs(lm)"),
        (lambda r, lm: scrubber(r, state=cast(Any, 3)), TypeError, "must be a State"),
        (lambda r, lm: scrubber(r, state=State(15)), ValueError, "state.blocks=15"),
        (lambda r, lm: scrubber(r, state=State(14, 0)), ValueError, "state.at=0"),
        (lambda r, lm: Runs(cast(Any, "tiny")), TypeError, "slmlab.load"),
        (lambda r, lm: Runs(lm, pools=()), ValueError, "pools is empty"),
        (lambda r, lm: Runs(lm, sharing_trace(lm, 27)), ValueError, "27 requests"),
    ],
)
def test_bad_arguments_are_named(
    runs: Runs, lm: LanguageModel, call: Any, error: Any, words: str
) -> None:
    with pytest.raises(error) as caught:
        call(runs, lm)
    assert words in str(caught.value)


def test_the_race_is_read_and_shown(tmp_path) -> None:
    assert race_text(tmp_path) is None
    ways = {"engine": {"8": {"tokens_per_cpu_second": 608.4}, "16": {"tokens_per_cpu_second": 816}}}
    ways["theirs"] = {"8": {"tokens_per_cpu_second": 400}}
    ways["sequential"] = {"1": {"tokens_per_cpu_second": 150}}
    over: Any = {
        "theirs": {"8": {"cpu": {"ratio": 1.52, "low": 1.4, "high": 1.613, "n": 3}}},
        "sequential": {"8": {"cpu": {"ratio": 4.0, "low": 3.9, "high": 4.1, "n": 5}}},
    }
    record = {
        "benchmark": BENCHMARK,
        "commit": "abc" * 13,
        "machine": {"cpu": "a core"},
        "measured": {"models": {"tiny": {"ways": ways, "engine_over": over}}},
    }
    (tmp_path / f"{BENCHMARK}.json").write_text(json.dumps(record))
    text = race_text(tmp_path)
    assert text is not None and text.index(" 608") < text.index(" 816")
    parts = ("1.52 (1.40-1.61)", "4.00 (3.90-4.10)", "n=3 or 5", "one after another")
    for part in (*parts, "commit abcabca", "a core"):
        assert part in text
    (tmp_path / f"{BENCHMARK}.json").write_text(json.dumps({**record, "measured": {}}))
    with pytest.raises(ValueError, match="make it anew"):
        race_text(tmp_path)
    del over["theirs"]["8"]["cpu"]["low"]
    (tmp_path / f"{BENCHMARK}.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="lacks 'low'"):
        race_text(tmp_path)


def test_the_plots_show_what_they_are_given() -> None:
    shown = waste_plot([1, 4, 16], [0.0, 0.1, 0.3], [0.01, 0.12, 0.28], "little is empty")
    line, dots = (artist.get_xydata() for artist in shown.axes[0].lines)
    assert np.allclose(line, [[1, 0], [4, 10], [16, 30]])
    assert np.allclose(dots, [[1, 1], [4, 12], [16, 28]])
    assert shown.alt == "little is empty"
    gaps = gaps_plot({"whole": [5.0, 90.0, 5.0], "chunks": [5.0, 20.0, 19.0]}, "shorter")
    axes: Any = gaps.axes[0]
    assert [text.xy for text in axes.texts] == [(3, 90.0), (3, 20.0)]
    assert axes.get_yscale() == "log" and axes.get_ylim()[0] < 5 < 90 < axes.get_ylim()[1]
    for figure in (shown, gaps):
        Image.open(io.BytesIO(figure.png())).verify()


@pytest.mark.parametrize(
    "call",
    [
        lambda: waste_plot([1], [0.0], [0.0], ""),
        lambda: waste_plot([1, 2], [0.0, 0.1], [0.0], ""),
        lambda: gaps_plot({}, ""),
        lambda: gaps_plot({"a": []}, ""),
        lambda: gaps_plot({"a": [1.0, 0.0]}, ""),
        lambda: gaps_plot({str(i): [1.0] for i in range(6)}, ""),
    ],
)
def test_plots_name_what_they_cannot_draw(call: Any) -> None:
    with pytest.raises(ValueError, match=r"sizes|gaps"):
        call()
