"""SmoothQuant (Xiao et al. 2022, arXiv:2211.10438): 8 bits for weights and activations.

With both in int8 the product itself runs on integers. Weights are easy: every row has a scale.
Activations are hard: one scale a token must span a few outlier channels, and the other channels
keep few of the 255 levels. A scale per input channel cannot be taken out of the sum, but it can be
moved into the weights beforehand: divide channel j of the input by

    s_j = max|X_j|^alpha / max|W_j|^(1 - alpha)        (equation 4)

and multiply column j of the weights by it. alpha, the migration strength, says how much of the
difficulty moves. The division is folded into the norm before, so it costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from slmlab.quant.calibration import calibration_rows, collect_statistics
from slmlab.quant.folding import find_folds, same_function
from slmlab.quant.linear import KeepsDtypes, QuantizedLinear, rows_of
from slmlab.quant.model import in_layer, set_layers

ACTIVATIONS = ("dynamic", "static")


def smoothing_scales(max_input: Tensor, max_weight: Tensor, alpha: float = 0.5) -> Tensor:
    """s_j of equation 4.

    max_input: (in,), largest |x| of each channel on calibration text. max_weight: (in,), largest
    |w| of each column, over all layers that read the input. alpha: 0 leaves the activations'
    ranges to themselves and evens out the weights', 1 the reverse. Returns (in,), above 0.
    Raises ValueError for alpha outside 0..1.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha={alpha} must lie between 0 and 1")
    # A channel that is always 0, or a column of zeros, must not make the scale 0 or infinite.
    return max_input.clamp(min=1e-5) ** alpha / max_weight.clamp(min=1e-5) ** (1 - alpha)


