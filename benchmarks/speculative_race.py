"""Speculative decoding on one thread: slmlab, transformers and llama.cpp on the same pair.

tiny with tiny-draft in float32, beginnings of documentation, code and tool calls; documentation
also at temperature 0.7. Every prompt is answered by all ways in turn before the next one; a ratio
is of the seconds for all prompts, with a bootstrap interval over the prompts, by the clock and by
processor time (the one to trust where others use the core). Greedy answers are compared with
plain decoding's. Beside each speed-up stands what the formula of Leviathan et al. 2023 makes of
the acceptance rate and the costs, all measured in this run. Prints tables; the last line is JSON.

    python benchmarks/speculative_race.py            about five minutes
    python benchmarks/speculative_race.py --short    a few tokens: does it run?
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers.utils import logging

from benchmarks._llama_cpp import missing
from benchmarks._speculative_agreement import check, compare
from benchmarks._speculative_costs import (
    acceptance,
    chosen,
    costs,
    predict,
    speedup_in_rounds,
    step_ms,
)
from benchmarks._speculative_domains import PROMPT_TOKENS, SETS, Domain, domain
from benchmarks._speculative_llama import llama_ways
from benchmarks._speculative_rounds import Laps, race, rates, speedup
from benchmarks._speculative_tables import aims_of, show
from benchmarks._speculative_ways import (
    Generate,
    Plain,
    Speculative,
    Way,
    assistant,
    load_transformers,
)
from slmlab import load
from slmlab.generation import LanguageModel
from slmlab.models import model_directory
from slmlab.speculative import AdaptiveLength, PromptLookup, layer_skip_draft

FIXED = 4  # draft length of every rival that takes one, of prompt lookup too
SKIP_LAYERS, SKIP_LENGTH = 2, 2
TEMPERATURE = 0.7


@dataclass(frozen=True)
class Plan:
    """How much is run. new_tokens: at most, an answer. lengths: draft lengths of tiny-draft, at
    temperature 0 and above."""

    prompts: int
    new_tokens: int
    lengths: tuple[int, ...]
    sampled_lengths: tuple[int, ...]


FULL = Plan(20, 64, (2, 3, 4, 5, 6, 8), (1, 2, 3, 4))
SHORT = Plan(2, 10, (2, 4), (2,))


class Entrants:
    """Loads all that race. `ways` are in an order that keeps neighbours comparable."""

    def __init__(self, plan: Plan, scratch: Path) -> None:
        self.plan = plan
        self.lm, self.draft = load("tiny"), load("tiny-draft")
        self.lm.model.pack()  # as speculation does: plain decoding's prompt pass gains by it too
        hf = load_transformers(model_directory("tiny"))
        self._rivals: list[Way] = [
            Generate("transformers", hf),
            Generate("transformers assisted", hf, assistant_model=assistant("tiny-draft")),
            Generate(
                f"transformers assisted {FIXED}",
                hf,
                assistant_model=assistant("tiny-draft", FIXED),
            ),
            Generate(f"transformers lookup {FIXED}", hf, prompt_lookup_num_tokens=FIXED),
            *llama_ways(scratch, FIXED, PROMPT_TOKENS + plan.new_tokens + 64),
        ]

    def ways(self, c: float, temperature: float) -> list[Way]:
        """c: a draft step's cost, which the adaptive length needs."""
        target, draft = self.lm.model, self.draft.model
        lengths = self.plan.sampled_lengths if temperature else self.plan.lengths
        ours = [Speculative(f"draft {n}", target, draft, n) for n in lengths]
        ours.append(Speculative("draft adaptive", target, draft, AdaptiveLength(c)))
        half = len(ours) // 2
        ways: list[Way] = [*ours[:half], Plain(target), *ours[half:]]
        if temperature:
            return ways
        return [
            *ways,
            Speculative(f"lookup {FIXED}", target, PromptLookup(), FIXED),
            Speculative(
                f"skip {SKIP_LENGTH}", target, layer_skip_draft(target, SKIP_LAYERS), SKIP_LENGTH
            ),
            *self._rivals,
        ]


