"""Whole steps timed in turns, and whether all ways take the same step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks._distill_trl import Trl
from benchmarks._distill_ways import Seen, Way
from slmlab.measure.timing import time_once
from slmlab.models import ModelConfig

STEPS = 3  # after which weights are compared


@dataclass(frozen=True)
class Limits:
    """Relative differences that are rounding. weights: as a share of the way that they went; AdamW's
    first steps are signs of gradients, which spreads what differs in those close to 0."""

    loss: float
    gradient: float
    weights: float


FLOAT32 = Limits(1e-5, 1e-4, 1e-3)
# A bfloat16 teacher's logits carry 8 bits, rounded at other places by another library.
BFLOAT16 = Limits(2e-3, 0.03, 0.1)


@dataclass
class Laps:
    """Seconds of each round's step: by the clock, and of this process."""

    wall: list[float] = field(default_factory=list)
    process: list[float] = field(default_factory=list)

    def add(self, seconds: tuple[float, float]) -> None:
        self.wall.append(seconds[0])
        self.process.append(seconds[1])


def equal_results(
    ways: Sequence[Way], config: ModelConfig, limits: Limits = FLOAT32
) -> dict[str, Any]:
    """How far each way's loss, gradients and weights are from the first one's.

    loss: relative. gradient: largest difference over the largest gradient of its tensor, the worst
    tensor. weights: after STEPS steps, distance over the distance that the first way went.
    Raises ValueError where one differs by more than its limit.
    """
    found: dict[str, Any] = {}
    reference: tuple[float, dict[str, Tensor], dict[str, Tensor], float] | None = None
    for way in ways:
        with Seen(way, config) as seen:
            before = seen.weights
            loss = way.step()
            gradients = seen.gradients
        for _ in range(STEPS - 1):
            way.step()
        weights = seen.weights
        if reference is None:
            reference = loss, gradients, weights, _distance(weights, before)
            continue
        wanted_loss, wanted, wanted_weights, went = reference
        if wanted.keys() != gradients.keys():
            raise ValueError(f"{way.name} trains other tensors than {ways[0].name}")
        row = {
            "loss": abs(loss - wanted_loss) / abs(wanted_loss),
            "gradient": max(
                float((gradients[name] - g).abs().max() / g.abs().max())
                for name, g in wanted.items()
            ),
            "weights": _distance(weights, wanted_weights) / went,
        }
        for what, limit in asdict(limits).items():
            if not row[what] <= limit:
                raise ValueError(
                    f"{way.name} takes another step than {ways[0].name}: {what} differs by "
                    f"{row[what]:.2g}, at most {limit:g} is rounding; its speed is not comparable"
                )
        found[way.name] = {name: float(f"{value:.3g}") for name, value in row.items()}
    return {"steps": STEPS, "limits": asdict(limits), "differences": found}


def _distance(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    return float(sum(((a[name] - b[name]).double() ** 2).sum() for name in a)) ** 0.5


class Rounds:
    """In a round every way takes one step, and one large product is timed: in one order, then in the
    other. A trainer that owns its loop is the host, and the others run between its steps."""

    def __init__(self, ways: Sequence[Way], product: int) -> None:
        """product: rows of the square matrices."""
        self._ways = [way for way in ways if not isinstance(way, Trl)]
        self._host = next((way for way in ways if isinstance(way, Trl)), None)
        self._matrices = torch.randn(2, product, product)
        self.laps = {way.name: Laps() for way in ways}
        self.product = Laps()

    def run(self, repeats: int, warmup: int = 1) -> None:
        if self._host is None:
            for turn in range(-warmup, repeats):
                self._turn(turn)
            return
        turn, start = -warmup, (time.perf_counter(), time.process_time())

        def between(_: float) -> None:
            nonlocal turn, start
            taken = time.perf_counter() - start[0], time.process_time() - start[1]
            assert self._host is not None
            if turn >= 0:
                self.laps[self._host.name].add(taken)
            self._turn(turn)
            turn += 1
            start = time.perf_counter(), time.process_time()

        self._host.run(repeats + warmup, between)

    def _turn(self, turn: int) -> None:
        for way in self._ways if turn % 2 == 0 else reversed(self._ways):
            taken = time_once(way.step)
            if turn >= 0:
                self.laps[way.name].add(taken)
        left, right = self._matrices
        self.product.add(time_once(lambda: left @ right))

    def over(self, name: str, rival: str) -> dict[str, Any]:
        """How many times as fast as ``rival`` a way is: median and range of the rounds, by processor
        time and by the clock."""
        found: dict[str, Any] = {}
        for by in ("process", "wall"):
            ratios = [
                theirs / ours
                for theirs, ours in zip(
                    getattr(self.laps[rival], by), getattr(self.laps[name], by), strict=True
                )
            ]
            found[by] = [round(x, 3) for x in (median(ratios), min(ratios), max(ratios))]
        (ratio, low, high), (wall, wall_low, wall_high) = found["process"], found["wall"]
        return {
            "ratio": ratio, "low": low, "high": high, "n": len(self.laps[name].process),
            "wall_ratio": wall, "wall_low": wall_low, "wall_high": wall_high,
        }  # fmt: skip