def quantize_activations(x: Tensor, scale: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Activations as int8 codes.

    x: (tokens, in) float. scale: one number for all tokens ("static"); None takes each token's
    own largest magnitude / 127 ("dynamic"). Returns codes (tokens, in) int8 within +-127, and
    scales (tokens, 1) float32. A token of zeros gets scale 1, one with NaN or inf NaN: no code
    can stand for those, so the scale passes them on.
    """
    wide = x.float()
    if scale is None:
        scale = wide.abs().amax(dim=-1, keepdim=True) / 127
        scale = torch.where(scale == 0, 1.0, scale)
    scale = torch.where(wide.isfinite().all(dim=-1, keepdim=True), scale, torch.nan)
    codes = (wide / scale).round().clamp(-127, 127).to(torch.int8)
    return codes, scale


def int8_product(x_codes: Tensor, w_codes: Tensor) -> Tensor:
    """(tokens, in) int8 times (out, in) int8 -> (tokens, out) int32, exactly.

    torch's integer product runs on the CPU's int8 instructions. On other devices it has limits on
    shapes, and with a single input torch 2.13 returns zeros (it mistakes the strides): there
    float64, which holds these sums exactly, stands in.
    """
    if x_codes.device.type == "cpu" and x_codes.shape[1] > 1:
        return torch._int_mm(x_codes, w_codes.T)
    return (x_codes.double() @ w_codes.double().T).to(torch.int32)


class W8A8Linear(KeepsDtypes):
    """A linear layer whose product runs on int8 codes of both weights and activations.

    linear: the weight under scheme "int8". activation_scale: () float32 for static activations,
    None for dynamic ones.
    """

    activation_scale: Tensor | None

    def __init__(self, linear: QuantizedLinear, activation_scale: Tensor | None = None) -> None:
        super().__init__()
        if linear.scheme.name != "int8":
            raise ValueError(
                f"scheme is {linear.scheme.name!r}: the integer product needs 'int8', one scale a "
                "row and no zero points"
            )
        self.linear = linear
        self.register_buffer("activation_scale", activation_scale)

    @property
    def nbytes(self) -> int:
        """Bytes stored: codes, scales, bias and the static scale."""
        static = self.activation_scale
        return self.linear.nbytes + (0 if static is None else static.nbytes)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out), x's dtype."""
        rows = rows_of(x, self.linear.in_features)
        y = int8_linear(rows, self.linear, self.activation_scale)
        return y.to(x.dtype).view(*x.shape[:-1], self.linear.out_features)

    def extra_repr(self) -> str:
        return "dynamic activations" if self.activation_scale is None else "static activations"


def int8_linear(x: Tensor, linear: QuantizedLinear, scale: Tensor | None = None) -> Tensor:
    """x (tokens, in) times an int8 weight as a product of integers, bias added.

    scale: see ``quantize_activations``. Returns (tokens, out) float32. Where x needs gradients,
    floats stand in for the integers, and rounding passes the gradient on as it is.
    """
    codes, scales = quantize_activations(x.detach(), scale)
    if x.requires_grad and torch.is_grad_enabled():
        wide = x.float()
        return linear(wide + (codes * scales - wide).detach())
    product = int8_product(codes, linear.packed.view(torch.int8)).float()  # (tokens, out)
    y = product * scales.float() * linear.scales.float().T
    return y if linear.bias is None else y + linear.bias


@torch.no_grad()
def smooth(
    model: nn.Module,
    calibration: Tensor,
    alpha: float = 0.5,
    kinds: tuple[str, ...] = ("norm",),
) -> None:
    """Move outliers from the inputs into the weights, in place: the logits stay the same.

    calibration: token ids, see ``calibration_rows``. kinds: where to fold; the paper folds into
    norms. Raises ValueError for a model that cannot be folded (see ``find_folds``), alpha outside
    0..1, too few tokens.
    """
    folds = find_folds(model, kinds)
    first = {next(iter(fold.consumers)): fold for fold in folds}
    layers: dict[str, nn.Module] = {name: fold.consumers[name] for name, fold in first.items()}
    statistics = collect_statistics(model, layers, calibration)
    with same_function(model, calibration_rows(calibration, model=model)[:1], folds):
        for name, fold in first.items():
            columns = [layer.weight.abs().amax(dim=0) for layer in fold.consumers.values()]
            max_input = fold.tie(statistics[name].max_magnitude)
            max_weight = fold.tie(torch.stack(columns).amax(dim=0).float())
            fold.apply(smoothing_scales(max_input, max_weight, alpha))


@torch.no_grad()
def apply(
    model: nn.Module,
    plan: Mapping[str, str],
    calibration: Tensor,
    *,
    alpha: float | None = 0.5,
    activations: str = "dynamic",
    kinds: tuple[str, ...] = ("norm",),
) -> None:
    """Smooth a model and run its layers in int8, in place. ``quantize_model(method="smoothquant")``.

    plan: layer name -> "int8". calibration, kinds: see ``smooth``. alpha: migration strength;
    None smooths nothing, for comparison. activations: "dynamic", a scale a token, or "static", one
    for each layer, the largest input that calibration showed. Raises ValueError for another scheme
    or kind of activations, and as ``smooth`` does.
    """
    if activations not in ACTIVATIONS:
        raise ValueError(f"activations is {activations!r}: choose 'dynamic' or 'static'")
    for name, scheme in plan.items():
        if scheme != "int8":
            raise ValueError(
                f"layer {name}: scheme is {scheme!r}, smoothquant runs integer products and needs "
                "'int8'; for other schemes use method 'gptq' or 'awq'"
            )
    if alpha is not None:
        smooth(model, calibration, alpha, kinds)
    layers = {name: model.get_submodule(name) for name in plan}
    limits: dict[str, Tensor | None] = dict.fromkeys(plan)
    if activations == "static":
        for name, statistics in collect_statistics(model, layers, calibration).items():
            limits[name] = (statistics.max_magnitude.amax() / 127).clamp(min=1e-12)
    integer: dict[str, nn.Module] = {}
    for name, layer in layers.items():
        assert isinstance(layer, nn.Linear)
        with in_layer(name):
            integer[name] = W8A8Linear(QuantizedLinear.from_linear(layer, "int8"), limits[name])
    set_layers(model, integer)
