"""GPTQ (Frantar et al. 2022, arXiv:2210.17323): round a column, let the others make up for it.

Rounding to nearest asks that each weight moves little; what counts is that each *output* does.
With the inputs' second moment H = mean x x^T, the error of an output row is delta H delta^T. GPTQ
rounds one input column after another. After column i it moves the columns not yet rounded by

    - (w_i - q_i) / [H^-1]_ii * [H^-1]_i,rest           (equation 2)

the change that best repairs the outputs while the columns already rounded stay as they are.
Where inputs are uncorrelated, H is diagonal, nothing moves, and GPTQ is rounding to nearest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from slmlab.quant.blocks import walk
from slmlab.quant.calibration import LayerStatistics
from slmlab.quant.grid import from_codes, scales_and_zero_points, to_codes
from slmlab.quant.linear import QuantizedLinear
from slmlab.quant.model import in_layer, set_layers
from slmlab.quant.scheme import Scheme
from slmlab.quant.tensor import QuantizedTensor, quantize_tensor

BLOCK_COLUMNS = 128  # columns updated one by one before the rest is, in one matrix product
_SINGULAR = 1e-4  # share of an input's power that the others must leave unexplained


def gptq_quantize(
    w: Tensor,
    hessian: Tensor,
    scheme: str | Scheme,
    damping: float = 0.01,
    act_order: bool = True,
) -> QuantizedTensor:
    """Quantise a weight so that its outputs on the calibration inputs change least.

    The scales are those of rounding to nearest, fixed before the first column ("static groups"):
    so columns can be taken in any order and still lie in their own group.

    Args:
        w: (out, in) float.
        hessian: (in, in), second moment of the inputs; any positive multiple of it will do. All
            zeros (no input ever) is rounding to nearest.
        scheme: any integer or code book scheme, such as "int3-g32".
        damping: share of the mean diagonal that is added to the diagonal (section 3.3).
        act_order: round the columns with the strongest inputs first, while most others can still
            make up for them.

    Raises:
        ValueError: what `quantize_tensor` refuses; a Hessian of another shape, not finite or not
            symmetric; one that is singular (dead or dependent inputs, too few tokens) after
            damping; negative damping.
    """
    nearest = quantize_tensor(w, scheme)  # checks w and the scheme, and holds the scales as stored
    scheme = nearest.scheme
    hessian = _check_hessian(hessian, w.shape[1], damping)
    if not bool(hessian.any()):
        return nearest
    w = w.detach().float()
    scales, zero_points = scales_and_zero_points(w, scheme)
    stored = nearest.scales.float()

    columns = w.shape[1]
    order = hessian.diagonal().argsort(descending=True, stable=True)
    if not act_order:
        order = torch.arange(columns, device=w.device)
    factor = inverse_factor(hessian[order][:, order], damping)  # (in, in) upper triangular
    remaining = w.T[order].clone()  # (in, out): a column to round is one row
    group_of = (order // (scheme.group_size or columns)).tolist()
    codes = torch.empty(columns, w.shape[0], dtype=torch.int8, device=w.device)

    for start in range(0, columns, BLOCK_COLUMNS):
        end = min(start + BLOCK_COLUMNS, columns)
        scaled_errors = torch.empty_like(remaining[start:end])
        for i in range(start, end):
            group = slice(group_of[i], group_of[i] + 1)
            zero_point = None if zero_points is None else zero_points[:, group]
            code = to_codes(remaining[i, :, None], scales[:, group], zero_point, scheme)
            rounded = from_codes(code, stored[:, group], zero_point, scheme)[:, 0]
            codes[i] = code[:, 0]
            scaled_errors[i - start] = (remaining[i] - rounded) / factor[i, i]
            remaining[i + 1 : end] -= torch.outer(factor[i, i + 1 : end], scaled_errors[i - start])
        remaining[end:] -= factor[start:end, end:].T @ scaled_errors
    in_place = torch.empty_like(codes)
    in_place[order] = codes
    return QuantizedTensor.from_codes(in_place.T.contiguous(), scales, zero_points, scheme)


def apply(
    model: nn.Module,
    plan: Mapping[str, str],
    calibration: Tensor,
    *,
    damping: float = 0.01,
    act_order: bool = True,
) -> None:
    """Quantise the layers of a model in place and in running order: each is calibrated on inputs
    from the layers before it as they are once quantised. ``quantize_model(method="gptq")``.

    plan: layer name -> scheme. calibration: token ids, see ``calibration_rows``. Raises ValueError
    as ``gptq_quantize`` does, with the layer's name, and as ``walk`` does; the model then has its
    own layers back.
    """
    layers = {name: model.get_submodule(name) for name in plan}

    def visit(name: str, statistics: LayerStatistics) -> None:
        layer = layers[name]
        assert isinstance(layer, nn.Linear)
        with in_layer(name):
            weight = gptq_quantize(
                layer.weight, statistics.second_moment, plan[name], damping, act_order
            )
        set_layers(model, {name: QuantizedLinear(weight, layer.bias)})

    try:
        walk(model, layers, calibration, visit)
    except BaseException:
        set_layers(model, layers)
        raise


def inverse_factor(hessian: Tensor, damping: float = 0.01) -> Tensor:
    """The upper triangular U with U^T U = m (H + damping * mean(diag H) * I)^-1, float32.

    m, the mean diagonal of what is inverted, cancels in equation 2, and keeps U near 1. Row i of U is, up to the factor U_ii, the row of H^-1 that equation 2 wants once columns
    0 .. i-1 are rounded and struck from H: one Cholesky decomposition gives them all (section
    3.3, step 3). Computed in float64.

    hessian: (in, in) -> (in, in). Raises ValueError where H is singular after damping.
    """
    damped = hessian.double().clone()
    diagonal = damped.diagonal()
    diagonal += damping * diagonal.mean()
    damped /= diagonal.mean()
    lower, failed = torch.linalg.cholesky_ex(damped)
    # A pivot is what the inputs before leave unexplained of an input. Without damping it must
    # stand clear of the float32 rounding of H (measured: up to 2e-5 of the diagonal where it
    # should be 0), or the columns would be moved by noise.
    left = lower.diagonal() ** 2
    if int(failed) or (damping == 0 and bool((left <= _SINGULAR * diagonal).any())):
        raise ValueError(
            f"hessian ({hessian.shape[0]} inputs) is singular with damping={damping:g}: "
            "some inputs are always 0, or combinations of others to within float32; use "
            "damping=0.01, or calibrate on more tokens"
        )
    inverse = torch.cholesky_inverse(lower)
    return torch.linalg.cholesky(inverse, upper=True).float()


def _check_hessian(hessian: Tensor, columns: int, damping: float) -> Tensor:
    if not isinstance(hessian, Tensor) or not hessian.is_floating_point():
        kind = getattr(hessian, "dtype", type(hessian).__name__)
        raise TypeError(f"hessian must be a floating-point tensor, not {kind}")
    if tuple(hessian.shape) != (columns, columns):
        raise ValueError(
            f"hessian must have shape (in, in) = {(columns, columns)}, not {tuple(hessian.shape)}"
        )
    if not bool(hessian.isfinite().all()):
        raise ValueError("hessian holds NaN or inf: calibrate in float32")
    if not torch.allclose(hessian, hessian.T, rtol=1e-3, atol=1e-3 * float(hessian.abs().max())):
        raise ValueError("hessian must be symmetric: the mean of x x^T over the inputs x")
    if isinstance(damping, bool) or not isinstance(damping, (int, float)):
        raise TypeError(f"damping must be a number, not {type(damping).__name__}")
    if not 0 <= damping < math.inf:
        raise ValueError(f"damping={damping} must be 0 or more, as a share of the mean diagonal")
    return hessian
