"""The training loop: from nothing to a model directory, interruptible at any moment."""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from tqdm.auto import tqdm

from slmlab.distill.checkpoint import all_finite
from slmlab.models import Decoder, model_directory, save_decoder
from slmlab.training.batches import Batches, Rows, load_rows, save_rows
from slmlab.training.checkpoint import load_checkpoint, save_checkpoint
from slmlab.training.growth import first_layers
from slmlab.training.initialisation import initial_decoder
from slmlab.training.interrupt import interrupts_deferred
from slmlab.training.optimizer import PairedOptimizer
from slmlab.training.prepare import prepare_rows, prepare_tokenizer
from slmlab.training.provenance import write_provenance
from slmlab.training.recipe import Recipe
from slmlab.training.sampled import sampled_rows
from slmlab.training.work_folder import check_folder, claim_work_folder


def batch_loss(
    student: Decoder, teacher: Decoder | None, inputs: Tensor, targets: Tensor
) -> Tensor:
    """Mean loss a token in nats: cross-entropy, or KL(teacher || student) with a teacher."""
    device_type = inputs.device.type
    with torch.autocast(device_type, dtype=torch.bfloat16):
        logits = student(inputs).float().flatten(0, 1)  # (rows * time, vocabulary)
        if teacher is None:
            return functional.cross_entropy(logits, targets.flatten())
        with torch.inference_mode():
            wanted = teacher(inputs).float().flatten(0, 1).log_softmax(dim=-1)
    wanted = wanted.clone()  # inference tensors cannot be saved for backward
    return functional.kl_div(
        logits.log_softmax(dim=-1), wanted, reduction="batchmean", log_target=True
    )


def train(
    recipe: Recipe,
    out: str | Path,
    *,
    work: str | Path | None = None,
    teacher: str | Path | None = None,
    device: torch.device | str = "cpu",
    threads: int = 1,
    checkpoint_seconds: float = 300.0,
    stop_after: int | None = None,
    sources: dict[str, Rows] | None = None,
) -> Path:
    """Train ``recipe`` and write a model directory in Hugging Face layout.

    Args:
        out: receives config.json, model.safetensors (fp16) and the tokenizer.
        work: folder of token rows and the checkpoint; ``out`` + "-work" if absent. A run that
            finds a checkpoint there goes on from it.
        teacher: where the recipe's teacher lies; the embedded model of that name if absent.
        threads: torch threads, at most the cores of this machine.
        stop_after: leave after this many steps with a checkpoint, as an interrupt does.
        sources: token rows to use instead of those the recipe prepares (tests).

    Returns:
        ``out``. A KeyboardInterrupt saves a checkpoint before it is raised again.

    Raises:
        ValueError: too few or too many threads, a teacher for a recipe without one, a place
            where no folder can be, rows or a
            checkpoint of another recipe, a schedule that contradicts the steps already taken.
        FloatingPointError: the loss is NaN.
    """
    _check_threads(threads)
    out = Path(out)
    if out.name in ("", ".."):  # "." has no name of its own
        out = out.resolve()
    work = Path(work) if work is not None else out.with_name(out.name + "-work")
    check_folder("out", out)
    check_folder("work", work)
    work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(threads)
    teacher_folder = _teacher_folder(recipe, teacher)
    guide = None  # the teacher's decoder
    if teacher_folder is not None:
        guide = Decoder.from_pretrained(teacher_folder, device=device)
    tokenizer = None
    if sources is None:
        claim_work_folder(recipe, work, teacher_folder)
        tokenizer = prepare_tokenizer(recipe, teacher_folder or work)
        sources = prepare_rows(recipe, tokenizer, work)
        if guide is not None and "sampled" in recipe.sources:
            sources["sampled"] = _sampled(recipe, guide, sources, work)
    batches = Batches(recipe, sources)
    decoder = initial_decoder(recipe, device)
    optimizer = PairedOptimizer(decoder, recipe)
    checkpoint = work / "checkpoint.safetensors"
    step = 0
    if checkpoint.is_file():
        step = load_checkpoint(checkpoint, recipe, decoder, optimizer)
    last = recipe.steps if stop_after is None else min(stop_after, recipe.steps)
    log = work / "log.tsv"
    saved_at = time.monotonic()
    bar = tqdm(total=recipe.steps, initial=step, desc=recipe.name, unit="step")
    torn = False
    try:
        while step < last:
            inputs, targets = (t.to(device) for t in batches.at(step))
            student = first_layers(decoder, recipe.layers_at(step))
            loss = batch_loss(student, guide, inputs, targets)
            loss.backward()
            value = loss.item()
            if value != value:
                raise FloatingPointError(
                    f"loss is NaN at step {step}: the last good checkpoint is {checkpoint}; "
                    "lower the recipe's learning rates"
                )
            with interrupts_deferred():
                torn = True
                optimizer.step(recipe.rate(step))
                step += 1
                torn = False
                with log.open("a", encoding="utf-8") as file:
                    file.write(f"{step}\t{value:.4f}\t{time.process_time():.1f}\n")
            bar.update()
            bar.set_postfix(loss=f"{value:.3f}")
            if time.monotonic() - saved_at > checkpoint_seconds and all_finite(decoder):
                save_checkpoint(checkpoint, step, recipe, decoder, optimizer)
                saved_at = time.monotonic()
    finally:
        bar.close()
        # An optimizer that failed half-way has changed some weights, and a finite loss may have had
        # an infinite gradient: either way the older checkpoint is the good one.
        if not torn and all_finite(decoder):
            save_checkpoint(checkpoint, step, recipe, decoder, optimizer)
    if step == recipe.steps:
        save_decoder(decoder, out, torch.float16)
        if tokenizer is not None:
            tokenizer.save_pretrained(out)
        write_provenance(out, recipe, work, {name: len(r) for name, r in sources.items()})
    return out


def _check_threads(threads: int) -> None:
    if isinstance(threads, bool) or not isinstance(threads, int):
        raise TypeError(f"threads must be an int, got {type(threads).__name__}")
    cores = os.cpu_count() or 1
    if not 1 <= threads <= cores:
        raise ValueError(
            f"threads must lie between 1 and {cores} (the cores of this machine), got {threads}"
        )


def _teacher_folder(recipe: Recipe, teacher: str | Path | None) -> Path | None:
    if recipe.teacher is None:
        if teacher is not None:
            raise ValueError(f"recipe {recipe.name} learns from text alone: leave teacher out")
        return None
    return model_directory(recipe.teacher if teacher is None else teacher)


def _sampled(recipe: Recipe, teacher: Decoder, sources: dict[str, Rows], work: Path) -> Rows:
    path = work / "sampled.npy"
    if not path.is_file():
        tokens = recipe.sampled_tokens
        save_rows(path, sampled_rows(teacher, sources, recipe.sequence_length, tokens, recipe.seed))
    return load_rows(path)
