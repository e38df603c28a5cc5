"""Training checkpoints: one safetensors file, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from slmlab.models import Decoder
from slmlab.training.optimizer import PairedOptimizer


def save_checkpoint(
    path: Path, step: int, digest: str, decoder: Decoder, optimizer: PairedOptimizer
) -> None:
    """Weights in float32 and both optimizers' state after ``step`` finished steps."""
    tensors = {f"model/{n}": p.detach() for n, p in decoder.named_parameters()}
    tensors.update({f"optimizer/{n}": t for n, t in optimizer.state_tensors().items()})
    temporary = path.with_suffix(".partial")
    save_file(
        {n: t.contiguous().cpu() for n, t in tensors.items()},
        temporary,
        metadata={"step": str(step), "recipe": digest},
    )
    os.replace(temporary, path)


def load_checkpoint(path: Path, digest: str, decoder: Decoder, optimizer: PairedOptimizer) -> int:
    """Restore both in place and return the number of finished steps.

    Raises:
        ValueError: an unreadable file, or one that another recipe wrote.
    """
    try:
        with safe_open(path, framework="pt", device=str(decoder.device)) as handle:
            metadata = handle.metadata() or {}
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read ({error}): delete it to start afresh") from None
    if metadata.get("recipe") != digest:
        raise ValueError(
            f"{path} belongs to another recipe: give another output folder, or delete it"
        )
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            parameter.copy_(tensors[f"model/{name}"])
    prefix = "optimizer/"
    optimizer.load_state_tensors(
        {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    )
    return int(metadata["step"])
