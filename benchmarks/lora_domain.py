"""A small model that is good at one domain: LoRA, full fine-tuning, or a distilled student of two layers.

From tiny, on commands to a greenhouse (seven tools that tiny has never seen), at equal tokens and with
several seeds: (a) tiny as it is; (b) LoRA on all linear layers but the head, with peft, on the hard labels;
(c) all weights, on the hard labels; (d) two layers cut from (b)'s model and distilled from it. Of each:
bits a byte and right calls on held-out commands of the domain; bits a byte of prose and right calls of
tiny's own tools, which tell what was forgotten; what it costs to train, to store and to decode. First the
adapters are checked: fresh ones change nothing, merged ones compute as separate ones do. Then each
way's learning rate is chosen from three, on training commands that its run did not see. A bar runs on
stderr; Ctrl-C shows the runs that are done. Prints a table; the last line is JSON.

    python benchmarks/lora_domain.py            about a quarter of an hour
    python benchmarks/lora_domain.py --short    a few rows: does it run?
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from tqdm.auto import tqdm

from benchmarks._lora_checks import check_adapters
from benchmarks._lora_rates import RATES, search
from benchmarks._lora_scores import Exam, decode_ratio
from benchmarks._lora_text import TOOLS, training_rows
from benchmarks._lora_ways import (
    ALPHA,
    BATCH,
    RANK,
    Tuned,
    best_layers,
    full,
    lora,
    quietly,
    student,
)
from slmlab import load
from slmlab.generation import LanguageModel

WAYS = ("tiny", "lora", "full", "student")


@dataclass(frozen=True)
class Plan:
    """rows of time tokens, seen once; held_out: commands of the domain that judge, answered: of them
    and of tiny's own tools, how many are answered; prose_bytes of text outside; decoded: tokens; rates: how many are tried."""

    seeds: int
    rows: int
    time: int
    held_out: int
    answered: int
    prose_bytes: int
    decoded: int
    rates: int = 3


FULL = Plan(3, 320, 128, 100, 50, 12_000, 48)
SHORT = Plan(1, 4, 32, 3, 2, 400, 4, rates=1)


class Study:
    """All runs of a plan; `runs` holds those that are done, by way."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.lm = plan, load("tiny")
        self.exam = Exam(self.lm.tokenizer, plan.held_out, plan.answered, plan.prose_bytes)
        self.rates: dict[str, dict[str, Any]] = {}
        self.runs: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
        self.student_layers: list[list[int]] = []
        self.finished = False

    def run(self) -> None:
        plan = self.plan
        tried = {way: values[: plan.rates] for way, values in RATES.items()}
        self.rates = search(self.lm.tokenizer, plan.rows, plan.time, tried)
        rate = {way: found["chosen"] for way, found in self.rates.items()}
        with tqdm(total=1 + 3 * plan.seeds, desc="lora_domain", unit="run") as bar:
            bar.set_postfix_str("tiny")
            self._keep("tiny", Tuned(self.lm.model, 0, 0, 0.0), 0)
            bar.update()
            for seed in range(plan.seeds):
                rows = training_rows(self.lm.tokenizer, plan.rows, plan.time, seed)
                bar.set_postfix_str(f"lora, seed {seed}")
                teacher: Tuned = quietly(partial(lora, rows, seed, rate["lora"]))
                self._keep("lora", teacher, seed)
                bar.update()
                bar.set_postfix_str(f"student, seed {seed}")
                self.student_layers.append(best_layers(teacher.model, rows))
                cut = student(rows, seed, teacher, self.student_layers[-1], rate["student"])
                self._keep("student", cut, seed)
                bar.update()
                bar.set_postfix_str(f"full, seed {seed}")
                self._keep("full", full(rows, seed, rate["full"]), seed)
                bar.update()
        self.finished = True

    def _keep(self, way: str, tuned: Tuned, seed: int) -> None:
        model = tuned.model
        self.runs[way].append(
            {
                "seed": seed,
                **self.exam.of(LanguageModel(model, self.lm.tokenizer)),
                "trained_parameters": tuned.trained,
                "stored_bytes": tuned.stored_bytes,
                "optimizer_bytes": tuned.optimizer_bytes,
                "cpu_seconds": round(tuned.cpu_seconds, 2),
                "teacher_cpu_seconds": round(tuned.teacher_cpu_seconds, 2),
                "decode_over_tiny": round(decode_ratio(model, self.lm.model, self.plan.decoded), 3),
            }
        )

    def ways(self) -> dict[str, Any]:
        return {
            way: {"runs": runs, "summary": summary(runs)} for way, runs in self.runs.items() if runs
        }

    def sizes(self) -> dict[str, Any]:
        return {
            "tools": len(TOOLS),
            "training_rows": self.plan.rows,
            "trained_tokens": self.plan.rows * self.plan.time,
            "steps": self.plan.rows // BATCH,
            **self.exam.sizes(),
        }


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation over the seeds of every number but the seed."""
    found = {}
    for metric in runs[0].keys() - {"seed"}:
        values = [float(run[metric]) for run in runs]
        sd = statistics.stdev(values) if len(values) > 1 else 0.0
        mean = statistics.fmean(values)
        found[metric] = {"mean": round(mean, 4), "sd": round(sd, 4), "n": len(values)}
    return found


def show(ways: dict[str, Any], console: Console) -> None:
    columns = {
        "domain_bits_per_byte": "domain bits/byte",
        "domain_accuracy": "domain calls",
        "outside_bits_per_byte": "prose bits/byte",
        "outside_accuracy": "own calls",
        "cpu_seconds": "CPU-s",
        "decode_over_tiny": "decode / tiny",
    }
    table = Table("way", *columns.values(), "trained", "stored MB", "optimizer MB")
    for name, way in ways.items():
        of = way["summary"]
        cells = [f"{of[key]['mean']:.3f} ± {of[key]['sd']:.3f}" for key in columns]
        table.add_row(
            name,
            *cells,
            f"{of['trained_parameters']['mean']:,.0f}",
            f"{of['stored_bytes']['mean'] / 1e6:.2f}",
            f"{of['optimizer_bytes']['mean'] / 1e6:.2f}",
        )
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--short", action="store_true", help="one seed, a few rows")
    plan = SHORT if parser.parse_args(arguments).short else FULL
    torch.set_num_threads(1)
    study = Study(plan)
    adapters = quietly(lambda: check_adapters(study.exam.ids[:2]))
    console = Console(width=150)
    try:
        study.run()
    except KeyboardInterrupt:
        show(study.ways(), console)
        console.print("interrupted: these runs were done, nothing is stored")
        sys.exit(130)
    ways = study.ways()
    show(ways, console)
    measured = {
        "threads": torch.get_num_threads(),
        "domain": "greenhouse tool calls",
        "sizes": study.sizes(),
        "plan": asdict(plan),
        "lora": {"rank": RANK, "alpha": ALPHA, "batch": BATCH},
        "learning_rates": study.rates,
        "student_layers": study.student_layers,
        "adapters": adapters,
        "ways": ways,
    }
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
