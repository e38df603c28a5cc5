"""Muon on the matrices, AdamW on the embedding and the norms.

Muon (Jordan et al. 2024) orthogonalises each matrix's momentum before the step; embeddings and
gains have no such geometry and keep AdamW. Both come from torch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from slmlab.models import Decoder
from slmlab.training.recipe import Recipe


class PairedOptimizer:
    """The two optimizers stepped together, their state readable as plain tensors."""

    def __init__(self, decoder: Decoder, recipe: Recipe) -> None:
        named = dict(decoder.named_parameters())
        self._names = list(named)
        embedding = [p for name, p in named.items() if "embed" in name or "lm_head" in name]
        gains = [p for p in named.values() if p.dim() == 1]
        taken = {id(p) for p in embedding + gains}
        matrices = [p for p in named.values() if id(p) not in taken]
        self._parameters = named
        self._rates = (recipe.muon_lr, recipe.embedding_lr, recipe.norm_lr)
        self.muon = torch.optim.Muon(
            matrices, lr=recipe.muon_lr, weight_decay=recipe.weight_decay, momentum=0.95
        )
        self.adam = torch.optim.AdamW(
            [
                {"params": embedding, "lr": recipe.embedding_lr},
                {"params": gains, "lr": recipe.norm_lr},
            ],
            betas=(0.9, 0.95),
            eps=1e-10,
            weight_decay=0.0,
        )

    def step(self, rate: float) -> None:
        """One update at ``rate`` times the recipe's learning rates; clears the gradients."""
        groups = [*self.muon.param_groups, *self.adam.param_groups]
        for group, peak in zip(groups, self._rates, strict=True):
            group["lr"] = peak * rate
        self.muon.step()
        self.adam.step()
        self.muon.zero_grad(set_to_none=True)
        self.adam.zero_grad(set_to_none=True)

    def state_tensors(self) -> dict[str, Tensor]:
        """Momenta as ``{parameter}/{slot}``."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in self._parameters.items():
            for optimizer in (self.muon, self.adam):
                for slot, value in optimizer.state.get(parameter, {}).items():
                    tensors[f"{name}/{slot}"] = torch.as_tensor(value)
        return tensors

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of :meth:`state_tensors`."""
        matrices = {id(p) for p in self.muon.param_groups[0]["params"]}
        for key, value in tensors.items():
            name, _, slot = key.rpartition("/")
            parameter = self._parameters[name]
            optimizer = self.muon if id(parameter) in matrices else self.adam
            optimizer.state[parameter][slot] = value.clone()
