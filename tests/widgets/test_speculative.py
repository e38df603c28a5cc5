from __future__ import annotations

import base64
import dataclasses
import io
import json
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from PIL import Image

import slmlab
from slmlab.generation import LanguageModel, generate_tokens
from slmlab.speculative import expected_tokens, layer_skip_draft
from slmlab.widgets.card import CardFigure
from slmlab.widgets.speculative import Replay, State, best_for_all, given_up, most_hurt, replay
from slmlab.widgets.speculative_bench import (
    DOMAINS,
    Bench,
    Costs,
    Race,
    agreement,
    draft_for,
    prompts,
    race,
    relative_time,
    undecided,
    write,
)
from slmlab.widgets.speculative_picture import MARKS
from slmlab.widgets.speculative_race import published, race_text
from slmlab.widgets.speculative_view import rounds_of, view, visible

LENGTHS = (1, 3)
KINDS = ("code", "tool calls")


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return slmlab.load("tiny-draft")


@pytest.fixture(scope="module")
def bench(lm: LanguageModel) -> Bench:
    draft = lm.model  # a draft that is always right, and one kind whose draft is always wrong
    texts = {kind: [write(lm, draft, p, 14) for p in prompts(lm, kind, 2, 14)] for kind in KINDS}
    bad = layer_skip_draft(lm.model, 1).model
    races = {
        kind: race(lm, model, texts[kind], LENGTHS, repeats=3)
        for kind, model in zip(KINDS, (bad, draft), strict=True)
    }
    held = [x for text in texts["code"] for x in agreement(bad, text)]
    guesses = {"code": (sum(held), len(held)), "tool calls": (20, 20)}
    return Bench(
        races,
        texts,
        guesses,
        Costs(0.5, {1: 1.1, 3: 1.2}, 0.1),
        lambda ids: str(lm.tokenizer.decode(ids)),
    )


def test_the_written_text_is_plain_decodings(lm: LanguageModel, bench: Bench) -> None:
    for texts in bench.texts.values():
        for text in texts:
            plain = generate_tokens(
                lm.model, list(text.prompt), max_new_tokens=14, stop_ids=text.stops
            )
            assert tuple(plain) == text.tokens[: 14 if not text.stops else None][: len(text.tokens)]
            assert agreement(lm.model, text) == [True] * len(text.tokens)


def test_a_race_counts_what_its_rounds_gave(bench: Bench) -> None:
    for kind, races in bench.races.items():
        assert tuple(races) == LENGTHS
        for length, run in races.items():
            assert run.tokens == sum(len(text.tokens) for text in bench.texts[kind])
            assert run.tokens == sum(r.accepted + 1 for rounds in run.replays for r in rounds)
            assert run.tokens_per_round <= length + 1 and 0 < run.draft_seconds < run.seconds
            assert run.speedup == pytest.approx(run.tokens_per_round / run.round_steps)
            assert len(run.turns) == 3 and run.speedup == sorted(run.turns)[1]


def test_a_race_has_turns(lm: LanguageModel) -> None:
    with pytest.raises(ValueError, match="repeats=0"):
        race(lm, lm.model, [], LENGTHS, repeats=0)


def test_lengths_that_cannot_be_told_apart() -> None:
    def run(length: int, *turns: float) -> Race:
        return Race(length, sorted(turns)[1], 1.0, 0.5, 1.0, 8, (), turns)

    runs = [run(1, 1.0, 1.1, 1.05), run(2, 1.5, 1.4, 1.6), run(3, 1.3, 1.45, 1.4)]
    runs += [run(4, 1.48, 1.39, 1.59), run(6, 1.3, 1.3, 1.3)]
    assert undecided({one.length: one for one in runs}) == [2, 3, 4]
    still = [run(1, 1.5, 1.5, 1.5), run(2, 1.46, 1.46, 1.46), run(3, 1.4, 1.4, 1.4)]
    assert undecided({one.length: one for one in still}) == [1, 2]


def test_prompts_are_seeded_distinct_and_of_one_length(lm: LanguageModel) -> None:
    for domain in DOMAINS:
        found = prompts(lm, domain, 4)
        assert found == prompts(lm, domain, 4) and len({tuple(p) for p in found}) == 4
    assert {len(p) for p in prompts(lm, "code", 4)} == {48}
    with pytest.raises(ValueError, match="domain 'poems'"):
        prompts(lm, "poems", 1)


def test_a_draft_is_found_for_every_model(lm: LanguageModel) -> None:
    assert draft_for(slmlab.load("tiny"))[0] == "tiny-draft"
    name, draft = draft_for(lm)
    assert "first 1 of 2" in name and len(draft.layers) == 1
    alone = dataclasses.replace(lm, model=draft)
    assert draft_for(alone)[1] is draft


def test_costs_are_the_formulas() -> None:
    costs = Costs(0.2, {0: 1.0, 4: 1.3}, 0.1)
    assert costs.speedup(0.8, 4) == pytest.approx(expected_tokens(0.8, 4) / (0.8 + 1.3 + 0.1))
    assert costs.speedup(0.8, 0) == 1.0
    weight = torch.randn(300, 300)
    assert relative_time(lambda: weight @ weight, lambda: None, repeats=3) > 1


