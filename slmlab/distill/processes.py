"""What a run asks of the processes it runs on: `accelerate`'s names, and their meaning for one."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Processes(Protocol):
    """The part of ``accelerate.Accelerator`` that `Distiller` uses."""

    num_processes: int
    process_index: int
    is_main_process: bool
    device: torch.device

    def prepare(self, *objects: Any) -> Any: ...

    def reduce(self, tensor: Tensor, reduction: str) -> Any: ...

    def backward(self, loss: Tensor) -> None: ...

    def clip_grad_norm_(self, parameters: Any, max_norm: float) -> Any: ...


class OneProcess:
    """No launcher: everything stays where it is."""

    num_processes = 1
    process_index = 0
    is_main_process = True

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def prepare(self, *objects: Any) -> Any:
        return objects

    def reduce(self, tensor: Tensor, reduction: str) -> Tensor:
        return tensor

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def clip_grad_norm_(self, parameters: Any, max_norm: float) -> Tensor:
        return nn.utils.clip_grad_norm_(parameters, max_norm)
