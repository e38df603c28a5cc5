"""The Distiller: it learns, it resumes, it stops where it must, it refuses what cannot work."""

from __future__ import annotations

import copy
import dataclasses
import signal
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn
from torch.nn import functional

import slmlab
from slmlab.distill import (
    Distiller,
    Hidden,
    NonFiniteLoss,
    OnPolicy,
    Sequence,
    TopK,
    check_same_tokenizer,
    student_from_layers,
    teacher_sequences,
    top_k_logits,
    uniform_layer_map,
)
from slmlab.distill.forward import logits_of
from tests.distill.pairs import VOCABULARY, decoder, llama, rows, weights

QUICK: dict[str, Any] = dict(
    steps=6, batch_size=4, learning_rate=0.01, warmup_steps=2, progress=False
)


def method(name):
    """Each method anew, as one with weights of its own is trained."""
    return {
        "sequence": lambda: Sequence(prompt_tokens=4),
        "on_policy": lambda: OnPolicy(0.5, prompt_tokens=4),
        "topk": lambda: TopK(5),
        "hidden": lambda: Hidden(16, 32, uniform_layer_map(1, 2)),
    }.get(name, lambda: name)()


METHODS = ("hard", "logits", "topk", "sequence", "on_policy", "hidden")
KINDS = {"decoder": decoder, "llama": llama}


def pair(kind="decoder"):
    make = KINDS[kind]
    return make(seed=1, layers=1, width=16, tied=False), make(seed=0, tied=False)


