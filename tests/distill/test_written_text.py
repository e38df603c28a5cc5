"""Text that teachers and students write."""

from __future__ import annotations

import pytest
import torch

from slmlab.distill.batches import Batch
from slmlab.distill.continuation import continue_rows, draw
from slmlab.distill.forward import logits_of
from slmlab.distill.on_policy import is_on_policy, student_sequences
from slmlab.distill.sequence import BLOCK_ROWS, teacher_sequences
from slmlab.generation import generate_tokens
from tests.distill.pairs import VOCABULARY, decoder, llama, rows

PROMPTS = rows(3, 4)
MODELS = {"decoder": lambda: decoder(tied=False).eval(), "llama": lambda: llama(tied=False).eval()}


def test_draws_follow_the_distribution():
    """Evenly spread numbers must fall on each token as often as its probability says."""
    probabilities = torch.tensor([[0.0, 0.25, 0.5, 0.0, 0.25, 0.0]])
    numbers = (torch.arange(1000) + 0.5) / 1000
    drawn = draw(probabilities.expand(1000, 6), numbers)
    assert torch.bincount(drawn, minlength=6).tolist() == [0, 250, 500, 0, 250, 0]
    edges = draw(probabilities.expand(2, 6), torch.tensor([0.0, 1.0 - 1e-16], dtype=torch.float64))
    assert edges.tolist() == [1, 4]


@pytest.mark.parametrize("name", MODELS)
def test_greedy_rows_are_those_of_uncached_passes(name):
    model = MODELS[name]()
    ids, written = continue_rows(model, PROMPTS, 6)
    expected = PROMPTS
    for _ in range(6):
        with torch.no_grad():
            expected = torch.cat((expected, logits_of(model, expected)[:, -1:].argmax(-1)), 1)
    assert torch.equal(ids, expected) and bool(written.all())


def test_greedy_rows_are_those_of_the_plain_loop():
    model = MODELS["decoder"]()
    ids, _ = continue_rows(model, PROMPTS, 6)
    for row, prompt in zip(ids, PROMPTS):
        plain = generate_tokens(model, prompt.tolist(), max_new_tokens=6)
        assert row[4:].tolist() == list(plain)


def test_a_row_depends_on_its_own_numbers_alone():
    model, numbers = MODELS["decoder"](), torch.rand(3, 6)
    together, _ = continue_rows(model, PROMPTS, 6, numbers)
    for at in range(3):
        alone, _ = continue_rows(model, PROMPTS[at : at + 1], 6, numbers[at : at + 1])
        assert torch.equal(alone[0], together[at])
    others, _ = continue_rows(model, PROMPTS, 6, 1 - numbers)
    assert not torch.equal(others, together)


def test_a_stop_id_ends_its_row_only():
    model = MODELS["decoder"]()
    free, _ = continue_rows(model, PROMPTS, 8, torch.full((3, 8), 0.5))
    stop = int(free[0, 5])
    ids, written = continue_rows(model, PROMPTS, 8, torch.full((3, 8), 0.5), stop_ids=[stop])
    for row, mask, unstopped in zip(ids[:, 4:], written, free[:, 4:]):
        found = (unstopped == stop).nonzero()
        end = int(found[0]) + 1 if len(found) else 8
        assert mask.tolist() == [True] * end + [False] * (8 - end)
        assert torch.equal(row[:end], unstopped[:end])
        assert bool((row[end:] == stop).all())
    assert not bool(written.all())


def test_the_model_keeps_its_mode_and_gets_no_gradient():
    model = decoder().train()
    ids, _ = continue_rows(model, PROMPTS, 2)
    assert model.training and all(m.training for m in model.modules())
    assert not ids.requires_grad


def test_teacher_text_is_learned_behind_the_prompt_only():
    teacher = MODELS["decoder"]()
    prompts = rows(BLOCK_ROWS + 2, 3)
    ids, mask = teacher_sequences(teacher, prompts, 5)
    assert torch.equal(ids, continue_rows(teacher, prompts, 5)[0])
    assert mask.tolist() == [[False, False] + [True] * 5] * len(prompts)
    sampled = [teacher_sequences(teacher, prompts, 5, 1.0, seed)[0] for seed in (1, 1, 2)]
    assert torch.equal(sampled[0], sampled[1]) and not torch.equal(sampled[0], sampled[2])


def test_student_text_replaces_what_follows_the_prompt():
    student = MODELS["decoder"]()
    data = rows(3, 9)
    mask = torch.ones(3, 8, dtype=torch.bool)
    numbers = torch.rand(3, 5)
    batch = student_sequences(student, Batch(data, mask, torch.arange(3)), 4, numbers)
    assert torch.equal(batch.ids, continue_rows(student, data[:, :4], 5, numbers)[0])
    assert batch.mask.tolist() == [[False] * 3 + [True] * 5] * 3
    with pytest.raises(ValueError, match="prompt_tokens=9"):
        student_sequences(student, batch, 9, numbers)


def test_the_share_of_on_policy_steps_is_lambda():
    assert not any(is_on_policy(0, step, 0.0) for step in range(50))
    assert all(is_on_policy(0, step, 1.0) for step in range(50))
    chosen = [is_on_policy(0, step, 0.25) for step in range(2000)]
    assert 0.2 < sum(chosen) / 2000 < 0.3
    assert chosen == [is_on_policy(0, step, 0.25) for step in range(2000)]


def test_bad_input_is_named():
    model = MODELS["decoder"]()
    with pytest.raises(ValueError, match="at least 1 token"):
        continue_rows(model, PROMPTS[:, :0], 2)
    with pytest.raises(TypeError, match="int64"):
        continue_rows(model, PROMPTS.float(), 2)
    with pytest.raises(ValueError, match="64 positions"):
        continue_rows(model, PROMPTS, 61)
    with pytest.raises(ValueError, match="uniforms"):
        continue_rows(model, PROMPTS, 2, torch.rand(3, 3))
    with pytest.raises(ValueError, match="vocabulary"):
        continue_rows(model, PROMPTS + VOCABULARY, 2)
    with pytest.raises(ValueError, match="temperature"):
        teacher_sequences(model, PROMPTS, 2, -1.0)
    with torch.no_grad():
        model.norm.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="NaN"):
        continue_rows(model, PROMPTS, 2)
