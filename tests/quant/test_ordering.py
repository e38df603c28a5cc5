"""Fewer bits and coarser groups do more damage: the order that lesson 02 stands on."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

import slmlab
from slmlab.data import evaluation_set
from slmlab.measure import kl_to_reference
from slmlab.quant import quantize_model

ORDER = ("int8", "int4-g32", "int4-row", "int3-g32", "int2-g32")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stdlib-docs", "stdlib-code", "prose"])
def test_kl_orders_the_schemes_on_the_embedded_model(name: str) -> None:
    lm = slmlab.load("tiny")
    held_out = torch.tensor(lm.tokenizer.encode("".join(evaluation_set(name).texts)))[:2048]
    kl = {
        scheme: float(
            kl_to_reference(
                quantize_model(lm.model, scheme), lm.model, held_out, window=256, stride=256
            )
        )
        for scheme in (*ORDER, "nf4-g64")
    }
    assert kl[ORDER[0]] > 0
    assert all(kl[better] < kl[worse] for better, worse in pairwise(ORDER)), kl
    assert kl["nf4-g64"] < kl["int4-row"], kl
