"""Training checkpoints: one safetensors file, written whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from slmlab.models import Decoder
from slmlab.training.optimizer import PairedOptimizer
from slmlab.training.recipe import Recipe


def save_checkpoint(
    path: Path, step: int, recipe: Recipe, decoder: Decoder, optimizer: PairedOptimizer
) -> None:
    """Weights in float32 and both optimizers' state after ``step`` finished steps."""
    tensors = {f"model/{n}": p.detach() for n, p in decoder.named_parameters()}
    tensors.update({f"optimizer/{n}": t for n, t in optimizer.state_tensors().items()})
    temporary = path.with_suffix(".partial")
    save_file(
        {n: t.contiguous().cpu() for n, t in tensors.items()},
        temporary,
        metadata={
            "step": str(step),
            "recipe": recipe.digest(),
            "decay_steps": str(recipe.decay_steps),
            "stages": json.dumps([dataclasses.asdict(stage) for stage in recipe.stages]),
        },
    )
    os.replace(temporary, path)


def load_checkpoint(
    path: Path, recipe: Recipe, decoder: Decoder, optimizer: PairedOptimizer
) -> int:
    """Restore both in place and return the number of finished steps.

    Raises:
        ValueError: an unreadable file, one that another recipe wrote, or one whose steps were
            taken otherwise than the recipe's schedule says.
    """
    try:
        with safe_open(path, framework="pt", device=str(decoder.device)) as handle:
            metadata = handle.metadata() or {}
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read ({error}): delete it to start afresh") from None
    if metadata.get("recipe") != recipe.digest():
        raise ValueError(
            f"{path} belongs to another recipe: give another output folder, or delete the folder "
            f"{path.parent} (its token rows are that recipe's too)"
        )
    step = int(metadata["step"])
    _check_schedule(path, step, metadata, recipe)
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            parameter.copy_(tensors[f"model/{name}"])
    prefix = "optimizer/"
    optimizer.load_state_tensors(
        {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    )
    return step


def _check_schedule(path: Path, step: int, metadata: dict[str, str], recipe: Recipe) -> None:
    """What is still ahead may change as long as every finished step would be taken alike."""
    if step > recipe.steps:
        raise ValueError(
            f"{path} holds {step} finished steps, the recipe asks for {recipe.steps}: give its "
            f"stages at least {step} in all, or give another output folder"
        )
    before = dataclasses.replace(
        recipe,
        decay_steps=int(metadata["decay_steps"]),
        stages=json.loads(metadata["stages"]),
    )
    for taken in range(step):
        if _manner(before, taken) != _manner(recipe, taken):
            raise ValueError(
                f"{path} took its {step} steps with stages {metadata['stages']} and decay_steps = "
                f"{before.decay_steps}; this recipe gives step {taken} another learning rate, other "
                "rows or pieces, or another depth: put the old values back, or give another output folder"
            )


def _manner(recipe: Recipe, step: int) -> tuple[float, int, int, list[tuple[str, int]]]:
    """Everything of the schedule that decides what a step does."""
    stage = recipe.stage_at(step)
    return recipe.rate(step), recipe.layers_at(step), stage.pieces, sorted(stage.rows.items())
