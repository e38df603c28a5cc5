from __future__ import annotations

import base64
import io
import math
from typing import Any, cast

import pytest
import torch
from matplotlib.text import Text
from PIL import Image
from torch.nn import functional

import slmlab
from slmlab.distill import student_from_layers
from slmlab.generation import LanguageModel
from slmlab.widgets.card import CardFigure
from slmlab.widgets.distillation import (
    Pull,
    State,
    border,
    border_sentence,
    favourites_share,
    pull,
)
from slmlab.widgets.distillation_bench import (
    Bench,
    bench,
    cuts,
    held_out,
    noise_rows,
    one_answer,
    text_rows,
)
from slmlab.widgets.distillation_curves import cut_bars, learning_curves
from slmlab.widgets.distillation_plots import entropies, pull_lengths, soft_targets, two_modes
from slmlab.widgets.distillation_view import PULLS, TEMPERATURES, net_share, pull_of, view


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return slmlab.load("tiny-draft")


@pytest.fixture(scope="module")
def asked(lm: LanguageModel) -> Bench:
    return bench(lm, student_from_layers(lm.model, [0]), ("This method returns", "a = "))


def _inside(figure: CardFigure) -> None:
    """Every visible text lies on the card; ticks beyond an axis' limits are never drawn."""
    figure.canvas.draw()
    ticks = {
        label
        for axes in figure.axes
        for label in (*axes.get_xticklabels(), *axes.get_yticklabels())
    }
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if text not in ticks and text.get_text().strip() and text.get_visible():
            box = text.get_window_extent()
            assert box.x0 >= -1 and box.x1 <= figure.bbox.x1 + 1, text.get_text()
            assert box.y0 >= -1 and box.y1 <= figure.bbox.y1 + 1, text.get_text()


def _loss(student: torch.Tensor, teacher: torch.Tensor, name: str, t: float) -> torch.Tensor:
    """Composed from torch's own parts, T squared in it."""
    kind, beta = PULLS[name]
    log_p, log_q = (teacher / t).log_softmax(-1), (student / t).log_softmax(-1)

    def kl(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return functional.kl_div(b, a, reduction="sum", log_target=True)

    if kind == "forward_kl":
        return t**2 * kl(log_p, log_q)
    if kind == "reverse_kl":
        return t**2 * kl(log_q, log_p)
    log_m = (beta * log_p.exp() + (1 - beta) * log_q.exp()).log()
    return t**2 * (beta * kl(log_p, log_m) + (1 - beta) * kl(log_q, log_m))


@pytest.mark.parametrize("name", PULLS)
def test_the_pull_is_minus_the_gradient(asked: Bench, name: str) -> None:
    for prompt in asked.prompts:
        teacher, student = asked.teacher[prompt], asked.student[prompt].clone().requires_grad_()
        for temperature in TEMPERATURES:
            loss = _loss(student, teacher, name, temperature)
            (gradient,) = torch.autograd.grad(loss, student)
            found = pull_of(teacher, student.detach(), name, temperature)
            torch.testing.assert_close(found, -gradient, atol=1e-9, rtol=1e-6)
            shown = view(asked, State(prompt, name, temperature))
            assert shown.loss == pytest.approx(loss.item())


def test_held_out_text_is_judged_as_the_formulas_say(lm: LanguageModel) -> None:
    held = held_out(lm, rows=3, time=16)
    assert held.ids.shape == (3, 17) and held.kl(lm.model) == 0
    with torch.no_grad():
        log_q = lm.model(held.ids[:, :-1]).double().log_softmax(-1)
    loss = -log_q.gather(-1, held.ids[:, 1:, None]).mean()
    assert held.perplexity(lm.model) == pytest.approx(math.exp(float(loss)))
    entropy = -(log_q.exp() * log_q).sum(-1).mean()
    assert held.uniform_kl == pytest.approx(math.log(log_q.shape[-1]) - float(entropy))
    cut = student_from_layers(lm.model, [0])
    by_torch = functional.kl_div(
        cut(held.ids[:, :-1]).detach().double().log_softmax(-1).flatten(0, 1),
        log_q.flatten(0, 1),
        reduction="batchmean",
        log_target=True,
    )
    assert held.kl(cut) == pytest.approx(float(by_torch))


def test_one_answer_is_the_mean_of_the_models(lm: LanguageModel) -> None:
    rows = noise_rows(lm, 18, 8)  # more than one part
    with torch.no_grad():
        wanted = lm.model(rows[:, :-1]).double().softmax(-1).flatten(0, 1).mean(0)
    answer = one_answer(lm.model, rows)
    torch.testing.assert_close(answer.exp(), wanted, atol=1e-9, rtol=1e-4)
    held = held_out(lm, rows=2, time=8)
    kl, perplexity = held.judge(held.reference)
    assert kl == 0 and perplexity == pytest.approx(held.perplexity(lm.model))
    assert held.judge(torch.zeros_like(held.reference))[0] == pytest.approx(held.uniform_kl)


def test_rows_are_seeded(lm: LanguageModel) -> None:
    for rows in (noise_rows, text_rows):
        first, again, other = (rows(lm, 4, 8, seed) for seed in (0, 0, 1))
        assert first.shape == (4, 9) and torch.equal(first, again)
        assert not torch.equal(first, other)
        assert int(first.min()) >= 0 and int(first.max()) < len(lm.tokenizer)
    with pytest.raises(ValueError, match="count=100000000 rows"):
        text_rows(lm, 100_000_000, 8)
    with pytest.raises(ValueError, match="prompts is empty"):
        bench(lm, lm.model, ())


def test_every_rule_keeps_as_many_layers() -> None:
    teacher = slmlab.load("tiny").model
    found = cuts(teacher, 2, torch.arange(64).reshape(2, 32))
    assert found["the first"] == [0, 1] and found["the last"] == [4, 5]
    assert found["evenly spaced"] == [0, 3]
    for layers in found.values():
        assert len(layers) == 2 and layers == sorted(set(layers))


def test_every_view_accounts_for_all_probability_and_pull(asked: Bench) -> None:
    for prompt in asked.prompts:
        for name in PULLS:
            for temperature in TEMPERATURES:
                shown = view(asked, State(prompt, name, temperature))
                for part in ("teacher", "student", "up", "down"):
                    values = [getattr(row, part) for row in shown.rows]
                    assert min(values) >= 0 and sum(values) == pytest.approx(1)
                ten = sum(row.up for row in shown.rows if row.kind == "favourite")
                assert ten == pytest.approx(shown.favourites)
                assert f"{shown.favourites:.0%} of the upward pull" in shown.text
                fallen = sum(row.down for row in shown.rows if row.kind == "favourite")
                net = net_share(asked, shown.state)
                assert net == pytest.approx(ten - fallen)
                assert f"the ten get {net:+.0%}" in shown.text


def test_the_border_is_where_the_share_falls_below_half(asked: Bench) -> None:
    for prompt in asked.prompts:
        for name in PULLS:
            shares = [favourites_share(asked, State(prompt, name, t)) for t in TEMPERATURES]
            found = border(asked, prompt, name)
            if found is None:
                assert shares[0] < 0.5
                continue
            at = TEMPERATURES.index(found)
            assert min(shares[: at + 1]) >= 0.5
            assert at == len(TEMPERATURES) - 1 or shares[at + 1] < 0.5


def test_the_border_can_be_missing_and_at_the_end() -> None:
    teacher = torch.tensor([9.0] + [0.0] * 19, dtype=torch.float64)
    student = torch.zeros(20, dtype=torch.float64)
    near = Bench({"x": teacher}, {"x": student}, str)
    assert border(near, "x", "forward KL") == TEMPERATURES[-1]
    # What the student lacks stands behind the teacher's ten.
    falling = torch.arange(20, 0, -1, dtype=torch.float64) / 100
    less = falling.clone()
    less[12:] -= 3
    late = Bench({"x": falling}, {"x": less}, str)
    assert border(late, "x", "forward KL") is None
    assert "none offered, by prompt" in border_sentence(late)
    assert "T = 8, by prompt" in border_sentence(near)
    assert "lower in 0 of 1 prompts" in border_sentence(near)


def test_the_widget_moves_and_keeps_pictures(asked: Bench) -> None:
    shown = pull(asked)
    assert isinstance(shown, Pull) and shown.state == State(asked.prompts[0])
    for name, value in (
        ("temperature", 1.0),
        ("divergence", "reverse KL"),
        ("prompt", asked.prompts[1]),
    ):
        before, text, image = shown.state, shown.text.value, shown.image.value
        drawn, old = shown.picture.pictures, shown.controls[name].value
        shown.controls[name].value = value
        assert shown.text.value != text and shown.image.value != image
        shown.controls[name].value = old
        assert shown.state == before and shown.text.value == text and shown.image.value == image
        assert shown.picture.pictures == drawn + 1
        shown.controls[name].value = value
    assert shown.state == State(asked.prompts[1], "reverse KL", 1.0)
    data = shown._repr_mimebundle_()
    Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).verify()
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == shown.box.model_id


