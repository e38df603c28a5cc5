"""What calibrated methods learn from text: the inputs that reach each linear layer.

A method never sees text, only token ids, and never the text that judges it:
``slmlab.data.calibration_text`` is made for this, the evaluation sets are not.

All that GPTQ, AWQ and SmoothQuant need of a layer's inputs x (tokens, in) fits in three arrays:
the second moment x^T x / tokens, of which the error of any changed weight follows exactly, and
the mean and the largest magnitude of every channel.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

WINDOW_TOKENS = 256  # of a calibration row, where the ids come as one long text
BATCH_TOKENS = 2048  # tokens of one forward pass: its activations are all that memory holds


@dataclass
class LayerStatistics:
    """Inputs of one linear layer, summed up.

    second_moment: (in, in) float32, the mean of x x^T over tokens; GPTQ's Hessian is twice that,
    and the factor cancels. mean_magnitude, max_magnitude: (in,) float32, of |x|. tokens: seen.
    """

    second_moment: Tensor
    mean_magnitude: Tensor
    max_magnitude: Tensor
    tokens: int = 0

    @classmethod
    def empty(cls, channels: int, device: torch.device | None = None) -> LayerStatistics:
        """Nothing seen yet, for a layer of so many inputs."""
        zeros = torch.zeros(channels, dtype=torch.float32, device=device)
        return cls(torch.outer(zeros, zeros), zeros, zeros.clone())

    def add(self, x: Tensor) -> None:
        """Take in inputs (..., in) of any float dtype. Raises ValueError for NaN or inf."""
        rows = x.detach().reshape(-1, x.shape[-1]).float()  # (tokens, in)
        if not len(rows):  # an expert that no token was sent to
            return
        magnitude = rows.abs()
        largest = magnitude.amax(dim=0)
        if not bool(largest.isfinite().all()):
            raise ValueError(
                "the calibration pass met NaN or inf activations: the model's weights or dtype "
                "are broken, or float16 overflows; calibrate in float32"
            )
        share = rows.shape[0] / (self.tokens + rows.shape[0])
        self.second_moment.lerp_(rows.T @ rows / rows.shape[0], share)
        self.mean_magnitude.lerp_(magnitude.mean(dim=0), share)
        torch.maximum(self.max_magnitude, largest, out=self.max_magnitude)
        self.tokens += rows.shape[0]

    def divide(self, scales: Tensor) -> None:
        """What would have been seen had each channel been divided by scales (in,)."""
        self.second_moment /= torch.outer(scales, scales)
        self.mean_magnitude /= scales
        self.max_magnitude /= scales


def output_error(delta: Tensor, second_moment: Tensor) -> Tensor:
    """Mean squared error of each output when the weight changes by ``delta``.

    delta: (out, in), second_moment: (in, in) -> (out,): delta_r S delta_r^T of each row r, which
    is exactly the mean of (delta_r . x)^2 over the tokens that made S.
    """
    return ((delta @ second_moment) * delta).sum(dim=1)


def calibration_rows(
    calibration: Any, minimum_tokens: int = 1, model: nn.Module | None = None
) -> Tensor:
    """Calibration ids as rows (rows, time) int64, checked.

    calibration: int64 tensor (rows, time); or one long text, (tokens,) or (1, tokens), which is
    cut into rows of ``WINDOW_TOKENS``, or as many as ``model`` takes; a rest shorter than a row is
    dropped. minimum_tokens: what the method needs. Raises TypeError for anything but an int64
    tensor, ValueError for another shape, a negative id, too few tokens, rows beyond the model's
    context.
    """
    if calibration is None:
        raise ValueError(
            f"calibration is missing: pass token ids, an int64 tensor (rows, time) of at least "
            f"{minimum_tokens} tokens, such as those of slmlab.data.calibration_text()"
        )
    if not isinstance(calibration, Tensor) or calibration.dtype != torch.int64:
        kind = getattr(calibration, "dtype", type(calibration).__name__)
        raise TypeError(
            f"calibration must be an int64 tensor of token ids, not {kind}: encode the text first, "
            "as in torch.tensor(lm.tokenizer.encode(text))"
        )
    if calibration.dim() not in (1, 2):
        raise ValueError(
            f"calibration must have shape (rows, time) or (tokens,), not {tuple(calibration.shape)}"
        )
    if calibration.numel() < minimum_tokens:
        raise ValueError(
            f"calibration holds {calibration.numel()} tokens, at least {minimum_tokens} are "
            "needed: as many as the widest layer has inputs, or some directions are never seen"
        )
    if calibration.numel() and int(calibration.min()) < 0:
        raise ValueError(f"calibration holds {int(calibration.min())}: ids are never negative")
    context = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    if calibration.dim() == 2 and len(calibration) > 1:
        if context and calibration.shape[1] > context:
            raise ValueError(
                f"calibration has rows of {calibration.shape[1]} tokens, the model takes {context}: "
                "pass the text as one row, which is cut"
            )
        return calibration
    calibration = calibration.flatten()
    window = min(WINDOW_TOKENS, context or WINDOW_TOKENS)
    rows = calibration.numel() // window
    if rows == 0:
        return calibration[None]
    kept = rows * window
    # Short of a whole row the rest is dropped, unless the method would then starve.
    if kept < minimum_tokens:
        time = calibration.numel() // (rows + 1)
        rows, kept = rows + 1, (rows + 1) * time
    return calibration[:kept].view(rows, -1)


def inputs_of(layer: nn.Module) -> int:
    """Input channels of a linear layer."""
    return int(layer.in_features)  # type: ignore[arg-type]


def minimum_tokens(layers: Collection[nn.Module]) -> int:
    """Tokens below which the second moment of the widest layer is certainly singular."""
    return max((inputs_of(layer) for layer in layers), default=1)


def batches(rows: Tensor) -> Iterator[Tensor]:
    """Rows (rows, time) in batches of about ``BATCH_TOKENS`` tokens."""
    yield from rows.split(max(1, BATCH_TOKENS // rows.shape[1]))


@contextmanager
def calibrating(model: nn.Module) -> Iterator[None]:
    """No gradients, no dropout and no autocast inside; training flags are put back after, also
    those of layers that were replaced meanwhile."""
    training = [name for name, module in model.named_modules() if module.training]
    device = next(model.parameters()).device
    try:
        for name in training:
            model.get_submodule(name).training = False
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        for name in training:
            model.get_submodule(name).training = True


@contextmanager
def before_forward(
    modules: dict[str, nn.Module], see: Callable[[str, Tensor], None]
) -> Iterator[None]:
    """Call ``see(name, input)`` before each of the modules runs; hooks are removed after."""

    def hook_of(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda module, arguments: see(name, arguments[0])

    handles = [m.register_forward_pre_hook(hook_of(name)) for name, m in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def run(model: nn.Module, ids: Tensor) -> Tensor:
    """Logits (B, T, V) of a Decoder or a transformers model, on the model's device, uncached.

    Raises ValueError for an id outside the vocabulary, and for a model that gives no logits.
    """
    device = next(model.parameters()).device
    options = {"use_cache": False} if hasattr(model, "generation_config") else {}
    size = getattr(getattr(model, "config", None), "vocab_size", None)
    if isinstance(size, int) and int(ids.max()) >= size:
        raise ValueError(
            f"calibration holds token id {int(ids.max())}, outside the vocabulary of {size}: "
            "encode the text with this model's own tokenizer"
        )
    output = model(ids.to(device), **options)
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if logits is None:
        raise ValueError(
            f"model {type(model).__name__} gives no logits: load it with a head, as "
            "AutoModelForCausalLM does"
        )
    return logits


def collect_statistics(
    model: nn.Module, layers: dict[str, nn.Module], calibration: Tensor
) -> dict[str, LayerStatistics]:
    """Statistics of the inputs of every layer in ``layers``, in one pass over the text.

    layers: name -> linear module of ``model``. calibration: ids, see :func:`calibration_rows`.
    Raises ValueError for too few tokens and where a layer is never reached.
    """
    rows = calibration_rows(calibration, minimum_tokens(layers.values()), model)
    if not layers:
        return {}
    device = next(model.parameters()).device
    found = {name: LayerStatistics.empty(inputs_of(m), device) for name, m in layers.items()}
    with calibrating(model), before_forward(layers, lambda name, x: found[name].add(x)):
        for batch in batches(rows):
            run(model, batch)
    check_reached(found)
    return found


def check_reached(found: Mapping[str, LayerStatistics]) -> None:
    """ValueError where no token reached a layer."""
    unseen = [name for name, statistics in found.items() if not statistics.tokens]
    if unseen:
        raise ValueError(
            f"calibration never reached {', '.join(unseen[:3])}: leave them out of the plan (there "
            f"are {len(unseen)}), or calibrate on text that uses them"
        )
