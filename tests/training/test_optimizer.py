"""The paired optimizer: a fused product moves as the matrices it was fused from."""

from __future__ import annotations

import copy

import torch

from slmlab.models import Decoder
from slmlab.training.initialisation import initial_decoder
from slmlab.training.optimizer import PairedOptimizer
from slmlab.training.pretrain import batch_loss
from tests.training.test_training import SMALL, rows

QKV = "layers.0.self_attn.qkv_proj.weight"
GATE_UP = "layers.1.mlp.gate_up_proj.weight"
DOWN = "layers.1.mlp.down_proj.weight"
SPLITS = {QKV: [32, 16, 16], GATE_UP: [48, 48], DOWN: [32]}  # 2 query heads, 1 KV head of 16


def with_gradients() -> Decoder:
    decoder = initial_decoder(SMALL)
    ids = torch.from_numpy(rows(1).astype("int64"))
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.01)  # the first outputs are zero, and so would be what feeds them
    batch_loss(decoder, None, ids[:, :-1], ids[:, 1:]).backward()
    return decoder


def test_fused_products_are_stepped_apart() -> None:
    decoder = with_gradients()
    wanted = {}
    for name, sizes in SPLITS.items():
        whole = decoder.get_parameter(name)
        assert whole.grad is not None
        apart = []
        for weight, gradient in zip(whole.data.split(sizes), whole.grad.split(sizes), strict=True):
            part = torch.nn.Parameter(weight.clone())
            part.grad = gradient.clone()
            torch.optim.Muon([part], lr=SMALL.muon_lr * 0.5, weight_decay=0.0).step()
            apart.append(part.data)
        wanted[name] = torch.cat(apart)
    before = copy.deepcopy(decoder)
    PairedOptimizer(decoder, SMALL).step(0.5)
    for name, value in wanted.items():
        assert torch.equal(decoder.get_parameter(name), value), name
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is None
        assert not torch.equal(parameter, before.get_parameter(name)), name


def test_every_parameter_has_its_state() -> None:
    decoder = with_gradients()
    optimizer = PairedOptimizer(decoder, SMALL)
    assert optimizer.state_tensors() == {}
    optimizer.step(1.0)
    state = optimizer.state_tensors()
    for name, parameter in decoder.named_parameters():
        momenta = [t for key, t in state.items() if key.startswith(name) and t.dim() > 0]
        per_value = 2 if "embed" in name or parameter.dim() == 1 else 1  # AdamW keeps two
        assert sum(t.numel() for t in momenta) == per_value * parameter.numel(), name


def test_state_goes_through_plain_tensors() -> None:
    one = with_gradients()
    first = PairedOptimizer(one, SMALL)
    first.step(1.0)
    other = copy.deepcopy(one)
    second = PairedOptimizer(other, SMALL)
    second.load_state_tensors(first.state_tensors())
    for decoder, optimizer in ((one, first), (other, second)):
        generator = torch.Generator().manual_seed(5)
        for parameter in decoder.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step(1.0)
    for name, parameter in one.named_parameters():
        assert torch.equal(parameter, other.get_parameter(name)), name