def test_the_picture_moves_with_its_view(asked: Bench) -> None:
    for state in (State("a = "), State("a = ", "reverse KL", 0.5)):
        figure = pull(asked, state=state, static=True)
        assert isinstance(figure, CardFigure)
        _inside(figure)
        assert "favourites get" in figure.alt


@pytest.mark.parametrize(
    ("state", "error", "words"),
    [
        ("a = ", TypeError, "must be a State"),
        (State("poems"), ValueError, "state.prompt='poems'"),
        (State("a = ", "KL"), ValueError, "state.divergence='KL'"),
        (State("a = ", temperature=5.0), ValueError, "state.temperature=5.0"),
    ],
)
def test_what_is_not_offered_is_refused(
    asked: Bench, state: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        pull(asked, state=state)
    with pytest.raises(TypeError, match="must be a Bench"):
        pull(cast(Any, {}))


def test_the_plots_say_their_figures(asked: Bench) -> None:
    logits = torch.stack([*asked.teacher.values()])
    places = torch.arange(9.0)
    bump = (-((places - 4) ** 2)).softmax(-1)
    shown = {
        "89% of the way": learning_curves(
            {"a": [(0, 4.0), (64, 2.0)], "b": [(0, 4.0), (64, 1.99)]},
            "89% of the way",
            {"level": 3.0},
            2.5,
        ),
        "'This method returns', 8 tokens": soft_targets(
            asked.teacher["This method returns"], asked.decode, "This method returns"
        ),
        "nats below the maximum": entropies(logits, (0.5, 1, 2, 4)),
        "the bare gradient is 0.04 of": pull_lengths(
            (1, 2, 4), (1, 0.2, 0.04), (1, 0.8, 0.64), 0.6, 0.1
        ),
        "25% with wide": two_modes(places, bump, {"wide": bump}, {"wide": 0.25}),
        "0.142 nats from layers 0, 1, 6.24 from 0, 3": cut_bars(
            {"evenly": ([0, 3], 6.24), "first": ([0, 1], 0.142)}, 2.5
        ),
    }
    for words, figure in shown.items():
        assert words in figure.alt
        _inside(figure)
    mass = float((asked.teacher["This method returns"]).softmax(-1).topk(8).values.sum())
    assert f"hold {mass:.0%}" in shown["'This method returns', 8 tokens"].alt
