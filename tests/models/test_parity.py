"""The decoder against transformers, layout by layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from slmlab.kv import ContiguousCache
from slmlab.models import Decoder, save_decoder
from tests.models.layouts import LAYOUTS, assert_same_logits, saved

Pair = tuple[Any, Decoder]


@pytest.fixture(scope="module", params=sorted(LAYOUTS))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp(request.param)
    theirs = saved(request.param, folder)
    return theirs, Decoder.from_pretrained(folder)


def ids_for(pair: Pair, batch: int, time: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, pair[0].config.vocab_size, (batch, time), generator=generator)


def test_logits_and_hidden_states(pair: Pair) -> None:
    theirs, ours = pair
    ids = ids_for(pair, 2, 23)
    wanted = theirs(ids, output_hidden_states=True)
    logits, states = ours(ids, output_hidden_states=True)
    assert_same_logits(logits, wanted.logits)
    assert len(states) == theirs.config.num_hidden_layers + 1
    for mine, other in zip(states, wanted.hidden_states, strict=True):
        assert_same_logits(mine, other)


def test_parameter_count(pair: Pair) -> None:
    theirs, ours = pair
    assert ours.config.parameter_count() == sum(p.numel() for p in theirs.parameters())
    assert ours.config.parameter_count() == sum(p.numel() for p in ours.parameters())


@pytest.mark.parametrize("chunks", [[23], [1] * 23, [9, 1, 1, 8, 4], [22, 1]])
def test_cache_in_chunks(pair: Pair, chunks: list[int]) -> None:
    theirs, ours = pair
    ids = ids_for(pair, 2, 23, seed=2)
    cache = ContiguousCache(ours.config, 2, max_length=30)
    parts = []
    for chunk in ids.split(chunks, dim=1):
        parts.append(ours(chunk, cache))
    assert cache.length == 23
    assert_same_logits(torch.cat(parts, dim=1), theirs(ids).logits)


def test_truncate_rolls_back(pair: Pair) -> None:
    theirs, ours = pair
    ids, other = ids_for(pair, 1, 12, seed=3), ids_for(pair, 1, 6, seed=4)
    cache = ContiguousCache(ours.config, max_length=20)
    ours(ids, cache)
    cache.truncate(7)
    wanted = theirs(torch.cat([ids[:, :7], other], dim=1)).logits[:, 7:]
    assert_same_logits(ours(other, cache), wanted)


def test_left_padding(pair: Pair) -> None:
    theirs, ours = pair
    ids = ids_for(pair, 3, 14, seed=5)
    mask = torch.ones_like(ids)
    mask[0, :5] = 0
    mask[2, :11] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    wanted = theirs(ids, attention_mask=mask, position_ids=positions).logits
    real = mask.bool()
    logits = ours(ids, attention_mask=mask)
    assert logits.isfinite().all()
    assert_same_logits(logits[real], wanted[real])
    # The row that needs no padding sees what it would see alone.
    assert_same_logits(ours(ids[2:, 11:]), logits[2:, 11:])


def test_left_padding_with_cache(pair: Pair) -> None:
    theirs, ours = pair
    ids = ids_for(pair, 2, 15, seed=6)
    mask = torch.ones_like(ids)
    mask[0, :6] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    wanted = theirs(ids, attention_mask=mask, position_ids=positions).logits
    cache = ContiguousCache(ours.config, 2, max_length=15)
    parts = [ours(ids[:, :9], cache, attention_mask=mask[:, :9])]
    parts += [ours(ids[:, t : t + 1], cache, attention_mask=mask[:, : t + 1]) for t in range(9, 15)]
    logits = torch.cat(parts, dim=1)
    assert_same_logits(logits[mask.bool()], wanted[mask.bool()])


def test_positions_argument(pair: Pair) -> None:
    theirs, ours = pair
    ids = ids_for(pair, 2, 9, seed=7)
    positions = torch.arange(30, 39)
    wanted = theirs(ids, position_ids=positions.expand(2, -1)).logits
    assert_same_logits(ours(ids, positions=positions), wanted)
    assert_same_logits(ours(ids, positions=positions.expand(2, -1)), wanted)


def test_saved_again_is_the_same_model(pair: Pair, tmp_path: Path) -> None:
    theirs, ours = pair
    ids = ids_for(pair, 1, 17, seed=8)
    save_decoder(ours, tmp_path, torch.float32)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert_same_logits(again(ids).logits, theirs(ids).logits)
    assert_same_logits(Decoder.from_pretrained(tmp_path)(ids), theirs(ids).logits)


def test_bfloat16_stays_close(pair: Pair, tmp_path: Path) -> None:
    _, ours = pair
    ids = ids_for(pair, 1, 8, seed=9)
    save_decoder(ours, tmp_path, torch.float32)
    logits = Decoder.from_pretrained(tmp_path, dtype=torch.bfloat16)(ids)
    assert logits.dtype == torch.bfloat16
    wanted = ours(ids)
    assert (logits.float() - wanted).abs().max() <= 0.1 * wanted.abs().max()