def test_the_answer_hurts_least(bench: Bench) -> None:
    own = {k: max(bench.races[k][n].speedup for n in LENGTHS) for k in KINDS}
    worst = {n: max(own[k] / bench.races[k][n].speedup for k in KINDS) for n in LENGTHS}
    assert worst[best_for_all(bench)] == min(worst.values())
    for n in LENGTHS:
        hurt = most_hurt(bench, n)
        assert own[hurt] / bench.races[hurt][n].speedup == worst[n]
        assert 1 / (1 - given_up(bench, hurt, n)) == pytest.approx(worst[n])


def test_every_view_tells_its_round(bench: Bench) -> None:
    for kind in KINDS:
        for length in LENGTHS:
            rounds = rounds_of(bench, kind, length)
            for at in range(1, len(rounds) + 1):
                shown = view(bench, State(kind, length, at))
                boxes = shown.rows[-1]
                assert [b.kind for b in boxes].count("accepted") == rounds[at - 1].accepted
                assert boxes[-1].kind == "own" and {b.kind for b in boxes} <= set(MARKS)
                assert len(boxes) == len(rounds[at - 1].proposed) + 1
                assert f"Round {at} of {len(rounds)}" in shown.text
            text = bench.decode(list(bench.texts[kind][0].tokens))
            assert "".join(piece for piece, _ in shown.written) == text


def test_blanks_and_line_ends_can_be_seen() -> None:
    assert visible(" a\n") == "\u00b7a\u23ce" and visible("") == "?"
    assert len(visible("x" * 50)) == 7


def test_a_run_comes_back_at_the_round_where_it_was_left(bench: Bench) -> None:
    shown = replay(bench)
    for name in ("domain", "length"):
        control = shown.controls[name]
        shown.controls["at"].value = shown.controls["at"].max
        before, text, value = shown.state, shown.text.value, control.value
        for other in control.options:
            control.value = other
            assert shown.state.at <= shown.controls["at"].max
        control.value = value
        assert shown.state == before and shown.text.value == text


def test_the_widget_moves_and_keeps_pictures(bench: Bench) -> None:
    shown = replay(bench)
    assert isinstance(shown, Replay) and shown.state.length == LENGTHS[-1]
    shown.controls["at"].value = len(rounds_of(bench, "code", 3))
    shown.controls["domain"].value = "tool calls"
    assert shown.state.at == shown.controls["at"].max == len(rounds_of(bench, "tool calls", 3))
    assert "hurt most:" in shown.text.value and shown.view.headline in shown.text.value
    drawn = shown.picture.pictures
    shown.controls["length"].value = 1
    before = shown.state
    shown.controls["at"].value = 1
    shown.controls["at"].value = before.at
    assert shown.state == before and shown.picture.pictures <= drawn + 3
    data = shown._repr_mimebundle_()
    Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).verify()
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == shown.box.model_id
    assert isinstance(replay(bench, static=True), CardFigure)


@pytest.mark.parametrize(
    ("state", "error", "words"),
    [
        ("code", TypeError, "must be a State"),
        (State("poems", 1, 1), ValueError, "state.domain='poems'"),
        (State("code", 2, 1), ValueError, "state.length=2"),
        (State("code", 1, 0), ValueError, "state.at=0"),
    ],
)
def test_what_was_not_recorded_is_refused(
    bench: Bench, state: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        replay(bench, state=state)
    with pytest.raises(TypeError, match="must be a Bench"):
        replay(cast(Any, {}))


def test_the_race_is_read_where_it_was_measured(tmp_path: Path) -> None:
    assert race_text(tmp_path) is None
    way = {
        "tokens_per_cpu_second": 150.2,
        "over_plain": {"cpu": {"ratio": 1.5}},
        "acceptance": {"alpha": 0.8},
    }
    slow = {**way, "tokens_per_cpu_second": 90.0}
    other = {**slow, "acceptance": None, "over_plain": {"cpu": {"ratio": 1.75}}}
    ways = {"draft 2": slow, "llama.cpp": other, "draft 4": way, "lookup 4": slow, "skip 2": slow}
    record: dict[str, Any] = {
        "benchmark": "speculative_race",
        "commit": "0123456789",
        "machine": {"cpu": "a CPU"},
        "measured": {
            "plan": {"prompts": 20, "new_tokens": 64, "lengths": [2, 4]},
            "domains": {"code": {"ways": {**ways, "draft adaptive": way}}},
        },
    }
    file = tmp_path / "speculative_race.json"
    file.write_text(json.dumps(record), encoding="utf-8")
    text = race_text(tmp_path)
    assert text is not None and "150" in text and "1.50" in text and "draft 2" not in text
    assert text.index("draft 4") < text.index("llama.cpp") and "skip 2" not in text
    assert "ahead of `draft N` on code" in text and "64 tokens" in text
    assert "code: 1.00" in text and "spares you the choice" in text
    other["over_plain"] = way["over_plain"]
    file.write_text(json.dumps(record), encoding="utf-8")
    assert "ahead of" not in str(race_text(tmp_path))
    del way["over_plain"]
    file.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(ValueError, match="lacks 'over_plain'"):
        race_text(tmp_path)


def test_published_figures_agree_with_the_formula() -> None:
    """No draft can give more than its tokens a round."""
    for line in published():
        assert line["speedup"] < expected_tokens(line["alpha"], line["gamma"])
