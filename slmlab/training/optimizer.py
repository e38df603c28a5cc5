"""Muon on the matrices, AdamW on the embedding and the norms.

Muon (Jordan et al. 2024) orthogonalises each matrix's momentum before the step; embeddings and
gains have no such geometry and keep AdamW. Both come from torch. A fused product is stepped as the
matrices it was fused from: orthogonalised as one, queries, keys and values would share a single
budget of directions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from slmlab.models import Decoder, ModelConfig
from slmlab.training.recipe import Recipe


class PairedOptimizer:
    """The two optimizers stepped together, their state readable as plain tensors."""

    def __init__(self, decoder: Decoder, recipe: Recipe) -> None:
        named = dict(decoder.named_parameters())
        embedding = {n: p for n, p in named.items() if "embed" in n or "lm_head" in n}
        gains = {n: p for n, p in named.items() if p.dim() == 1}
        matrices = {n: p for n, p in named.items() if n not in embedding and n not in gains}
        self._decoder = decoder
        # Each matrix with the parameters that Muon steps instead: views of its rows.
        self._parts = {
            name: [nn.Parameter(rows) for rows in matrix.data.split(_rows(name, decoder.config))]
            if _is_fused(name)
            else [matrix]
            for name, matrix in matrices.items()
        }
        self._matrices = matrices
        stepped = {
            f"{name}[{index}]" if len(parts) > 1 else name: part
            for name, parts in self._parts.items()
            for index, part in enumerate(parts)
        }
        self._rates = (recipe.muon_lr, recipe.embedding_lr, recipe.norm_lr)
        self.muon = torch.optim.Muon(
            stepped.values(), lr=recipe.muon_lr, weight_decay=recipe.weight_decay, momentum=0.95
        )
        self.adam = torch.optim.AdamW(
            [
                {"params": list(embedding.values()), "lr": recipe.embedding_lr},
                {"params": list(gains.values()), "lr": recipe.norm_lr},
            ],
            betas=(0.9, 0.95),
            eps=1e-10,
            weight_decay=0.0,
        )
        self._slots: dict[str, tuple[torch.optim.Optimizer, nn.Parameter]] = {
            **{name: (self.muon, part) for name, part in stepped.items()},
            **{name: (self.adam, p) for name, p in {**embedding, **gains}.items()},
        }

    def step(self, rate: float) -> None:
        """One update at ``rate`` times the recipe's learning rates; clears the gradients."""
        groups = [*self.muon.param_groups, *self.adam.param_groups]
        for group, peak in zip(groups, self._rates, strict=True):
            group["lr"] = peak * rate
        for name, parts in self._parts.items():
            gradient = self._matrices[name].grad
            if len(parts) > 1 and gradient is not None:
                for part, rows in zip(parts, gradient.split([len(p) for p in parts]), strict=True):
                    part.grad = rows
        self.muon.step()
        self.adam.step()
        self.muon.zero_grad(set_to_none=True)
        self._decoder.zero_grad(set_to_none=True)

    def state_tensors(self) -> dict[str, Tensor]:
        """Momenta as ``{parameter}/{slot}``, of a part as ``{parameter}[{index}]/{slot}``."""
        return {
            f"{name}/{slot}": torch.as_tensor(value)
            for name, (optimizer, parameter) in self._slots.items()
            for slot, value in optimizer.state.get(parameter, {}).items()
        }

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of :meth:`state_tensors`."""
        for key, value in tensors.items():
            name, _, slot = key.rpartition("/")
            optimizer, parameter = self._slots[name]
            optimizer.state[parameter][slot] = value.clone()


def _is_fused(name: str) -> bool:
    return name.endswith(("qkv_proj.weight", "gate_up_proj.weight"))


def _rows(name: str, config: ModelConfig) -> list[int]:
    """Rows of each matrix that a fused one was stacked from."""
    if name.endswith("gate_up_proj.weight"):
        return [config.intermediate_size] * 2
    keys = config.num_key_value_heads * config.head_dim
    return [config.num_attention_heads * config.head_dim, keys, keys]
