"""Outlier channels: a few input channels far larger than the rest, and what to do about them.

LLM.int8 (Dettmers et al. 2022, arXiv:2208.07339) splits a product: the input columns whose
magnitude passes a threshold, with their weights, stay in 16 bits; all others run in int8 (section
3.2). Few columns pass, so nearly all of the weights stay small, and the scales of the rest no
longer have to span the outliers. Here the columns are chosen once, on calibration text, where the
paper looks at every batch anew: so what is stored is fixed, and its bytes can be counted.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from slmlab.quant.calibration import collect_statistics
from slmlab.quant.folding import find_folds
from slmlab.quant.linear import KeepsDtypes, QuantizedLinear, check_linear, rows_of
from slmlab.quant.model import in_layer, linear_layers, make_plan, set_layers
from slmlab.quant.scheme import Scheme
from slmlab.quant.smoothquant import int8_linear
from slmlab.quant.tensor import quantize_tensor

THRESHOLD = 6.0  # multiples of the median channel


def outlier_columns(max_magnitude: Tensor, threshold: float = THRESHOLD) -> Tensor:
    """Channels whose largest |x| exceeds ``threshold`` times that of the median channel.

    The paper's threshold, 6.0 as well, is absolute: it fits models whose ordinary activations lie
    within about 3. Inputs of other layers and models are larger or smaller as a whole.

    max_magnitude: (in,), as ``collect_statistics`` gives it. Returns (k,) int64, ascending,
    perhaps none. Raises ValueError for a threshold that is not above 1.
    """
    if not threshold > 1:
        raise ValueError(f"threshold={threshold} must be above 1, the median channel itself")
    return (max_magnitude > threshold * max_magnitude.median()).nonzero()[:, 0]


class OutlierLinear(KeepsDtypes):
    """A linear layer with some input columns in float16 and the rest quantised.

    columns: (k,) int64. high: (out, k) float16, their weights. rest: the weight (out, in) under a
    scheme with those columns zero, so that no scale has to span them. int8_activations: run the
    rest as an integer product, as the paper does; else its weight alone is quantised.
    """

    columns: Tensor
    high: Tensor

    def __init__(
        self, rest: QuantizedLinear, columns: Tensor, high: Tensor, int8_activations: bool = False
    ) -> None:
        super().__init__()
        if int8_activations and rest.scheme.name != "int8":
            raise ValueError(
                f"int8_activations needs scheme 'int8' (one scale a row), not {rest.scheme.name!r}"
            )
        self.rest = rest
        self.int8_activations = int8_activations
        self.register_buffer("columns", columns)
        self.register_buffer("high", high)

    @classmethod
    def from_linear(
        cls,
        layer: nn.Linear,
        columns: Tensor,
        scheme: str | Scheme = "int8",
        int8_activations: bool = False,
    ) -> OutlierLinear:
        """Split a layer's weight at the given columns.

        columns: (k,) int64, distinct, within the layer's inputs. Raises ValueError otherwise, and
        where their weights do not fit float16; TypeError for anything but an int64 tensor, or a
        layer that is no ``nn.Linear``.
        """
        check_linear(layer)
        weight = layer.weight.detach()
        if not isinstance(columns, Tensor) or columns.dtype != torch.int64 or columns.dim() != 1:
            raise TypeError("columns must be an int64 tensor (k,), as outlier_columns returns")
        inside = (columns >= 0) & (columns < weight.shape[1])
        if not bool(inside.all()) or columns.unique().numel() != columns.numel():
            raise ValueError(
                f"columns must be distinct and lie in 0..{weight.shape[1] - 1}, the layer's inputs"
            )
        others = weight.clone()
        others[:, columns] = 0
        high = weight[:, columns].to(torch.float16)
        if not bool(high.isfinite().all()):
            raise ValueError(
                "columns hold weights that are NaN, infinite or beyond float16's 65504: mend the "
                "checkpoint, or leave those columns to the rest"
            )
        bias = None if layer.bias is None else layer.bias.detach().clone()
        rest = QuantizedLinear(quantize_tensor(others, scheme), bias)
        return cls(rest, columns.clone(), high, int8_activations)

    @property
    def nbytes(self) -> int:
        """Bytes stored: the quantised weight whole, bias, 16-bit columns and their indices."""
        return self.rest.nbytes + self.high.nbytes + self.columns.nbytes

    def dequantize(self) -> Tensor:
        """(out, in) float32."""
        weight = self.rest.weight.dequantize()
        weight[:, self.columns] = self.high.float()
        return weight

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out), x's dtype."""
        rows = rows_of(x, self.rest.in_features)  # (tokens, in)
        high = rows[:, self.columns].float() @ self.high.float().T  # (tokens, out)
        ordinary = rows.index_fill(1, self.columns, 0)
        if self.int8_activations:
            low = int8_linear(ordinary, self.rest)
        else:
            low = self.rest(ordinary)
        return (high + low).to(x.dtype).view(*x.shape[:-1], self.rest.out_features)

    def extra_repr(self) -> str:
        return f"{self.columns.numel()} columns in float16"


@torch.no_grad()
def apply(
    model: nn.Module,
    plan: Mapping[str, str],
    calibration: Tensor,
    *,
    threshold: float = THRESHOLD,
    int8_activations: bool = True,
) -> dict[str, int]:
    """Split every layer of a model at its outlier columns, in place.

    plan: layer name -> scheme of the rest; "int8" with int8_activations. calibration: token ids,
    see ``calibration_rows``. Returns {layer name: number of columns in float16}. Raises ValueError
    for a name that is no linear layer, and a model with layers that are quantised or split already.
    """
    plan = make_plan(model, plan)
    linears = linear_layers(model, heads=True)
    layers: dict[str, nn.Module] = {name: linears[name] for name in plan}
    statistics = collect_statistics(model, layers, calibration)
    split: dict[str, nn.Module] = {}
    counts = {}
    for name in plan:
        columns = outlier_columns(statistics[name].max_magnitude, threshold)
        with in_layer(name):
            split[name] = OutlierLinear.from_linear(
                linears[name], columns, plan[name], int8_activations
            )
        counts[name] = columns.numel()
    set_layers(model, split)
    return counts


def plant_outliers(
    model: nn.Module, channels: int = 4, factor: float = 30.0, seed: int = 0
) -> dict[str, list[int]]:
    """Plant outlier channels as large models grow them, in place; the outputs stay the same.

    For teaching: in every block, gains of both norms are multiplied by ``factor`` on a few
    channels (the same ones throughout, as Dettmers et al. 2022, arXiv:2208.07339, section 4,
    find them), and those columns of the next layers divided by it. They are planted, not natural:
    say so wherever a figure rests on them.

    Returns name of each layer -> channels whose inputs are now ``factor`` times as large.
    Raises ValueError for a factor that is not above 0, channels below 1 or above the width.
    """
    if not 0 < factor < float("inf"):
        raise ValueError(f"factor={factor} must be above 0 and finite")
    folds = find_folds(model, ("norm",))
    width = folds[0].channels
    if isinstance(channels, bool) or not isinstance(channels, int):
        raise TypeError(f"channels must be an int, not {type(channels).__name__}")
    if not 1 <= channels <= width:
        raise ValueError(f"channels={channels} must lie between 1 and the width, {width}")
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(width, generator=generator)[:channels].sort().values
    for fold in folds:
        weight = next(iter(fold.consumers.values())).weight
        scales = torch.ones(width, dtype=torch.float32, device=weight.device)
        scales[chosen] = 1 / factor
        fold.apply(scales)
    return {name: chosen.tolist() for fold in folds for name in fold.consumers}
