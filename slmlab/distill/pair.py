"""Whether a student can learn from a teacher: asked before the first step."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from slmlab.distill.forward import vocabulary_of
from slmlab.distill.vocabulary import check_same_vocabulary


def check_pair(student: nn.Module, teacher: nn.Module | None) -> int:
    """The vocabulary of both.

    Raises ValueError for models of different vocabularies, a student that shares weights with its
    teacher, has none to train, or is in float16; TypeError for what is no model.
    """
    vocabulary = vocabulary_of("student", student)
    if teacher is not None:
        check_same_vocabulary(student, teacher)
        theirs = {p.data_ptr() for p in teacher.parameters()}
        if any(p.data_ptr() in theirs for p in student.parameters()):
            raise ValueError(
                "student shares weights with its teacher, which training would change: copy it, as "
                "student_from_layers does"
            )
    trained = [p for p in student.parameters() if p.requires_grad]
    if not trained:
        raise ValueError(
            "student has no parameter that requires a gradient: Decoder.from_pretrained freezes "
            "them, student.requires_grad_() makes them trainable"
        )
    if any(p.dtype == torch.float16 for p in trained):
        raise ValueError(
            "student is in float16, whose small gradients vanish: load it in float32 or bfloat16"
        )
    return vocabulary


def check_room(time: int, **models: nn.Module | None) -> None:
    """ValueError where rows of ``time`` inputs are longer than a model's positions."""
    for name, model in models.items():
        room = getattr(getattr(model, "config", None), "max_position_embeddings", None)
        if room is not None and time > room:
            raise ValueError(
                f"rows feed {time} tokens to the {name}, which has {room} positions: cut them"
            )


def fingerprint(model: nn.Module | None) -> str:
    """Of the names, shapes and first values of all weights: cheap, and enough to tell two models
    apart. "none" without a model."""
    if model is None:
        return "none"
    found = hashlib.sha256()
    for name, parameter in model.named_parameters():
        found.update(f"{name}{tuple(parameter.shape)}".encode())
        first = parameter.detach()[:1].flatten()[:64] if parameter.dim() else parameter.detach()
        found.update(first.double().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
