"""Training: resumable, seeded, and able to learn."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from slmlab.models import Decoder
from slmlab.training.batches import Batches, cut_rows, pack_rows
from slmlab.training.initialisation import initial_decoder
from slmlab.training.pretrain import batch_loss, train
from slmlab.training.provenance import processor_seconds
from slmlab.training.recipe import Recipe, load_recipe
from slmlab.training.stage import Stage

SMALL = Recipe(
    name="small",
    seed=3,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=16,
    vocab_size=40,
    sequence_length=24,
    warmup_steps=2,
    decay_steps=6,
    muon_lr=0.02,
    embedding_lr=0.02,
    norm_lr=0.01,
    weight_decay=0.0,
    grammar_tokens=1000,
    stages=(Stage(steps=12, rows={"docs": 3, "code": 2}),),
)


def one_stage(steps: int = 12, rows: dict[str, int] | None = None) -> tuple[Stage, ...]:
    """The stages of SMALL with other steps or rows."""
    return (Stage(steps=steps, rows=rows or {"docs": 3, "code": 2}),)


def rows(seed: int, count: int = 30) -> np.ndarray:
    """Rows in which each token is the one before plus seven: a bigram to learn."""
    start = np.random.default_rng(seed).integers(0, 40, (count, 1))
    return ((start + 7 * np.arange(25)) % 40).astype(np.uint16)


SOURCES = {"docs": rows(0), "code": rows(1)}


def test_interrupted_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    whole = train(SMALL, tmp_path / "whole", sources=SOURCES)
    for stop in (1, 5, 6, None):
        train(SMALL, tmp_path / "parts", sources=SOURCES, stop_after=stop)
    first, second = (load_file(tmp_path / n / "model.safetensors") for n in ("whole", "parts"))
    assert first.keys() == second.keys() and len(first) > 10
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    assert Decoder.from_pretrained(whole).config == SMALL.model_config()


def test_an_interrupt_keeps_every_finished_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def interrupted(*arguments: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return batch_loss(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("slmlab.training.pretrain.batch_loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(SMALL, tmp_path / "run", sources=SOURCES)
    monkeypatch.undo()
    train(SMALL, tmp_path / "run", sources=SOURCES)
    train(SMALL, tmp_path / "whole", sources=SOURCES)
    assert len((tmp_path / "run-work" / "log.tsv").read_text().splitlines()) == SMALL.steps
    run, whole = (load_file(tmp_path / n / "model.safetensors") for n in ("run", "whole"))
    assert all(torch.equal(run[name], whole[name]) for name in whole)


def test_nan_stops_with_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def broken(*arguments: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        loss = batch_loss(*arguments)  # type: ignore[arg-type]
        return loss * float("nan") if calls == 3 else loss

    monkeypatch.setattr("slmlab.training.pretrain.batch_loss", broken)
    with pytest.raises(FloatingPointError, match=r"loss is NaN at step 2: .*checkpoint"):
        train(SMALL, tmp_path / "run", sources=SOURCES)
    monkeypatch.undo()
    tensors = load_file(tmp_path / "run-work" / "checkpoint.safetensors")
    assert all(t.isfinite().all() for t in tensors.values() if t.is_floating_point())
    train(SMALL, tmp_path / "run", sources=SOURCES)


def test_an_infinite_gradient_leaves_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of that step is finite; the weights behind it are not, and the next loss tells."""
    train(SMALL, tmp_path / "run", sources=SOURCES, stop_after=2)
    checkpoint = tmp_path / "run-work" / "checkpoint.safetensors"
    before = checkpoint.read_bytes()

    def broken(*arguments: object) -> torch.Tensor:
        loss = batch_loss(*arguments)  # type: ignore[arg-type]
        loss.register_hook(lambda gradient: gradient * float("inf"))
        return loss

    monkeypatch.setattr("slmlab.training.pretrain.batch_loss", broken)
    with pytest.raises(FloatingPointError, match="loss is NaN at step 3"):
        train(SMALL, tmp_path / "run", sources=SOURCES)
    assert checkpoint.read_bytes() == before


def test_another_recipe_does_not_resume(tmp_path: Path) -> None:
    train(SMALL, tmp_path / "run", sources=SOURCES, stop_after=2)
    other = dataclasses.replace(SMALL, muon_lr=0.01)
    with pytest.raises(ValueError, match="belongs to another recipe"):
        train(other, tmp_path / "run", sources=SOURCES)
    (tmp_path / "run-work" / "checkpoint.safetensors").write_bytes(b"short")
    with pytest.raises(ValueError, match=r"cannot be read .*delete it to start afresh"):
        train(SMALL, tmp_path / "run", sources=SOURCES)


def test_it_learns(tmp_path: Path) -> None:
    recipe = dataclasses.replace(SMALL, stages=one_stage(40), decay_steps=20)
    train(recipe, tmp_path / "run", sources=SOURCES)
    held_out = torch.from_numpy(rows(99, 50).astype(np.int64))
    trained = Decoder.from_pretrained(tmp_path / "run")
    untrained = initial_decoder(recipe)
    with torch.inference_mode():
        losses = [
            batch_loss(model, None, held_out[:, :-1], held_out[:, 1:]).item()
            for model in (trained, untrained)
        ]
    assert losses[0] < 0.3 * losses[1]


