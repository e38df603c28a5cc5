from __future__ import annotations

import base64
import io
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
from slmlab.widgets.paged_serving_bench import Ask, record, record_static, sharing_trace, trace
from slmlab.widgets.paged_serving_map import memory_map, picture, places
from slmlab.widgets.paged_serving_race import BENCHMARK, race_text
from slmlab.widgets.paged_serving_view import view

VIEW_MIME = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return slmlab.load("tiny-draft")


@pytest.fixture(scope="module")
def runs(lm: LanguageModel) -> Runs:
    return Runs(lm, pools=(12, 14, 32))


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
    over = {"theirs": {"8": {"cpu": {"ratio": 1.52}}}}
    record = {
        "benchmark": BENCHMARK,
        "commit": "abc" * 13,
        "machine": {"cpu": "a core"},
        "measured": {"models": {"tiny": {"ways": ways, "engine_over": over}}},
    }
    (tmp_path / f"{BENCHMARK}.json").write_text(json.dumps(record))
    text = race_text(tmp_path)
    assert text is not None and text.index(" 608") < text.index(" 816")
    for part in ("1.52 times as fast", "commit abcabca", "a core"):
        assert part in text
    (tmp_path / f"{BENCHMARK}.json").write_text(json.dumps({**record, "measured": {}}))
    with pytest.raises(ValueError, match="make it anew"):
        race_text(tmp_path)
