"""The model card: what an embedded model was made from, what it can do, and what it cannot."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from slmlab.data import evaluation_set
from slmlab.measure.acceptance import greedy_acceptance
from slmlab.measure.tasks import ANSWERED_TASKS, entropy_gap, exact_match
from slmlab.measure.text_score import bits_per_byte

if TYPE_CHECKING:
    from slmlab.generation import LanguageModel

TEXTS = ("prose", "stdlib-docs", "stdlib-code")
TEXT_CHARACTERS = 60_000
ACCEPTANCE_PROMPTS = 50
ACCEPTANCE_PROMPT_TOKENS = 48


@dataclass(frozen=True)
class Row:
    """One line of the evaluation table. ``wanted`` is the target, "" where there is none."""

    what: str
    value: str
    wanted: str = ""
    met: bool | None = None


def evaluation_table(lm: LanguageModel, teacher: LanguageModel | None = None) -> list[Row]:
    """Measure everything that the card reports, on held-out data.

    teacher: for a draft, the model it speculates for: adds the greedy acceptance.
    """
    rows = []
    for task in tqdm(ANSWERED_TASKS, desc="tasks", unit="task"):
        result = exact_match(lm, task)
        target = 0.95 if task == "tool_calls" else 0.90
        value = (
            f"{result.accuracy:.1%} (standard error {result.standard_error:.1%}, n = {result.n})"
        )
        met = None if teacher is not None else result.accuracy >= target
        wanted = "" if teacher is not None else f"at least {target:.0%}"
        rows.append(Row(f"{task}, exact match", value, wanted, met))
    gap = entropy_gap(lm)
    value = (
        f"{gap.bits_per_token:.3f} bits a token, {gap.gap_bits_per_token:.3f} above the "
        f"grammar's {gap.floor_bits_per_token:.3f}"
    )
    met = None if teacher is not None else gap.gap_bits_per_token <= 0.15
    rows.append(Row("stories", value, "" if teacher else "at most 0.150 above", met))
    for name in tqdm(TEXTS, desc="texts", unit="text"):
        bits = bits_per_byte(lm.model, lm.tokenizer, held_out_text(name, TEXT_CHARACTERS))
        wanted, met = "", None
        if name == "stdlib-docs" and teacher is None:
            wanted, met = "at most 1.45", bits <= 1.45
        rows.append(Row(f"{name}", f"{bits:.3f} bits a byte", wanted, met))
    if teacher is not None:
        for name in tqdm(_ACCEPTANCE_TARGETS, desc="acceptance", unit="domain"):
            rows.append(_acceptance(lm, teacher, name))
    return rows


_ACCEPTANCE_TARGETS = {"stdlib-docs": 0.75, "stdlib-code": 0.65, "tool_calls": 0.90}


def _acceptance(draft: LanguageModel, teacher: LanguageModel, name: str) -> Row:
    """Greedy acceptance on the continuations of held-out beginnings."""
    target = _ACCEPTANCE_TARGETS[name]
    result = greedy_acceptance(draft, teacher, _prompts(teacher, name))
    value = (
        f"{result.rate:.1%} (standard error {result.standard_error:.1%}, "
        f"n = {result.proposed} tokens after {result.prompts} prompts)"
    )
    met = result.rate >= target
    return Row(f"greedy acceptance, {name}", value, f"at least {target:.0%}", met)


def _prompts(teacher: LanguageModel, name: str) -> list[list[int]]:
    """Commands of tool calls; of a text, evenly spread pieces."""
    if name in ANSWERED_TASKS:
        samples = evaluation_set(name).samples[:ACCEPTANCE_PROMPTS]
        return [list(teacher.tokenizer.encode(sample.prompt)) for sample in samples]
    ids = teacher.tokenizer.encode(held_out_text(name, TEXT_CHARACTERS))
    last = max(1, len(ids) - ACCEPTANCE_PROMPT_TOKENS)
    stride = max(1, last // ACCEPTANCE_PROMPTS)
    starts = range(0, last, stride)[:ACCEPTANCE_PROMPTS]
    return [list(ids[start : start + ACCEPTANCE_PROMPT_TOKENS]) for start in starts]


def held_out_text(name: str, characters: int) -> str:
    """The beginning of every text of an evaluation set, ``characters`` in all."""
    texts = evaluation_set(name).texts
    share = max(200, characters // len(texts))
    return "\n\n".join(text[:share] for text in texts)[:characters]


_DATA = (
    '"docs" and "code" are docstrings, topics and source of the standard library and of packages '
    "that slmlab depends on, read from the installation (`slmlab/data/corpus.py`); "
    '"copies" repeats passages of both; "grammar" is a seeded grammar of tool calls, recall, sums and stories '
    "(`slmlab/data/grammar`). Held-out files and a hashed share of the grammar's combinations are "
    "never trained on."
)
_EVALUATION = (
    "The standard-library texts depend on the Python version: compare models on them, quote no "
    "number from them. Prose and grammar are the same bytes everywhere."
)
_LIMITS = (
    "It knows nothing about the world and invents names, numbers and functions. It has seen "
    "English commands of a few shapes, sums of two numbers below one hundred, and Python "
    "documentation. It is made to be measured, not to be relied on."
)


def write_card(directory: Path, rows: list[Row]) -> Path:
    """README.md of a model directory, from training.json and the measured rows."""
    facts: dict[str, Any] = json.loads((directory / "training.json").read_text(encoding="utf-8"))
    recipe = facts["recipe"]
    is_draft = recipe["teacher"] is not None
    table = "\n".join(f"| {r.what} | {r.value} | {r.wanted} | {_met(r.met)} |" for r in rows)
    sources = ", ".join(f"{n:,} of {s}" for s, n in facts["tokens_by_source"].items())
    hashes = "\n".join(f"- `{name}`: `{digest}`" for name, digest in facts["sha256"].items())
    versions = ", ".join(f"{name} {number}" for name, number in facts["packages"].items())
    role = (
        f"The draft of `{recipe['teacher']}` for speculative decoding, trained on the teacher's "
        "distribution (KL divergence, temperature 1) instead of the text itself."
        if is_draft
        else "The model that the lessons run on."
    )
    paragraphs = [
        f"# {recipe['name']}",
        f"{role} A Llama-layout decoder: width {recipe['hidden_size']}, "
        f"{recipe['num_hidden_layers']} layers, {recipe['num_attention_heads']} query heads, "
        f"{recipe['num_key_value_heads']} KV heads of {recipe['head_dim']}, MLP "
        f"{recipe['intermediate_size']}, vocabulary {recipe['vocab_size']}, "
        f"{recipe['sequence_length']} positions, fp16 weights.",
        "## Data",
        f"{facts['tokens_seen']:,} tokens: {sources}. {_DATA}",
        "## Recipe",
        "Muon on the matrices, AdamW on the embedding and the norms; seed "
        f"{recipe['seed']}; {_stages(recipe)}; one CPU thread, {facts['processor_minutes']} "
        f"processor minutes. {_start(recipe)}Python {facts['python']}, {versions}. All choices: "
        f"`slmlab/training/recipes/{recipe['name']}.toml` (digest `{facts['recipe_digest']}`).",
        hashes,
        "## Evaluation",
        f"Measured by `slmlab evaluate {recipe['name']}`. {_EVALUATION}",
        f"| | measured | target | met |\n|---|---|---|---|\n{table}",
        "## Limits",
        _LIMITS,
        "## When and how to retrain",
        f"When the tokenizer, the grammar or the layout changes: `slmlab train {recipe['name']} "
        "--out DIR`, interruptible and resumable, then `slmlab evaluate DIR --card`.",
    ]
    text = "\n\n".join(paragraphs) + "\n"
    target = directory / "README.md"
    partial = target.with_suffix(".part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(target)
    return target


def _start(recipe: dict[str, Any]) -> str:
    """What the weights held before the first step, where it is more than noise."""
    if not recipe.get("induction"):
        return ""
    return (
        "The first two layers start with an induction circuit "
        "(`slmlab/training/initialisation.py`). "
    )


def _stages(recipe: dict[str, Any]) -> str:
    """The stages of a recipe in words."""
    words = []
    for stage in recipe["stages"]:
        depth = "" if stage["layers"] is None else f" on the first {stage['layers']} layers"
        pieces = stage.get("pieces", 1)
        rows, length = sum(stage["rows"].values()) * pieces, recipe["sequence_length"] // pieces
        words.append(f"{stage['steps']} steps of {rows} x {length} tokens{depth}")
    return ", then ".join(words)


def _met(met: bool | None) -> str:
    return "" if met is None else ("yes" if met else "**no**")
