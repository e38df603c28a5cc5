"""Five ways to distil, from one start, with five seeds; and what more distillation does to a draft.

The student is tiny cut to the layers that its loss misses most. Hard labels, logits, top-k logits,
the teacher's text (sequence) and a share of the student's own text (on_policy) train it on the same
rows, once for equal tokens and once for equal processor seconds, where the steps of each method
come from what its runs for equal tokens cost. Then tiny-draft goes on learning, from logits or hard
labels, and its greedy acceptance against tiny is measured before and after. All judging is on
held-out text. Each finished run is kept in the work folder: an interrupted study goes on, and
deleting the folder starts anew. Prints tables; the last line is JSON.

    python benchmarks/distillation_study.py            about forty minutes
    python benchmarks/distillation_study.py --short    a few steps: does it run?
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor
from tqdm.auto import tqdm

from benchmarks._distillation_metrics import Judge, Size
from benchmarks._distillation_recipes import (
    DRAFT_PROMPT_TOKENS,
    DRAFT_RECIPES,
    DRAFT_TEXT_TEMPERATURE,
    DRAFT_WRITTEN_SHARE,
    LAYERS,
    RECIPES,
)
from benchmarks._distillation_rows import Pools, training_pools, written_rows
from benchmarks._distillation_runs import Ledger, Recipe, settings_of, train
from benchmarks._distillation_tables import METHODS, rises, show, summarise, summary, wins
from slmlab import load
from slmlab.data.corpus import ORIGINS, Origin
from slmlab.distill import loss_increase, student_from_layers
from slmlab.models import Decoder

WORK = Path("runs", "distillation_study")


@dataclass(frozen=True)
class Plan:
    """How much is run. steps: of every method for equal tokens. pool_rows: of each domain, to draw
    from. written_rows: by the teacher, for the draft; each seed takes some of them."""

    seeds: int
    steps: int
    draft_steps: int
    batch_size: int
    pool_rows: int
    written_rows: int
    size: Size
    origins: tuple[Origin, ...] = ORIGINS


FULL = Plan(5, 40, 120, 8, 4000, 1200, Size(rows=48, tool_calls=100, prompts=50, new_tokens=64))
SHORT = Plan(1, 2, 2, 2, 24, 4, Size(2, 1, 1, 6), (Origin("tqdm"), Origin("rich")))


class Study:
    """The models, the texts, and one method for every part of the JSON object."""

    def __init__(self, plan: Plan, ledger: Ledger) -> None:
        self.plan, self.ledger = plan, ledger
        self.lm, self.draft = load("tiny"), load("tiny-draft").model
        self.teacher = self.lm.model
        self.start = student_from_layers(self.teacher, LAYERS)
        self.recipes = _sized(RECIPES, plan.batch_size)
        self.draft_recipes = _sized(DRAFT_RECIPES, plan.batch_size)
        self.draft.requires_grad_()
        self.judge = Judge(self.lm, plan.size)
        self.pools = training_pools(self.lm, plan.origins, plan.pool_rows)
        self._judged_by = self.judge.digest()
        self._start_kl = self.judge.kl(self.start)

    def teacher_facts(self) -> dict[str, Any]:
        """The same metrics for the teacher: what a perfect student would have."""
        found = self.judge.metrics(self.teacher)
        return {**found, "parameters": parameters(self.teacher)}

    def start_facts(self) -> dict[str, Any]:
        found = self.judge.metrics(self.start)
        return {**found, "layers": list(LAYERS), "parameters": parameters(self.start)}

    def cuts(self) -> dict[str, Any]:
        """What speaks for `LAYERS`: each layer's loss increase on training rows, nats a token, and
        every pair of layers with its held-out KL before any training."""
        count = len(self.teacher.layers)
        rows = self.pools.sample(self.plan.size.rows, self.plan.seeds)
        return {
            "loss_increase": loss_increase(self.teacher, rows).tolist(),
            "pairs": [
                {"layers": list(keep), "kl": self.judge.kl(student_from_layers(self.teacher, keep))}
                for keep in combinations(range(count), len(LAYERS))
            ],
        }

    def five_ways(self) -> list[dict[str, Any]]:
        """Every run for equal tokens, then every run for equal processor seconds."""
        seeds = range(self.plan.seeds)
        steps = dict.fromkeys(METHODS, self.plan.steps)
        equal = [self._run("tokens", m, seed, steps[m]) for seed in seeds for m in METHODS]
        steps = steps_for_equal_cpu(equal)
        for seed in seeds:
            for method in METHODS:
                if method == "logits":  # the measure of both budgets
                    same = next(r for r in equal if (r["method"], r["seed"]) == (method, seed))
                    equal.append({**same, "budget": "cpu"})
                else:
                    equal.append(self._run("cpu", method, seed, steps[method]))
        return equal

    def _run(self, budget: str, method: str, seed: int, steps: int) -> dict[str, Any]:
        recipe = self.recipes[method]
        rows = self.pools.sample(steps * recipe.batch_size, seed)
        settings = settings_of(recipe, rows, self.start, self.teacher, **self._more(seed, steps))

        def make() -> dict[str, Any]:
            student = student_from_layers(self.teacher, LAYERS)
            done = train(
                student,
                self.teacher,
                rows,
                recipe,
                steps=steps,
                seed=seed,
                kl=self.judge.kl,
                start_kl=self._start_kl,
            )
            return {**dataclasses.asdict(done), "metrics": self.judge.metrics(student)}

        found = self.ledger.run(f"{budget}-{method}-{seed}", settings, make)
        return {"budget": budget, "method": method, "seed": seed, **found}

    def _more(self, seed: int, steps: int) -> dict[str, Any]:
        return {"seed": seed, "steps": steps, "judged_by": self._judged_by}

    def draft_runs(self) -> dict[str, Any]:
        """What more training does to tiny-draft's acceptance."""
        before = {**self.judge.acceptances(self.draft), "kl": self.judge.kl(self.draft)}
        written = self._written()
        runs = [
            self._draft_run(method, seed, written)
            for seed in range(self.plan.seeds)
            for method in self.draft_recipes
        ]
        rows: dict[str, list[dict[str, float]]] = {method: [] for method in self.draft_recipes}
        for run in runs:
            rows[run["method"]].append({**run["acceptance"], "kl": run["kl"]})
        return {
            "before": before,
            "runs": runs,
            "summary": {method: summary(each) for method, each in rows.items()},
            "raised": rises(before, runs),
        }

    def _written(self) -> Tensor:
        """Rows that the teacher continued, kept like a run: writing them takes minutes."""
        rows = self.pools.sample(self.plan.written_rows, self.plan.seeds)
        how = (DRAFT_PROMPT_TOKENS, DRAFT_TEXT_TEMPERATURE, self.plan.seeds)
        recipe = next(iter(self.draft_recipes.values()))
        settings = settings_of(recipe, rows, self.draft, self.teacher, how=list(how))
        kept = self.ledger.run(
            "draft-text", settings, lambda: {"rows": written_rows(self.lm, rows, *how).tolist()}
        )
        return torch.tensor(kept["rows"])

    def _draft_run(self, method: str, seed: int, written: Tensor) -> dict[str, Any]:
        recipe, steps = self.draft_recipes[method], self.plan.draft_steps
        rows = draft_rows(self.pools, written, steps * recipe.batch_size, seed)
        settings = settings_of(recipe, rows, self.draft, self.teacher, **self._more(seed, steps))

        def make() -> dict[str, Any]:
            student = load("tiny-draft").model.requires_grad_()
            done = train(student, self.teacher, rows, recipe, steps=steps, seed=seed)
            after = self.judge.acceptances(student)
            return {
                "steps": done.steps,
                "tokens": done.tokens,
                "cpu_seconds": done.cpu_seconds,
                "acceptance": {domain: each["rate"] for domain, each in after.items()},
                "standard_error": {d: each["standard_error"] for d, each in after.items()},
                "kl": self.judge.kl(student),
            }

        return {
            "method": method,
            "seed": seed,
            **self.ledger.run(f"draft-{method}-{seed}", settings, make),
        }


