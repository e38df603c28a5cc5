"""Walking a model block by block, so that each layer is calibrated on what the quantised model
gives it: the errors of earlier layers are in the inputs, and later layers make up for them.

Replaying the whole model for each layer would cost layers / 2 forward passes. The inputs of one
block are kept instead: a block is run until its next layers are reached, those are changed, and
in the end its outputs become the inputs of the next.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from slmlab.quant.calibration import (
    LayerStatistics,
    batches,
    before_forward,
    calibrating,
    calibration_rows,
    collect_statistics,
    inputs_of,
    minimum_tokens,
    run,
)

Arguments = tuple[tuple[Any, ...], dict[str, Any]]  # positional and named


class _Reached(Exception):
    """Ends a forward pass: what was asked for is known, the rest would be thrown away."""


def decoder_blocks(model: nn.Module) -> dict[str, nn.Module]:
    """The repeated blocks of a decoder, by name, in the order in which they run.

    They are found as the ``nn.ModuleList`` that holds the most linear layers: ``layers`` of a
    Decoder, ``model.layers`` of a transformers Llama. A model without one is one block, "".
    Raises ValueError where one block stands in several places.
    """
    best: dict[str, nn.Module] = {"": model}
    most = 0
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList):
            linears = sum(isinstance(part, nn.Linear) for part in module.modules())
            if linears > most:
                most = linears
                best = {f"{name}.{i}": block for i, block in enumerate(module)}
    if len(set(map(id, best.values()))) < len(best):
        raise ValueError(
            f"model runs one block in several places ({', '.join(best)}), so its layers have several "
            "inputs: use method='rtn'"
        )
    return best


def walk(
    model: nn.Module,
    layers: dict[str, nn.Module],
    calibration: Tensor,
    visit: Callable[[str, LayerStatistics], None],
) -> None:
    """Call ``visit(name, statistics)`` for every layer, in the order in which they run.

    ``visit`` may change or replace the layer: the statistics of later layers come from the model
    as it then is. Layers outside the blocks, such as an untied head, come last. Layers that read
    the same input (q, k and v of a transformers model) are measured before any of them changes.

    layers: name -> linear module of ``model``. calibration: ids, see ``calibration_rows``.
    Raises ValueError for too few tokens and where the text never reaches a layer.
    """
    rows = calibration_rows(calibration, minimum_tokens(layers.values()), model)
    blocks = decoder_blocks(model)
    left = dict(layers)
    with calibrating(model):
        hidden, others = _record(model, list(blocks.values()), rows)
        for number, ((prefix, block), rest) in enumerate(zip(blocks.items(), others), start=1):
            replay = _Replay(block, hidden, rest)
            inside = f"{prefix}." if prefix else ""
            own = {name: layer for name, layer in left.items() if name.startswith(inside)}
            for names in replay.stages(own):
                statistics = replay.measure(own[names[0]])
                for name in names:
                    visit(name, statistics)
                    del left[name]
            if number < len(blocks):
                hidden = replay.outputs()
        for name, statistics in collect_statistics(model, left, rows).items():
            visit(name, statistics)


@dataclass
class _Replay:
    """One block and what it is called with: hidden states, and all other arguments, by batch."""

    block: nn.Module
    hidden: list[Tensor]
    rest: list[Arguments]

    def run(self, batch: int) -> Any:
        args, kwargs = self.rest[batch]
        return self.block(self.hidden[batch], *args, **kwargs)

    def stages(self, layers: dict[str, nn.Module]) -> list[list[str]]:
        """Names in running order; consecutive layers that read one tensor stand together."""
        stages: list[list[str]] = []
        seen: set[str] = set()
        last: list[Tensor] = []  # holds the tensor, so that no other one takes its identity

        def see(name: str, x: Tensor) -> None:
            if name in seen:
                return
            seen.add(name)
            if last and last[0] is x:
                stages[-1].append(name)
            else:
                stages.append([name])
            last[:] = [x]

        with before_forward(layers, see):
            self.run(0)
        return stages

    def measure(self, layer: nn.Module) -> LayerStatistics:
        """Statistics of the inputs of one layer; nothing that follows it runs."""
        statistics = LayerStatistics.empty(inputs_of(layer), self.hidden[0].device)

        def see(_: str, x: Tensor) -> None:
            statistics.add(x)
            raise _Reached

        with before_forward({"": layer}, see):
            for batch in range(len(self.hidden)):
                with suppress(_Reached):
                    self.run(batch)
        return statistics

    def outputs(self) -> list[Tensor]:
        """Hidden states for the next block, (rows, time, width) each."""
        results = [self.run(batch) for batch in range(len(self.hidden))]
        return [result[0] if isinstance(result, tuple) else result for result in results]


def _record(
    model: nn.Module, blocks: list[nn.Module], rows: Tensor
) -> tuple[list[Tensor], list[list[Arguments]]]:
    """Hidden states that enter the first block, and the other arguments of each, by batch."""
    hidden: list[Tensor] = []
    others: list[list[Arguments]] = [[] for _ in blocks]

    def hook_of(number: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if not args:  # some families pass the hidden states by name
                named = dict(kwargs)
                args, kwargs = (named.pop("hidden_states"),), named
            others[number].append((args[1:], kwargs))
            if number == 0:
                hidden.append(args[0])
            if number == len(blocks) - 1:
                raise _Reached

        return hook

    handles = [
        block.register_forward_pre_hook(hook_of(number), with_kwargs=True)
        for number, block in enumerate(blocks)
    ]
    try:
        for batch in batches(rows):
            with suppress(_Reached):
                run(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return hidden, others
