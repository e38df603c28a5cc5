"""Hidden-state matching: the student's layers are pulled towards some of the teacher's.

FitNets (Romero et al. 2015, arXiv:1412.6550) trains a student's layer to predict a teacher's through
a learned regressor, as the widths differ. TinyBERT (Jiao et al. 2020, arXiv:1909.10351, section 3)
does so for every layer, with a linear map and a rule for which layer learns from which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from slmlab.models.fields import check_whole


def uniform_layer_map(student_layers: int, teacher_layers: int) -> dict[int, int]:
    """Student's hidden state -> teacher's, evenly spaced: the embeddings (0) to the embeddings, the
    last to the last.

    TinyBERT's g(m) = m * teacher_layers / student_layers, rounded to the nearest, half upwards.
    """
    check_whole("student_layers", student_layers)
    check_whole("teacher_layers", teacher_layers)
    return {
        layer: (2 * layer * teacher_layers + student_layers) // (2 * student_layers)
        for layer in range(student_layers + 1)
    }


class HiddenStateLoss(nn.Module):
    """Mean squared error between projected student states and teacher states.

    Args:
        student_width, teacher_width: channels of a hidden state.
        layer_map: student's hidden state -> teacher's, counted as models return them: 0 is the
            embedding's output, L the output of the last layer behind the final norm.
        seed: of the projectors' weights.

    One ``nn.Linear`` without bias a mapped layer: its weights are trained with the student and
    thrown away after. It is there at equal widths too, and starts as the identity then: channels
    have no fixed meaning, so a student that was not cut from its teacher needs the freedom.

    Raises ValueError for an empty map, negative layers, widths below 1.
    """

    def __init__(
        self,
        student_width: int,
        teacher_width: int,
        layer_map: Mapping[int, int],
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_whole("student_width", student_width)
        check_whole("teacher_width", teacher_width)
        if not layer_map:
            raise ValueError("layer_map is empty: map at least one student layer to a teacher's")
        for ours, theirs in layer_map.items():
            check_whole("layer_map key", ours, at_least=0)
            check_whole("layer_map value", theirs, at_least=0)
        self.layer_map = dict(sorted(layer_map.items()))
        self.projectors = nn.ModuleList()
        generator = torch.Generator().manual_seed(seed)
        for _ in self.layer_map:
            projector = nn.Linear(student_width, teacher_width, bias=False)
            with torch.no_grad():
                projector.weight.normal_(0.0, student_width**-0.5, generator=generator)
                if student_width == teacher_width:
                    nn.init.eye_(projector.weight)
            self.projectors.append(projector)

    def forward(
        self,
        student_states: Sequence[Tensor],
        teacher_states: Sequence[Tensor],
        mask: Tensor | None = None,
    ) -> Tensor:
        """Mean over mapped layers, positions where ``mask`` is True, and channels.

        student_states: tensors (B, T, student_width); teacher_states: (B, T, teacher_width), no
        gradient reaches them; mask: (B, T) bool. Returns a scalar.

        Raises ValueError for a layer that a model lacks, or shapes that do not fit.
        """
        losses = []
        for (ours, theirs), projector in zip(self.layer_map.items(), self.projectors, strict=True):
            if ours >= len(student_states) or theirs >= len(teacher_states):
                raise ValueError(
                    f"layer_map sends student state {ours} to teacher state {theirs}; the models "
                    f"return {len(student_states)} and {len(teacher_states)}, counted from 0"
                )
            student, teacher = student_states[ours], teacher_states[theirs].detach()
            if student.shape[:-1] != teacher.shape[:-1]:
                raise ValueError(
                    f"student states {tuple(student.shape)} and teacher states "
                    f"{tuple(teacher.shape)} cover different positions: give both the same ids"
                )
            if mask is not None:
                student, teacher = student[mask], teacher[mask]  # (positions, width)
            losses.append(functional.mse_loss(projector(student), teacher))
        return torch.stack(losses).mean()
