from __future__ import annotations

import copy
import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from slmlab.widgets.distillation_lora import lora_text
from slmlab.widgets.distillation_study import (
    NAMES,
    best,
    load_study,
    study_text,
)
from slmlab.widgets.distillation_study_plot import study_plot

METRICS = ("kl", "perplexity", "tool_calls", "acceptance")
# Method -> what it ends with; each seed is 0.001 apart.
ENDS = {"hard": 0.14, "logits": 0.05, "topk": 0.0505, "sequence": 0.09, "on_policy": 0.06}


def _spread(values: list[float]) -> dict[str, Any]:
    return {"mean": statistics.mean(values), "sd": statistics.stdev(values), "n": len(values)}


@pytest.fixture
def measured() -> dict[str, Any]:
    runs: list[dict[str, Any]] = []
    for budget, shift in (("tokens", 0.0), ("cpu", 0.02)):
        for method, end in ENDS.items():
            for seed in range(5):
                kl = end + seed / 1000 - (2 * shift if method == "hard" else -shift)
                metrics = {"kl": kl, "perplexity": 20 + kl, "tool_calls": 0.5, "acceptance": 1 - kl}
                runs.append(
                    {
                        "budget": budget,
                        "method": method,
                        "seed": seed,
                        "tokens": 81920,
                        "cpu_seconds": 60.0,
                        "metrics": metrics,
                    }
                )
    summary: dict[str, Any] = {}
    for budget in ("tokens", "cpu"):
        summary[budget] = {}
        for method in ENDS:
            mine = [r for r in runs if (r["budget"], r["method"]) == (budget, method)]
            found = {m: _spread([r["metrics"][m] for r in mine]) for m in METRICS}
            costs = {c: _spread([r[c] for r in mine]) for c in ("tokens", "cpu_seconds")}
            summary[budget][method] = {**found, **costs}
    start = {"kl": 0.11, "perplexity": 22.0, "tool_calls": 0.4, "acceptance": 0.8}
    rate = {"rate": 0.7, "standard_error": 0.01}
    return {
        "teacher": {"kl": 0.0, "perplexity": 19.0, "tool_calls": 0.9},
        "start": start,
        "runs": runs,
        # A stored record has its keys in alphabetical order.
        "summary": {b: dict(sorted(found.items())) for b, found in summary.items()},
        "recipes": {method: {"learning_rate": 3e-4} for method in ENDS},
        "draft": {
            "before": {"documentation": rate, "kl": 0.3},
            "summary": {
                "logits": {"documentation": _spread([0.71, 0.73]), "kl": _spread([0.2, 0.3])}
            },
        },
    }