def draft_rows(pools: Pools, written: Tensor, rows: int, seed: int) -> Tensor:
    """(rows, T): a share of what the teacher wrote, and given text."""
    count = min(int(rows * DRAFT_WRITTEN_SHARE), len(written))
    order = torch.randperm(len(written), generator=torch.Generator().manual_seed(seed))
    return torch.cat((written[order[:count]], pools.sample(rows - count, seed)))


def _sized(recipes: dict[str, Recipe], batch_size: int) -> dict[str, Recipe]:
    return {
        name: dataclasses.replace(each, batch_size=batch_size) for name, each in recipes.items()
    }


def steps_for_equal_cpu(runs: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Steps that cost each method, over the seeds, what logits cost for equal tokens."""

    def seconds(method: str) -> float:
        return sum(run["cpu_seconds"] for run in runs if run["method"] == method)

    steps = {run["method"]: run["steps"] for run in runs}
    return {m: max(1, round(steps[m] * seconds("logits") / seconds(m))) for m in steps}


def parameters(model: Decoder) -> int:
    """How many, the tied head once."""
    return sum(parameter.numel() for parameter in model.parameters())


def measure(plan: Plan, work: Path) -> dict[str, Any]:
    """The JSON object."""
    total = plan.seeds * (2 * len(METHODS) - 1 + len(DRAFT_RECIPES)) + 1
    with tqdm(total=total, desc="distillation study", unit="run") as bar:
        study = Study(plan, Ledger(work, bar))
        runs = study.five_ways()
        draft = study.draft_runs()
        teacher, start, cuts = study.teacher_facts(), study.start_facts(), study.cuts()
    return {
        "threads": torch.get_num_threads(),
        "plan": {**dataclasses.asdict(plan), "origins": [each.package for each in plan.origins]},
        "recipes": _described(study.recipes),
        "teacher": teacher,
        "start": start,
        "cuts": cuts,
        "runs": runs,
        "summary": summarise(runs),
        "logits_beat_hard": wins(runs),
        "draft": {**draft, "recipes": _described(study.draft_recipes)},
    }


def _described(recipes: dict[str, Recipe]) -> dict[str, Any]:
    return {name: dataclasses.asdict(recipe) for name, recipe in recipes.items()}


def rounded(value: Any) -> Any:
    """The same with every float at five decimals: more are noise."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return round(value, 5) if isinstance(value, float) else value


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--short", action="store_true", help="a few steps")
    parser.add_argument("--work", type=Path, help=f"where runs are kept (default: {WORK})")
    given = parser.parse_args(arguments)
    plan = SHORT if given.short else FULL
    work = given.work or WORK / ("short" if given.short else "full")
    torch.set_num_threads(1)
    measured = rounded(measure(plan, work))
    show(measured, Console(width=140))
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
