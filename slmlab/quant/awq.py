"""AWQ (Lin et al. 2023, arXiv:2306.00978): scale up the weights that strong inputs meet.

A weight's rounding error is about half a step, whatever the weight. Multiplying an input column
by s > 1 before rounding and its input by 1/s leaves the step of its group nearly as it was, so
that column's error shrinks by s (section 3.2). How far to go is searched: s = importance^alpha
with the mean magnitude of each input channel as importance, alpha from 0 to 1, and the error of
the outputs as judge. The 1/s costs nothing: it is folded into what produces the input.

Then each group's largest weights may be clipped, where a finer step gains more than they lose; not
those of queries and keys, as the authors' code does it: an error there passes through the softmax.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from slmlab.quant.calibration import (
    LayerStatistics,
    calibrating,
    calibration_rows,
    collect_statistics,
    output_error,
)
from slmlab.quant.folding import Fold, find_folds, same_function
from slmlab.quant.linear import QuantizedLinear
from slmlab.quant.model import in_layer, set_layers
from slmlab.quant.scheme import Scheme, parse_scheme
from slmlab.quant.tensor import quantize_tensor

ALPHAS = tuple(step / 20 for step in range(20))
CLIP_RATIOS = tuple(1 - step / 20 for step in range(10))
_QUERY_KEY = ("q_proj", "k_proj", "qkv_proj")


def awq_scales(importance: Tensor, alpha: float) -> Tensor:
    """Scale of each input channel: importance^alpha, centred so that they lie around 1.

    importance: (in,), the mean magnitude of each channel, none negative. alpha: 0 gives ones
    exactly. Returns (in,). Raises ValueError for alpha outside 0..1.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha={alpha} must lie between 0 and 1")
    scales = importance.clamp(min=1e-4) ** alpha
    return scales / (scales.max() * scales.min()).sqrt()


def scaled_error(w: Tensor, scales: Tensor, second_moment: Tensor, scheme: str | Scheme) -> float:
    """Mean squared output error, summed over outputs, of rounding w * scales for inputs x / scales.

    w: (out, in); scales: (in,); second_moment: (in, in) of the unscaled inputs.
    """
    rounded = quantize_tensor(w * scales, scheme).dequantize() / scales
    return float(output_error(rounded - w, second_moment).sum())


def search_alpha(
    weights: list[tuple[Tensor, str | Scheme]],
    importance: Tensor,
    second_moment: Tensor,
    alphas: tuple[float, ...] = ALPHAS,
) -> tuple[float, Tensor]:
    """The alpha with the smallest output error over all layers that read one input.

    weights: (out, in) and scheme of each layer. Returns alpha and its scales (in,); the first of
    equals, so that 0 wins where nothing is gained.
    """
    best = (float("inf"), 0.0, torch.ones_like(importance))
    for alpha in alphas:
        scales = awq_scales(importance, alpha)
        error = sum(scaled_error(w, scales, second_moment, scheme) for w, scheme in weights)
        if error < best[0]:
            best = (error, alpha, scales)
    return best[1], best[2]


def clip_weight(
    w: Tensor,
    second_moment: Tensor,
    scheme: str | Scheme,
    ratios: tuple[float, ...] = CLIP_RATIOS,
) -> Tensor:
    """w with each group clamped to the share of its range that gives the least output error.

    The error of a group counts alone: only the (group, group) block of the second moment on the
    diagonal is used, and every group of every row gets its own ratio.

    w: (out, in); second_moment: (in, in); ratios: the first should be 1. Returns (out, in).
    """
    scheme = scheme if isinstance(scheme, Scheme) else parse_scheme(scheme)
    w = w.float()
    size = min(scheme.group_size or w.shape[1], w.shape[1])
    padding = -w.shape[1] % size
    grouped = functional.pad(w, (0, padding)).unflatten(1, (-1, size))  # (out, groups, group)
    padded = functional.pad(second_moment, (0, padding, 0, padding))
    groups = grouped.shape[1]
    each = torch.arange(groups, device=w.device)
    # (groups, group, group): the blocks on the diagonal
    blocks = padded.view(groups, size, groups, size)[each, :, each, :]
    low = grouped.amin(-1, keepdim=True).clamp(max=0)
    high = grouped.amax(-1, keepdim=True).clamp(min=0)
    best_error = grouped.new_full(grouped.shape[:2], float("inf"))
    best = grouped
    for ratio in ratios:
        clipped = grouped.clamp(low * ratio, high * ratio)
        rounded = quantize_tensor(clipped.flatten(1)[:, : w.shape[1]], scheme).dequantize()
        delta = functional.pad(rounded - w, (0, padding)).unflatten(1, (-1, size))
        error = (torch.einsum("ogi,gij->ogj", delta, blocks) * delta).sum(-1)  # (out, groups)
        better = error < best_error
        best_error = torch.where(better, error, best_error)
        best = torch.where(better[..., None], clipped, best)
    return best.flatten(1)[:, : w.shape[1]]


@torch.no_grad()
def scale_model(
    folds: Sequence[Fold],
    plan: Mapping[str, str],
    statistics: Mapping[str, LayerStatistics],
    alphas: tuple[float, ...] = ALPHAS,
) -> dict[str, float]:
    """Search and fold the scales of every layer that a fold reaches, in place.

    folds: as ``find_folds`` gives them; the function of their model stays the same.
    ``statistics`` (of every layer in ``plan``) are brought up to date. Returns {layer name: alpha}.
    """
    chosen: dict[str, float] = {}
    for fold in folds:
        read = [name for name in fold.consumers if name in plan]
        if not read:
            continue
        inputs = statistics[read[0]]
        with in_layer(" or ".join(read)):
            alpha, scales = search_alpha(
                [(fold.consumers[name].weight.float(), plan[name]) for name in read],
                fold.tie(inputs.mean_magnitude),
                inputs.second_moment,
                alphas,
            )
        chosen.update(dict.fromkeys(read, alpha))
        if alpha > 0:
            fold.apply(scales)
            for name in read:
                statistics[name].divide(scales)
    return chosen


def apply(
    model: nn.Module,
    plan: Mapping[str, str],
    calibration: Tensor,
    *,
    alphas: tuple[float, ...] = ALPHAS,
    clip: bool = True,
) -> dict[str, float]:
    """Scale, clip and quantise the layers of a model in place. ``quantize_model(method="awq")``.

    plan: layer name -> scheme. calibration: token ids, see ``calibration_rows``. With
    alphas=(0.0,) and clip=False this is rounding to nearest. Returns {layer name: alpha}.
    Raises ValueError for a model that cannot be folded (see ``find_folds``), too few tokens.
    """
    layers = {name: model.get_submodule(name) for name in plan}
    statistics = collect_statistics(model, layers, calibration)
    folds = find_folds(model)
    quantised: dict[str, nn.Module] = {}
    with calibrating(model):
        with same_function(model, calibration_rows(calibration, model=model)[:1], folds):
            chosen = scale_model(folds, plan, statistics, alphas)
        for name, layer in layers.items():
            assert isinstance(layer, nn.Linear)
            weight = layer.weight
            with in_layer(name):
                if clip and not name.endswith(_QUERY_KEY):
                    weight = clip_weight(weight, statistics[name].second_moment, plan[name])
                quantised[name] = QuantizedLinear(quantize_tensor(weight, plan[name]), layer.bias)
    set_layers(model, quantised)
    return chosen
