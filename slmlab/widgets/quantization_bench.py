"""Schemes tried on one model and one text, each once: bits, weight error, KL and argmax flips."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from slmlab.measure import position_kl_nats
from slmlab.quant.grid import scales_and_zero_points
from slmlab.quant.model import linear_layers
from slmlab.quant.scheme import Scheme, parse_scheme
from slmlab.quant.tensor import quantize_tensor

TOKENS = 320
_SAMPLED_WEIGHTS = 1 << 18  # of the matrix whose histogram is drawn


@dataclass(frozen=True)
class Damage:
    """What a scheme costs and what it breaks.

    bits_per_weight: of all quantised layers together, metadata included. metadata_bits: the part
    of it that is no code. relative_error: root mean square of the weights' change over that of
    the weights. kl_nats: mean KL(float || quantised) a token. flips: share of tokens, 0 .. 1,
    where greedy decoding chooses another token. tokens: compared.
    """

    scheme: str
    bits_per_weight: float
    metadata_bits: float
    relative_error: float
    kl_nats: float
    flips: float
    tokens: int


@dataclass(frozen=True, eq=False)
class Steps:
    """Where the weights of one matrix lie between its codes.

    positions: (n,) float32, w / scale + zero_point: a whole number is a code exactly. entropy_bits:
    of the codes that the weights get, at most ``code_bits``.
    """

    positions: Tensor
    entropy_bits: float


class Bench:
    """Tries schemes on ``model`` by rounding to nearest, and remembers what it found.

    model: a LanguageModel or a Decoder in float32. ids: the text's tokens, of which the first
    ``TOKENS`` are used. ``matrix``: name of the layer whose weights `steps` looks at: the one with
    the largest weight beside its own spread. A copy of the model is kept to write weights into.
    Raises ValueError for fewer than two ids, else as `linear_layers`.
    """

    def __init__(self, model: Any, ids: Iterable[int]) -> None:
        self._float = getattr(model, "model", model)
        self.ids = torch.tensor([list(ids)[:TOKENS]])
        if self.ids.shape[1] < 2:
            raise ValueError("ids must hold at least two tokens: pass a longer text")
        self.layers: dict[str, nn.Linear] = linear_layers(self._float)
        self._scratch = copy.deepcopy(self._float)
        self._targets = dict(self._scratch.named_modules())
        self._reference: Tensor | None = None
        self._damage: dict[str, Damage] = {}
        self._kl: dict[str, Tensor] = {}
        self._steps: dict[str, Steps] = {}
        self.matrix = max(self.layers, key=lambda name: _reach(self.layers[name].weight))
        self.longest_row = max(layer.in_features for layer in self.layers.values())

    @property
    def tried(self) -> dict[str, Damage]:
        """What was found so far, by scheme name."""
        return dict(self._damage)

    def fill(self, schemes: Iterable[str]) -> list[Damage]:
        """Try every scheme that was not tried yet; what all of them do, in order."""
        return [self.damage(scheme) for scheme in schemes]

    def damage(self, scheme: str) -> Damage:
        """What ``scheme`` does to this model. Raises ValueError for an unknown or float scheme."""
        if scheme not in self._damage:
            self._damage[scheme] = self._try(parse_scheme(scheme))
        return self._damage[scheme]

    def kl_by_token(self, scheme: str) -> Tensor:
        """KL at each token, (tokens,) float64, nats: whose mean `damage` has. Raises as it does."""
        return self._kl[self.damage(scheme).scheme]

    @torch.inference_mode()
    def _try(self, scheme: Scheme) -> Damage:
        bits = codes = changed = size = 0.0
        for name, layer in self.layers.items():
            w = layer.weight.detach()
            back = quantize_tensor(w, scheme).dequantize()
            changed += float((back - w).square().sum())
            size += float(w.square().sum())
            bits += scheme.matrix_bits(*w.shape)
            codes += w.numel() * scheme.code_bits
            self._targets[name].weight.data.copy_(back)
        if self._reference is None:
            self._reference = self._float(self.ids)[0]
        logits = self._scratch(self.ids)[0]
        kl = self._kl[scheme.name] = position_kl_nats(logits, self._reference).double()
        flips = (logits.argmax(-1) != self._reference.argmax(-1)).float().mean()
        weights = codes / scheme.code_bits
        return Damage(
            scheme.name,
            bits / weights,
            (bits - codes) / weights,
            (changed / size) ** 0.5,
            float(kl.mean()),
            float(flips),
            self.ids.shape[1],
        )

    def steps(self, scheme: str) -> Steps:
        """Where the weights of ``matrix`` lie between the codes of an integer scheme."""
        if scheme not in self._steps:
            self._steps[scheme] = self._look(parse_scheme(scheme))
        return self._steps[scheme]

    @torch.inference_mode()
    def _look(self, scheme: Scheme) -> Steps:
        if scheme.kind != "int":
            raise ValueError(
                f"scheme {scheme.name!r} has no evenly spaced codes: use an integer one"
            )
        w = self.layers[self.matrix].weight.detach()
        w = w[: max(1, _SAMPLED_WEIGHTS // w.shape[1])]
        scales, zero_points = scales_and_zero_points(w, scheme)
        size = min(scheme.group_size or w.shape[1], w.shape[1])
        columns = torch.arange(w.shape[1]) // size
        positions = w / scales[:, columns]
        if zero_points is not None:
            positions += zero_points[:, columns]
        codes = positions.round().clamp(*scheme.code_range).to(torch.int64)
        counts = torch.bincount((codes - scheme.code_range[0]).flatten()).float()
        shares = counts[counts > 0] / counts.sum()
        return Steps(positions.flatten(), float(-(shares * shares.log2()).sum()))


def _reach(w: Tensor) -> float:
    """Largest weight over the standard deviation."""
    return float(w.detach().abs().max() / w.detach().std().clamp(min=1e-12))