def cost_before(entrants: Entrants, asked: Domain) -> float:
    """c from a few answers, for the adaptive length."""
    few = dataclasses.replace(asked, asked=asked.asked[:3])
    target = entrants.lm.model
    way = Speculative("draft", target, entrants.draft.model, FIXED)
    plain = Plain(target)
    laps = race([plain, way], few)
    c = costs(laps["draft"], step_ms(laps["plain"]))["c"]
    return 0.25 if c is None else c


def measure_domain(entrants: Entrants, asked: Domain) -> tuple[dict[str, Any], dict[str, Laps]]:
    """One domain's part of the JSON object, and its laps."""
    ways = entrants.ways(cost_before(entrants, asked), asked.temperature)
    laps = race(ways, asked)
    step = step_ms(laps["plain"])
    rows: dict[str, Any] = {}
    for way in sorted(ways, key=lambda way: way.name != "plain"):
        mine = laps[way.name]
        row: dict[str, Any] = rates(mine, asked.new_tokens)
        row["over_plain"] = speedup(laps["plain"], mine)
        if isinstance(way, Speculative):
            row["acceptance"], row["costs"] = acceptance(mine), costs(mine, step)
            if way.gamma is not None and not isinstance(way.draft, PromptLookup):
                row["prediction"] = predict(
                    way.gamma,
                    row["acceptance"],
                    row["costs"],
                    measured=row["over_plain"]["cpu"]["ratio"],
                    in_rounds=speedup_in_rounds(mine, way.gamma, step),
                )
        rows[way.name] = row
    length = chosen(rows)
    assisted = [name for name in rows if name.startswith("transformers assisted")]
    rival = max(assisted, key=lambda name: rows[name]["tokens_per_cpu_second"], default=None)
    return {
        "set": SETS[asked.text],
        "temperature": asked.temperature,
        "prompts": len(asked.asked),
        "new_tokens": asked.new_tokens,
        "step_ms": step,
        "ways": rows,
        "chosen": length,
        "fastest": max(
            (name for name in rows if name.startswith("draft")),
            key=lambda name: rows[name]["tokens_per_cpu_second"],
        ),
        "over_assisted": rival and {"rival": rival, "over": speedup(laps[rival], laps[length])},
    }, laps


def domains(lm: LanguageModel, plan: Plan) -> list[Domain]:
    """Three greedy ones, and documentation drawn at `TEMPERATURE`."""
    greedy = [domain(lm, text, plan.prompts, plan.new_tokens) for text in SETS]
    text = next(iter(SETS))
    return [*greedy, domain(lm, text, plan.prompts, plan.new_tokens, TEMPERATURE)]


def measure(plan: Plan) -> dict[str, Any]:
    """The JSON object. Raises ValueError where our greedy answers are not plain decoding's."""
    reason = missing()
    measured: dict[str, Any] = {
        "threads": torch.get_num_threads(),
        "plan": dataclasses.asdict(plan),
        "transformers": version("transformers"),
        "llama_cpp": None if reason else f"xllamacpp {version('xllamacpp')}",
        "llama_cpp_left_out": reason,
        "domains": {},
        "agreement": {},
    }
    with tempfile.TemporaryDirectory() as scratch:
        entrants = Entrants(plan, Path(scratch))
        for asked in domains(entrants.lm, plan):
            measured["domains"][asked.name], laps = measure_domain(entrants, asked)
            if not asked.temperature:
                compare(entrants.lm, asked, laps, measured["agreement"])
    check(measured["agreement"])
    measured = rounded(measured)
    # The aims are set for the full size; a short run shows only that the race runs.
    measured["aims"] = aims_of(measured) if plan == FULL else []
    return measured


def rounded(value: Any) -> Any:
    """The same with every float at four decimals: more are noise."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--short", action="store_true", help="a few tokens")
    short = parser.parse_args(arguments).short
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    measured = measure(SHORT if short else FULL)
    show(measured, Console(width=140))
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