def test_a_student_of_itself_has_no_loss(tmp_path: Path) -> None:
    teacher = initial_decoder(SMALL)
    inputs = torch.from_numpy(rows(2).astype(np.int64))[:, :-1]
    loss = batch_loss(teacher, teacher, inputs, inputs)
    assert abs(loss.item()) < 1e-4
    loss.backward()
    assert all(p.grad is None or p.grad.abs().max() < 1e-2 for p in teacher.parameters())


def test_batches_depend_on_the_step_only() -> None:
    longer = dataclasses.replace(SMALL, stages=one_stage(30))
    one, two = Batches(longer, SOURCES), Batches(longer, SOURCES)
    for step in (0, 25, 3, 25):
        assert torch.equal(one.at(step)[0], two.at(step)[0])
    inputs, targets = one.at(7)
    assert inputs.shape == targets.shape == (5, 24)
    assert torch.equal(inputs[:, 1:], targets[:, :-1])


def test_an_epoch_shows_every_row_once() -> None:
    numbered = {"docs": np.arange(30, dtype=np.uint16)[:, None].repeat(25, axis=1)}
    batches = Batches(dataclasses.replace(SMALL, stages=one_stage(20, {"docs": 3})), numbered)
    for epoch in range(2):
        seen = [int(x) for s in range(10 * epoch, 10 * epoch + 10) for x in batches.at(s)[0][:, 0]]
        assert sorted(seen) == list(range(30))


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(0, 30), min_size=3, max_size=20),
    width=st.integers(1, 12),
)
def test_cut_rows_lose_nothing_but_the_tail(lengths: list[int], width: int) -> None:
    documents = [[1 + i % 7] * n for i, n in enumerate(lengths)]
    joined = [token for document in documents for token in [*document, 0]]
    if len(joined) <= width:
        with pytest.raises(ValueError, match="too few for one row"):
            cut_rows(documents, width, 0)
        return
    cut = cut_rows(documents, width, 0)
    again = [int(cut[0, 0])] + [int(t) for row in cut for t in row[1:]]
    assert again == joined[: len(again)] and len(joined) - len(again) < width


def test_packed_rows_begin_with_a_document() -> None:
    documents = [[5, *range(10, 10 + n)] for n in (3, 9, 2, 8, 8, 8, 1, 7)]
    packed = pack_rows(documents, 12, 0, tokens=24)
    assert packed.shape == (2, 13) and (packed[:, 0] == 5).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": [{"steps": 0, "rows": {"docs": 1}}]}, "steps must be at least 1"),
        ({"warmup_steps": 13}, "warmup_steps must lie within the 12 steps"),
        ({"decay_steps": 11}, "decay_steps must lie between"),
        ({"stages": [{"steps": 12, "rows": {"web": 3}}]}, "rows must give a positive count"),
        ({"stages": [{"steps": 12, "rows": {"docs": 0}}]}, "rows must give a positive count"),
        ({"stages": [{"steps": 12, "rows": {"sampled": 1}}]}, "need a teacher"),
        ({"stages": [{"steps": 12, "rows": {}}]}, "rows must give a positive count"),
        ({"stages": [{"steps": 12}]}, "field 'rows' is missing"),
        ({"stages": [{"steps": 12, "rows": {"docs": 1}, "lr": 1}]}, "unknown field 'lr'"),
    ],
)
def test_bad_recipes(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **changes)  # type: ignore[arg-type]


def test_recipe_files(tmp_path: Path) -> None:
    assert load_recipe("tiny").model_config().parameter_count() == 10_228_608
    assert load_recipe("tiny-draft").teacher == "tiny"
    with pytest.raises(ValueError, match="no recipe 'huge': use one of tiny, tiny-draft"):
        load_recipe("huge")
    file = tmp_path / "mine.toml"
    file.write_text("name = ")
    with pytest.raises(ValueError, match="is not valid TOML"):
        load_recipe(file)
    file.write_text('name = "x"\nspeed = 3\n')
    with pytest.raises(ValueError, match="unknown field 'speed'"):
        load_recipe(file)


def test_rate_warms_up_stays_and_decays() -> None:
    rates = [SMALL.rate(step) for step in range(SMALL.steps)]
    assert rates[0] == 0.5 and rates[1] == 1.0 == max(rates)
    assert rates[2:7] == [1.0] * 5 and rates[-1] == pytest.approx(1 / 6)
    assert all(a >= b for a, b in pairwise(rates[2:]))


def test_provenance_says_what_was_trained_on(tmp_path: Path) -> None:
    out = train(SMALL, tmp_path / "run", sources=SOURCES)
    facts = json.loads((out / "training.json").read_text())
    assert facts["recipe_digest"] == SMALL.digest()
    assert facts["tokens_seen"] == sum(facts["tokens_by_source"].values()) == 12 * 5 * 24
    assert facts["tokens_available"] == {"docs": 30 * 24, "code": 30 * 24}
    weights = (out / "model.safetensors").read_bytes()
    assert facts["sha256"]["model.safetensors"] == hashlib.sha256(weights).hexdigest()


def test_processor_seconds_survive_a_restart(tmp_path: Path) -> None:
    log = tmp_path / "log.tsv"
    log.write_text("1\t5.0\t2.0\n2\t4.9\t5.0\n3\t4.8\t1.5\n4\t4.7\t2.5\n")
    assert processor_seconds(log) == 5.0 + 2.5