def _stored(folder: Path, name: str, measured: dict[str, Any]) -> Path:
    record = {
        "benchmark": name,
        "commit": "0123456789",
        "machine": {"cpu": "a CPU"},
        "measured": measured,
    }
    (folder / f"{name}.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


def test_the_study_is_read_where_it_was_run(tmp_path: Path, measured: dict[str, Any]) -> None:
    assert load_study(tmp_path) is None
    study = load_study(_stored(tmp_path, "distillation_study", measured))
    assert study is not None
    text = study_text(study)
    for name in NAMES.values():
        assert text.count(f"\n{name} ") == 2
    assert (
        "At equal tokens, KL: logits has the best mean, top-k logits cannot be told from it" in text
    )
    assert "At equal CPU-time, KL: logits has the best mean" in text
    assert "Farther from the teacher than before training: hard labels." in text
    assert "in 5 of 5 seeds" in text
    assert "equal tokens: logits, top-k logits, on-policy, teacher's text, hard labels." in text
    assert "Paying for time changes the order." in text
    assert "81,920" in text and "0.0520 \u00b10.0016" in text
    assert list(study["summary"]["cpu"]) == list(NAMES) and "on-policy 0.0003." in text
    assert "logits: documentation 70.0% to 72.0%; KL 0.300 to 0.250." in text
    assert "In short, by KL: at equal tokens logits or top-k logits lead" in text
    assert "Equal time gives hard labels 1.0 times the tokens" in text
    assert text.endswith("One thread of a CPU; commit 0123456.")
    alt = study_plot(study).alt
    assert alt == (
        "Nearest to the teacher, at equal tokens and at equal CPU-time: logits or top-k logits"
    )


def test_sentences_follow_the_figures(tmp_path: Path, measured: dict[str, Any]) -> None:
    for run in measured["runs"]:
        if run["method"] == "hard" and run["seed"] < 2:
            run["metrics"]["kl"] = 0.0
    measured["summary"]["tokens"]["hard"]["kl"] = {"mean": 0.01, "sd": 0.001, "n": 5}
    study = load_study(_stored(tmp_path, "distillation_study", measured))
    assert study is not None
    text = study_text(study)
    assert "At equal tokens, KL: hard labels is best." in text
    assert "Nearest to the teacher: hard labels at equal tokens; logits" in study_plot(study).alt
    assert "in 3 of 5 seeds" in text and "Farther" not in text.split("equal CPU-time, KL")[0]


def test_means_closer_than_two_standard_errors_are_a_tie(measured: dict[str, Any]) -> None:
    summary = measured["summary"]["tokens"]
    assert best(summary, "kl") == ["logits", "topk"]
    assert best(summary, "acceptance") == ["logits", "topk"]
    exact = copy.deepcopy(summary)
    for found in exact.values():
        found["kl"]["sd"] = None
    assert best(exact, "kl") == ["logits"]


def test_a_column_that_says_nothing_is_not_shown(tmp_path: Path, measured: dict[str, Any]) -> None:
    measured["start"] |= {"tool_calls": 0.5, "layers": [0, 1]}
    ends = {"kl": _spread([0.3, 0.3]), "documentation": _spread([0.8, 0.8])}
    measured["draft"]["summary"]["hard"] = ends
    study = load_study(_stored(tmp_path, "distillation_study", measured))
    assert study is not None
    text = study_text(study)
    assert "Tool calls: 50.0% in every row, so not shown." in text
    assert "tool calls" not in text.splitlines()[0] and "layers 0, 1, untrained" in text
    assert "logits end nearer to tiny in KL, and more guesses of hard labels hold in 1 of 1" in text


def test_a_damaged_study_names_the_mend(tmp_path: Path, measured: dict[str, Any]) -> None:
    del measured["summary"]["cpu"]["topk"]["perplexity"]
    study = load_study(_stored(tmp_path, "distillation_study", measured))
    assert study is not None
    with pytest.raises(ValueError, match=r"lacks 'perplexity'.*authoring.prove distillation_study"):
        study_text(study)
    del measured["draft"]
    with pytest.raises(ValueError, match="lacks 'draft'"):
        load_study(_stored(tmp_path, "distillation_study", measured))


def test_the_ways_to_one_domain(tmp_path: Path) -> None:
    assert lora_text(tmp_path) is None

    def way(right: float, kept: float, trained: float, decode: float) -> dict[str, Any]:
        values = {
            "domain_accuracy": right,
            "outside_accuracy": kept,
            "domain_bits_per_byte": 0.5,
            "outside_bits_per_byte": 1.5,
            "trained_parameters": trained,
            "cpu_seconds": 30.0,
            "teacher_cpu_seconds": 40.0 if trained == 4e6 else 0.0,
            "decode_over_tiny": decode,
        }
        return {"summary": {name: {"mean": x, "sd": 0.0, "n": 3} for name, x in values.items()}}

    ways = {
        "tiny": way(1.0, 1.0, 0, 0.1),
        "lora": way(0.8, 0.7, 3e5, 1.0),
        "full": way(0.9, 0.2, 1e7, 1.0),
        "student": way(0.6, 0.1, 4e6, 2.4),
    }
    measured: dict[str, Any] = {"domain": "a greenhouse", "ways": ways}
    text = lora_text(_stored(tmp_path, "lora_domain", measured))
    assert text is not None and "a greenhouse" in text
    assert "right: all weights." in text and "parameters trained: LoRA." in text
    assert "Fastest: 2-layer student." in text and "calls kept: LoRA." in text
    rows = {line[:16].strip(): line[16:].split() for line in text.splitlines()[1:5]}
    assert rows["2-layer student"][5] == "70" and rows["LoRA"][5] == "30"
    assert rows["tiny as it is"][6] == "1.00" and "itself it was 0.10" in text
    ways["full"]["summary"]["domain_accuracy"]["sd"] = 0.11
    text = lora_text(_stored(tmp_path, "lora_domain", measured))
    assert text is not None and "right: LoRA, all weights cannot be told apart." in text
    for name in ("lora", "full", "student"):
        ways[name]["summary"]["outside_accuracy"]["mean"] = 0.0
    text = lora_text(_stored(tmp_path, "lora_domain", measured))
    assert text is not None and "None of them still answers one of tiny's own calls" in text
    del ways["lora"]["summary"]["cpu_seconds"]
    with pytest.raises(ValueError, match="lacks 'cpu_seconds'"):
        lora_text(_stored(tmp_path, "lora_domain", measured))
