"""The planted induction circuit does what its docstring says, before any training."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.nn import functional

from slmlab.models import Decoder
from slmlab.training.initialisation import initial_decoder
from slmlab.training.recipe import Recipe, load_recipe
from slmlab.training.stage import Stage
from tests.training.test_training import SMALL

NAMES = ("tiny", "tiny-draft")


def decoder(name: str, induction: bool) -> Decoder:
    recipe = dataclasses.replace(load_recipe(name), induction=induction)
    return initial_decoder(recipe).eval()


def copies_right(model: Decoder) -> float:
    """Share of right greedy guesses in the second half of sequences that repeat themselves."""
    generator = torch.Generator().manual_seed(0)
    once = torch.randint(0, model.config.vocab_size, (8, 40), generator=generator)
    ids = torch.cat((once, once), dim=1)
    with torch.inference_mode():
        guesses = model(ids[:, :-1]).argmax(dim=-1)
    return (guesses == ids[:, 1:])[:, 41:].float().mean().item()


@pytest.mark.parametrize("name", NAMES)
def test_random_tokens_are_copied_from_the_start(name: str) -> None:
    assert copies_right(decoder(name, induction=True)) > 0.25
    assert copies_right(decoder(name, induction=False)) < 0.02


@pytest.mark.parametrize("name", NAMES)
def test_the_first_heads_look_one_two_and_three_tokens_back(name: str) -> None:
    model = decoder(name, induction=True)
    config = model.config
    dim, heads, kv_heads = config.head_dim, config.num_attention_heads, config.num_key_value_heads
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, config.vocab_size, (1, 64), generator=generator)
    # Queries and keys as the layer computes them, the rotation by complex numbers as an oracle.
    with torch.inference_mode():
        x = functional.rms_norm(model.embed_tokens(ids)[0], (config.hidden_size,))
        qkv = (x @ model.get_parameter("layers.0.self_attn.qkv_proj.weight").T).view(64, -1, dim)
    angles = torch.arange(64.0)[:, None] * model.inverse_frequencies
    turn = torch.polar(torch.ones_like(angles), angles)
    turned = torch.complex(qkv[..., : dim // 2], qkv[..., dim // 2 :]) * turn[:, None]
    key = turned[:, heads]
    for head in range(heads // kv_heads):
        scores = (turned[:, head] @ key.conj().T).real / dim**0.5
        weights = scores.masked_fill(torch.ones(64, 64).triu(1).bool(), -torch.inf).softmax(-1)
        # Tokens differ in norm, which moves some weight to the neighbours of the one meant.
        assert weights.diagonal(-(head + 1)).mean() > 0.4
        assert weights.diagonal(-(head + 1)).mean() > 2 * weights.diagonal(-(head + 2)).mean()


def test_the_same_seed_gives_the_same_weights_and_another_one_does_not() -> None:
    recipe = dataclasses.replace(load_recipe("tiny-draft"), induction=True)
    first, again = initial_decoder(recipe), initial_decoder(recipe)
    other = initial_decoder(dataclasses.replace(recipe, seed=recipe.seed + 1))
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    planted = "layers.1.self_attn.o_proj.weight"
    assert not torch.equal(first.get_parameter(planted), other.get_parameter(planted))


@pytest.mark.parametrize(
    "change",
    [
        {"stages": (Stage(steps=6, rows={"docs": 1}, layers=1), Stage(steps=6, rows={"docs": 1}))},
        {"head_dim": 20},
    ],
    ids=["one layer", "wide heads"],
)
def test_a_circuit_that_does_not_fit_is_refused(change: dict[str, object]) -> None:
    fits = dataclasses.replace(SMALL, head_dim=12, induction=True)
    assert isinstance(fits, Recipe)
    with pytest.raises(ValueError, match="induction needs at least two layers"):
        dataclasses.replace(fits, **change)  # type: ignore[arg-type]
