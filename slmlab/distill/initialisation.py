"""A student cut out of its teacher: the same model with fewer layers.

A student that starts from its teacher's weights needs far less text than one that starts from
nothing. DistilBERT (Sanh et al. 2019, arXiv:1910.01108, section 3) takes one layer out of two.
Minitron (Muralidharan et al. 2024, arXiv:2407.14679, section 2) ranks the layers on some calibration
text first and drops the least important ones, by one of two measures:

- Block Influence, 1 - E[cos(x_i, x_i+1)] of the hidden state before and after a layer (Men et al.
  2024, ShortGPT, arXiv:2403.03853): one pass for all layers; blind to what later layers need.
- the loss on the text when that one layer is left out: a pass a layer.

Both judge a layer while all others are there: the damage of several cuts together can be larger.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from slmlab.distill.forward import guiding, logits_of, shallow_twin, trunk_of
from slmlab.models import Decoder
from slmlab.models.fields import check_whole
from slmlab.quant.calibration import batches, calibration_rows

IMPORTANCES = ("block_influence", "loss")


def evenly_spaced_layers(teacher_layers: int, student_layers: int) -> list[int]:
    """Every n-th layer from the first: [0, 2, 4] of 6, as DistilBERT takes them.

    Where the quotient is no whole number the places are rounded down. Raises ValueError for more
    layers than the teacher has.
    """
    check_whole("teacher_layers", teacher_layers)
    check_whole("student_layers", student_layers)
    if student_layers > teacher_layers:
        raise ValueError(f"student_layers={student_layers} exceeds the teacher's {teacher_layers}")
    return [place * teacher_layers // student_layers for place in range(student_layers)]


def student_from_layers(teacher: Any, keep: Sequence[int]) -> Any:
    """A trainable copy of the teacher with only the layers in ``keep``, in that order.

    Args:
        teacher: a Decoder, or a transformers model with ``model.layers``; left as it is.
        keep: ascending layer numbers, at least one.

    Returns:
        A model of the teacher's class, its config's number of layers mended, with parameters of its
        own that require gradients.

    Raises:
        ValueError: no layers, a layer that the teacher lacks, an order that is not ascending.
        TypeError: no such model.
    """
    trunk = trunk_of("teacher", teacher)
    keep, count = list(keep), len(trunk.layers)
    if not keep or any(isinstance(i, bool) or not isinstance(i, int) for i in keep):
        raise ValueError(f"keep={keep} must name at least one layer by its number")
    if keep != sorted(set(keep)) or keep[0] < 0 or keep[-1] >= count:
        raise ValueError(
            f"keep={keep} must be ascending layer numbers of the teacher's 0 .. {count - 1}"
        )
    student = copy.deepcopy(_with_layers(teacher, keep))
    for place, layer in enumerate(trunk_of("student", student).layers):
        # Each attention finds its part of the cache by this number.
        name = "layer" if isinstance(student, Decoder) else "layer_idx"
        for module in layer.modules():
            if hasattr(module, name):
                setattr(module, name, place)
    for parameter in student.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_()
    return student


def block_influence(model: Any, calibration: Tensor) -> Tensor:
    """1 - mean cosine of the hidden states before and behind each layer: (layers,) float64.

    calibration: ids (rows, time) or one long text, int64. Raises as `calibration_rows`.
    """
    layers = trunk_of("model", model).layers
    rows = calibration_rows(calibration, model=model)
    sums = torch.zeros(len(layers), dtype=torch.float64)

    def see(place: int, before: Tensor, after: Any) -> None:
        after = after[0] if isinstance(after, tuple) else after  # (batch, time, width)
        sums[place] += functional.cosine_similarity(before.double(), after.double(), dim=-1).sum()

    handles = [
        layer.register_forward_hook(
            lambda _, arguments, output, place=place: see(place, arguments[0], output)
        )
        for place, layer in enumerate(layers)
    ]
    try:
        with guiding(model):
            for batch in batches(rows):
                logits_of(model, batch.to(next(model.parameters()).device))
    finally:
        for handle in handles:
            handle.remove()
    return 1 - sums / rows.numel()


def loss_increase(model: Any, calibration: Tensor) -> Tensor:
    """By how much the loss grows, nats a token, when each layer alone is left out: (layers,) float64.

    calibration: ids (rows, time) of at least two tokens a row. Raises as `calibration_rows`,
    ValueError for a model of one layer.
    """
    count = len(trunk_of("model", model).layers)
    if count < 2:
        raise ValueError("model has one layer: there is none to leave out")
    rows = calibration_rows(calibration, minimum_tokens=2, model=model)
    if rows.shape[1] < 2:
        raise ValueError("calibration has rows of one token: at least two, to predict the second")
    with guiding(model):
        whole = _loss(model, rows)
        return torch.stack(
            [_loss(_without_layer(model, left_out), rows) - whole for left_out in range(count)]
        )


def depth_pruned(
    teacher: Any, layers: int, calibration: Tensor, importance: str = "block_influence"
) -> Any:
    """A trainable copy of the teacher without its least important layers.

    Args:
        teacher: a Decoder, or a transformers model with ``model.layers``.
        layers: to keep.
        calibration: ids (rows, time) or one long text, int64: not the text that judges the student.
        importance: "block_influence" or "loss".

    Raises:
        ValueError: more layers than the teacher has, an unknown importance, no calibration.
    """
    count = len(trunk_of("teacher", teacher).layers)
    check_whole("layers", layers)
    if layers > count:
        raise ValueError(f"layers={layers} exceeds the teacher's {count}")
    if importance not in IMPORTANCES:
        raise ValueError(f"importance={importance!r} must be one of {', '.join(IMPORTANCES)}")
    measure = block_influence if importance == "block_influence" else loss_increase
    ranked = measure(teacher, calibration).argsort(descending=True, stable=True)
    return student_from_layers(teacher, sorted(ranked[:layers].tolist()))


def _with_layers(model: Any, keep: list[int]) -> Any:
    """The model with some of its layers; its weights are shared, and no cache fits it."""
    trunk = trunk_of("model", model)
    short = shallow_twin(trunk)
    short.layers = nn.ModuleList(trunk.layers[i] for i in keep)
    if isinstance(model, Decoder):
        short.config = replace(
            model.config,
            num_hidden_layers=len(keep),
            layer_windows=tuple(model.config.layer_windows[i] for i in keep),
        )
        return short
    twin = shallow_twin(model)
    twin.model = short
    twin.config = short.config = copy.deepcopy(model.config)
    twin.config.num_hidden_layers = len(keep)
    if getattr(twin.config, "layer_types", None):
        twin.config.layer_types = [model.config.layer_types[i] for i in keep]
    return twin


def _without_layer(model: Any, left_out: int) -> Any:
    count = len(trunk_of("model", model).layers)
    short = _with_layers(model, [i for i in range(count) if i != left_out])
    if isinstance(model, Decoder):
        # The shared layers look up their windows by the numbers they have in the whole model.
        short.config = model.config
    return short


def _loss(model: Any, rows: Tensor) -> Tensor:
    """Mean cross-entropy of rows (rows, time), nats a predicted token; scalar float64."""
    total = torch.zeros((), dtype=torch.float64)
    for batch in batches(rows):
        batch = batch.to(next(model.parameters()).device)
        logits = logits_of(model, batch)[:, :-1].flatten(0, 1)
        total += functional.cross_entropy(logits.float(), batch[:, 1:].flatten(), reduction="sum")
    return total / (rows.numel() - len(rows))