def kl(student, teacher, ids):
    with torch.no_grad():
        ours, theirs = (logits_of(m, ids).log_softmax(-1).flatten(0, 1) for m in (student, teacher))
    return float(functional.kl_div(ours, theirs, reduction="batchmean", log_target=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ("logits", "topk", "on_policy", "hidden"))
def test_the_student_comes_closer_to_its_teacher_on_held_out_text(name, kind):
    student, teacher = pair(kind)
    before, kept = kl(student, teacher, rows(8, seed=9)), weights(teacher)
    settings = QUICK | dict(steps=40)
    history = Distiller(student, teacher, rows(), method=method(name), **settings).train()
    assert kl(student, teacher, rows(8, seed=9)) < 0.8 * before
    assert history.step == 40 == len(history.losses)
    assert torch.equal(weights(teacher), kept)


def test_hard_labels_and_teacher_text_are_learned():
    student, teacher = pair()
    Distiller(student, None, rows(), method="hard", **QUICK | dict(steps=60)).train()
    with torch.no_grad():
        given = logits_of(student, rows(seed=9)[:, :-1]).flatten(0, 1)
    assert functional.cross_entropy(given, rows(seed=9)[:, 1:].flatten()) < 1.0
    student, teacher = pair()
    written, mask = teacher_sequences(teacher, rows()[:, :4], 13)

    def loss():
        with torch.no_grad():
            logits = logits_of(student, written[:, :-1])
        return float(functional.cross_entropy(logits[mask], written[:, 1:][mask]))

    before = loss()
    Distiller(student, teacher, rows(), method=method("sequence"), **QUICK | dict(steps=40)).train()
    assert loss() < 0.7 * before


@pytest.mark.parametrize("name", METHODS)
def test_the_first_loss_is_the_methods_and_the_texts_mixed(name):
    student, teacher = pair()
    ids = rows(4)
    untrained = copy.deepcopy(student)

    def first(weight):
        fresh = copy.deepcopy(untrained)
        made = method(name)
        settings = QUICK | dict(steps=1, hard_weight=weight)
        return Distiller(fresh, teacher, ids, method=made, **settings).train().losses[0]

    with torch.no_grad():
        logits = logits_of(untrained, ids[:, :-1]).flatten(0, 1)
    hard = float(functional.cross_entropy(logits, ids[:, 1:].flatten()))
    assert first(1.0) == pytest.approx(hard, abs=1e-5)
    assert first(0.25) == pytest.approx(0.75 * first(0.0) + 0.25 * hard, abs=1e-5)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_resumed_equals_uninterrupted(name, kind, tmp_path):
    (whole, teacher), (other, _) = pair(kind), pair(kind)
    settings = QUICK | dict(hard_weight=0.2, weight_decay=0.01, seed=3)
    seen: list[tuple[int, float]] = []

    def evaluate(model, step):
        seen.append((step, float(weights(model).sum())))
        return {"sum": seen[-1][1]}

    options = settings | dict(evaluate=evaluate, evaluate_every=2)
    expected = Distiller(whole, teacher, rows(), method=method(name), **options).train()
    uninterrupted = list(seen)
    seen.clear()
    options["checkpoint"] = tmp_path / "run.safetensors"
    first = Distiller(other, teacher, rows(), method=method(name), **options)
    first.train(until=2)
    first.train(until=3)
    fresh, _ = pair(kind)
    resumed = Distiller(fresh, teacher, rows(), method=method(name), **options).train()
    assert (weights(fresh) - weights(whole)).abs().max() <= 1e-6
    assert resumed == expected and seen == uninterrupted
    assert [step for step, _ in resumed.evaluations] == [0, 2, 4, 6]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.safetensors"]


def test_dropout_is_resumed_too(tmp_path):
    def build():
        torch.manual_seed(0)
        student = llama(layers=1)
        student.config.attention_dropout = 0.3
        for layer in student.model.layers:
            layer.self_attn.attention_dropout = 0.3
        return student

    teacher, path = llama(seed=5), tmp_path / "run.safetensors"
    whole, without = build(), llama(layers=1)
    Distiller(whole, teacher, rows(), **QUICK).train()
    Distiller(without, teacher, rows(), **QUICK).train()
    assert not torch.equal(weights(whole), weights(without))
    Distiller(build(), teacher, rows(), checkpoint=path, **QUICK).train(until=2)
    resumed = build()
    torch.manual_seed(99)
    Distiller(resumed, teacher, rows(), checkpoint=path, **QUICK).train()
    assert (weights(resumed) - weights(whole)).abs().max() <= 1e-6


@pytest.fixture
def interruptible():
    """As in a terminal: a shell lets what it starts in the background ignore SIGINT."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("stop", (signal.SIGINT, "evaluate"))
def test_an_interrupt_loses_nothing(stop, tmp_path, monkeypatch):
    (whole, teacher), (student, _) = pair(), pair()
    Distiller(whole, teacher, rows(), **QUICK).train()
    path = tmp_path / "run.safetensors"

    def evaluate(model, step):
        if stop == "evaluate" and step == 4 and not interrupted:
            interrupted.append(True)
            raise KeyboardInterrupt

    interrupted: list[bool] = []
    distiller = Distiller(
        student, teacher, rows(), checkpoint=path, evaluate=evaluate, evaluate_every=2, **QUICK
    )
    if stop == signal.SIGINT:
        step = distiller._optimizer.step

        def during_the_step(*arguments, **options):
            if distiller.history.step == 3 and not interrupted:
                interrupted.append(True)
                signal.raise_signal(signal.SIGINT)
            return step(*arguments, **options)

        monkeypatch.setattr(distiller._stepper, "step", during_the_step)
    with pytest.raises(KeyboardInterrupt):
        distiller.train()
    assert distiller.history.step == 4
    fresh, _ = pair()
    Distiller(fresh, teacher, rows(), checkpoint=path, **QUICK).train()
    assert (weights(fresh) - weights(whole)).abs().max() <= 1e-6
    # The object itself goes on as well, without its file.
    path.unlink()
    assert distiller.train().step == 6
    assert (weights(student) - weights(whole)).abs().max() <= 1e-6
    assert [step for step, _ in distiller.history.evaluations] == [0, 2, 4, 6]


class Poisoned(nn.Module):
    """A teacher whose logits are NaN on rows that hold token 1 at their first place."""

    def __init__(self, inner):
        super().__init__()
        self.model, self.config = inner, inner.config

    def forward(self, ids, use_cache=False, output_hidden_states=False):
        logits = self.model(ids).masked_fill((ids[:, :1] == 1)[..., None], float("nan"))
        return type("Output", (), {"logits": logits})()


def test_nan_stops_with_the_step_the_batch_and_the_last_good_checkpoint(tmp_path):
    student, inner = pair()
    ids = rows()
    ids[:, 0] = 2
    ids[17, 0] = 1
    path = tmp_path / "run.safetensors"
    distiller = Distiller(
        student, Poisoned(inner), ids, checkpoint=path, checkpoint_every=1, **QUICK
    )
    with pytest.raises(NonFiniteLoss, match="last good checkpoint") as caught:
        distiller.train()
    error = caught.value
    assert 17 in error.rows.tolist() and torch.equal(error.ids, ids[error.rows])
    assert error.step == distiller.history.step and error.checkpoint == path
    assert all(bool(p.isfinite().all()) for p in student.parameters())
    with safe_open(path, "pt") as handle:
        kept = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    for name, parameter in student.named_parameters():
        assert torch.equal(kept[f"model/student.{name}"], parameter)


def test_damaged_weights_never_replace_a_good_checkpoint(tmp_path):
    student, teacher = pair()
    path = tmp_path / "run.safetensors"
    Distiller(student, teacher, rows(), checkpoint=path, **QUICK).train(until=2)
    good = path.read_bytes()
    fresh, _ = pair()
    distiller = Distiller(fresh, teacher, rows(), checkpoint=path, **QUICK)
    distiller.train(until=2)
    with torch.no_grad():
        fresh.norm.weight[0] = float("nan")
    with pytest.raises(NonFiniteLoss, match="step 2") as caught:
        distiller.train()
    assert path.read_bytes() == good and caught.value.checkpoint == path


def test_an_infinite_gradient_stops_before_the_weights_change():
    student, teacher = pair()
    before = weights(student)
    distiller = Distiller(student, teacher, rows(), **QUICK)
    student.norm.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(NonFiniteLoss, match="gradient's norm") as caught:
        distiller.train()
    assert torch.equal(weights(student), before) and caught.value.checkpoint is None


@pytest.mark.parametrize("stored", (False, True))
def test_stored_top_k_logits_need_no_teacher(stored):
    student, teacher = pair()
    (other, _) = pair()
    Distiller(student, teacher, rows(), method=TopK(5), **QUICK).train()
    if not stored:
        with pytest.raises(ValueError, match="TopK asks a teacher"):
            Distiller(other, None, rows(), method=TopK(5), **QUICK)
        return
    with torch.no_grad():
        kept = top_k_logits(logits_of(teacher, rows()[:, :-1]), 5, 2.0)
    Distiller(other, None, rows(), method=TopK(stored=kept), **QUICK).train()
    assert (weights(other) - weights(student)).abs().max() <= 1e-5
    with pytest.raises(ValueError, match="temperature"):
        Distiller(other, None, rows(), method=TopK(stored=kept), temperature=1.0, **QUICK).train()
    with pytest.raises(ValueError, match="store the logits of these rows"):
        Distiller(other, None, rows(5), method=TopK(stored=kept), **QUICK).train()


def test_masked_predictions_teach_nothing():
    """What a masked target says must not matter; what an unmasked one says must."""
    mask = torch.ones(24, 16, dtype=torch.bool)
    mask[:, -5:] = False
    results = []
    for masked, column in ((mask, -1), (mask, None), (None, -1), (None, None)):
        student, teacher = pair()
        ids = rows()
        if column is not None:
            ids[:, column] = 3
        Distiller(student, teacher, ids, masked, method="hard", **QUICK).train()
        results.append(weights(student))
    assert torch.equal(results[0], results[1]) and not torch.equal(results[2], results[3])


def test_tokens_are_counted():
    mask = torch.ones(24, 16, dtype=torch.bool)
    mask[:, :6] = False
    student, teacher = pair()
    assert Distiller(student, teacher, rows(), mask, **QUICK).train().tokens == 6 * 4 * 10


def test_a_student_cut_from_its_teacher_and_language_models(tmp_path):
    lm = slmlab.load("tiny-draft")
    student = dataclasses.replace(lm, model=student_from_layers(lm.model, [0]))
    ids = torch.tensor(lm.tokenizer.encode("def main():\n    return 0\n" * 40))[:128].view(4, 32)
    before = kl(student.model, lm.model, ids)
    settings = QUICK | dict(learning_rate=3e-3, steps=10)
    Distiller(student, lm, ids, **settings).train()
    assert kl(student.model, lm.model, ids) < 0.8 * before
    check_same_tokenizer(lm.tokenizer, slmlab.load("tiny").tokenizer)
    other = copy.deepcopy(lm.tokenizer)
    other.add_tokens(["<unheard-of>"])
    with pytest.raises(ValueError, match="'<unheard-of>'"):
        Distiller(dataclasses.replace(student, tokenizer=other), lm, ids, **settings)


def frozen(model):
    return model.requires_grad_(False)


def bad(**changed):
    student, teacher = pair()
    arguments = dict(student=student, teacher=teacher, rows=rows()) | QUICK | changed
    return Distiller(**arguments)


REFUSED = [
    (lambda: dict(student=nn.Linear(2, 2)), TypeError, "student must be a Decoder"),
    (lambda: dict(teacher="tiny"), TypeError, "teacher must be a Decoder"),
    (lambda: dict(teacher=None), ValueError, "pass one"),
    (lambda: dict(student=frozen(decoder())), ValueError, "requires_grad_"),
    (lambda: dict(student=decoder().half()), ValueError, "float16"),
    (lambda: dict(rows=rows() + VOCABULARY), ValueError, "outside the vocabulary of 40"),
    (lambda: dict(rows=rows().float()), TypeError, "rows must be an int64"),
    (lambda: dict(rows=rows()[0]), ValueError, "rows has shape"),
    (lambda: dict(rows=rows(4, 80)), ValueError, "64 positions"),
    (lambda: dict(mask=torch.ones(3, 3, dtype=torch.bool)), ValueError, "mask has shape"),
    (lambda: dict(mask=torch.zeros(24, 16, dtype=torch.bool)), ValueError, "all of row 0"),
    (lambda: dict(mask=torch.ones(24, 16)), TypeError, "mask.bool"),
    (lambda: dict(method="soft"), ValueError, "hard, logits, topk, sequence, on_policy"),
    (lambda: dict(method=3), TypeError, "method must be"),
    (lambda: dict(steps=0), ValueError, "steps=0"),
    (lambda: dict(hard_weight=1.5), ValueError, "hard_weight"),
    (lambda: dict(temperature=0.0), ValueError, "temperature"),
    (lambda: dict(divergence="kl"), ValueError, "forward_kl"),
    (lambda: dict(learning_rate=float("nan")), ValueError, "learning_rate"),
    (lambda: dict(seed=-1), ValueError, "seed"),
    (lambda: dict(epochs=3), TypeError, "no setting 'epochs'"),
    (lambda: dict(evaluate=3), TypeError, "evaluate"),
]


@pytest.mark.parametrize(("changed", "error", "says"), REFUSED)
def test_bad_input_is_named(changed, error, says):
    with pytest.raises(error, match=says):
        bad(**changed())


def test_models_that_do_not_belong_together_are_refused():
    _, teacher = pair()
    other = decoder()
    other.config = dataclasses.replace(other.config, vocab_size=41)
    with pytest.raises(ValueError, match="vocabulary of 41, the teacher one of 40"):
        bad(student=other)
    with pytest.raises(ValueError, match="shares weights"):
        bad(student=teacher, teacher=teacher)
    for made in (Sequence(prompt_tokens=17), OnPolicy(1.0, prompt_tokens=17)):
        with pytest.raises(ValueError, match="prompt_tokens=17"):
            bad(method=made).train()


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    bad(checkpoint=path).train(until=2)
    for changed, says in (
        (dict(seed=1), "its seed is 0"),
        (dict(method="topk"), "its k is None"),
        (dict(rows=rows(seed=4)), "its rows"),
        (dict(teacher=decoder(seed=8)), "its teacher"),
        (dict(student=decoder(seed=1)), "another model"),
    ):
        with pytest.raises(ValueError, match=says):
            bad(checkpoint=path, **changed).train()
    path.write_bytes(b"\x08" + path.read_bytes()[1:])
    with pytest.raises(ValueError, match="no readable checkpoint"):
        bad(checkpoint=path).train()
