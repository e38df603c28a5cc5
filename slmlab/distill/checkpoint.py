"""A run's state: weights, the optimizer's moments and the record so far, in one safetensors file.

The record is JSON in the file's metadata, so that one rename replaces all of it: no crash leaves
new weights beside an old step count.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from slmlab.distill.store import save_tensors

_KEY = "slmlab.distill"


def all_finite(module: nn.Module) -> bool:
    """Whether no weight is NaN or infinite: only such a state replaces a checkpoint."""
    return all(bool(p.isfinite().all()) for p in module.parameters())


def save_checkpoint(
    path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, record: dict[str, Any]
) -> None:
    """Write all of it; ``record`` is plain JSON."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in module.named_parameters():
        tensors[f"model/{name}"] = parameter
        for slot, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{name}/{slot}"] = torch.as_tensor(value)
    save_tensors(path, tensors, {_KEY: json.dumps(record)})


def load_checkpoint(
    path: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    identity: dict[str, Any],
) -> dict[str, Any]:
    """Restore weights and optimizer in place; returns the record.

    identity: what the record must hold under "identity": settings, method and data.

    Raises:
        ValueError: a file that cannot be read, or one of another run or model. Nothing is changed
            then.
    """
    try:
        with safe_open(path, framework="pt") as handle:
            record = json.loads((handle.metadata() or {})[_KEY])
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path} is no readable checkpoint ({error}): delete it to start afresh"
        ) from None
    before = record["identity"]
    changed = [name for name in {**identity, **before} if before.get(name) != identity.get(name)]
    if changed:
        name = sorted(changed)[0]
        raise ValueError(
            f"{path} belongs to another run: its {name} is {before.get(name)!r}, this one's "
            f"{identity.get(name)!r}. Name another checkpoint, or delete it to start afresh"
        )
    parameters = dict(module.named_parameters())
    shapes = {f"model/{name}": p.shape for name, p in parameters.items()}
    found = {name: t.shape for name, t in tensors.items() if name.startswith("model/")}
    if shapes != found:
        odd = sorted(n for n in shapes.keys() | found.keys() if shapes.get(n) != found.get(n))
        raise ValueError(
            f"{path} belongs to another model ({odd[0].removeprefix('model/')} differs): name "
            "another checkpoint, or build the student as it was built before"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"model/{name}"])
    optimizer.state.clear()
    for key, value in tensors.items():
        kind, _, rest = key.partition("/")
        if kind == "optimizer":
            name, _, slot = rest.rpartition("/")
            parameter = parameters[name]
            # AdamW counts its steps on the CPU; its moments lie beside the weights.
            where = parameter.device if value.dim() else value.device
            optimizer.state[parameter][slot] = value.to(where)
    return dict(record)
