"""The solutions of the exercise notebooks pass for many seeds, and blanks report unattempted."""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from authoring.assignments import blank, solved
from authoring.build import ROOT
from authoring.sources import Source, find_sources, read_source
from slmlab.checking import check, get, make_cases, run
from slmlab.checking.registry import exercises

TOPICS = {
    "start": "00_start_here",
    "anatomy": "01_anatomy_and_roofline",
    "quantization": "02_quantization",
    "calibration": "03_calibrated_quantization",
    "kv": "04_kv_cache",
    "paging": "05_paged_serving",
    "speculative": "06_speculative_decoding",
    "distillation": "07_distillation",
}
IDS = [exercise.id for topic in TOPICS for exercise in exercises(topic)]
SEEDS = range(5)


def _source(topic: str) -> Source:
    sources = [s for s in find_sources(ROOT) if s.topic == TOPICS[topic] and not s.is_lesson]
    assert len(sources) == 1
    return sources[0]


def _cells(topic: str, make: Callable[[Any], Any]) -> dict[str, str]:
    notebook = make(read_source(_source(topic)))
    marked = [cell for cell in notebook.cells if "exercise" in cell.metadata.get("slmlab", {})]
    return {cell.metadata.slmlab.exercise: cell.source for cell in marked}


def _function(
    identifier: str, make: Callable[[Any], Any]
) -> tuple[Callable[..., Any], ast.FunctionDef]:
    """What the cell defines, run with torch, math and builtins alone, as the grader's sandbox does."""
    source = _cells(identifier.split(".")[0], make)[identifier]
    names: dict[str, Any] = {"math": math, "torch": torch, "Tensor": Tensor}
    names["exercise"] = lambda _: lambda function: function
    exec(compile(source, identifier, "exec"), names)
    (tree,) = (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))
    return names[tree.name], tree


@pytest.mark.parametrize("topic", TOPICS)
def test_the_notebook_holds_every_exercise_in_order(topic: str) -> None:
    assert list(_cells(topic, solved)) == [exercise.id for exercise in exercises(topic)]


@pytest.mark.parametrize("identifier", IDS)
def test_the_solution_passes(identifier: str) -> None:
    function, _ = _function(identifier, solved)
    for seed in SEEDS:
        report = check(get(identifier), function, seed)
        assert report.outcome == "passed", report.diagnosis
        assert not report.notes


@pytest.mark.parametrize("identifier", IDS)
def test_the_blank_is_unattempted(identifier: str) -> None:
    function, _ = _function(identifier, blank)
    assert run(get(identifier), function).outcome == "unattempted"


@pytest.mark.parametrize("identifier", IDS)
def test_the_signature_is_that_of_the_cases_with_type_hints(identifier: str) -> None:
    function, tree = _function(identifier, solved)
    signature = inspect.signature(function)
    for case in make_cases(get(identifier), 0):
        assert list(case.arguments) == list(signature.parameters)
    assert signature.return_annotation is not inspect.Signature.empty
    assert all(p.annotation is not p.empty for p in signature.parameters.values())
    body = tree.body[1:]
    assert body[-1].end_lineno is not None
    assert 2 <= body[-1].end_lineno - body[0].lineno + 1 <= 20


# An estimate on paper has one datasheet, NF4 is one table: nothing to vary.
ON_PAPER = (
    "anatomy.decode_ceiling",
    "quantization.file_size",
    "quantization.nf4_levels",
    "calibration.gptq_memory",
    "kv.context_fits",
    "paging.requests_that_fit",
    "speculative.speedup",
    "distillation.stored_logits",
)


@pytest.mark.parametrize("identifier", [name for name in IDS if name not in ON_PAPER])
def test_cases_follow_the_seed(identifier: str) -> None:
    texts = {repr([case.arguments for case in make_cases(get(identifier), seed)]) for seed in SEEDS}
    assert len(texts) == len(SEEDS)


def test_the_code_to_repair_runs_and_is_diagnosed_as_itself() -> None:
    notebook = read_source(_source("anatomy"))
    (source,) = (c.source for c in notebook.cells if c.source.startswith("def top_p_as_found"))
    names: dict[str, Any] = {"torch": torch, "Tensor": Tensor}
    exec(compile(source, "top_p_as_found", "exec"), names)
    report = check(get("anatomy.top_p_repair"), names["top_p_as_found"])
    assert report.outcome == "wrong" and report.diagnosis is not None
    assert report.diagnosis.mistake is not None
    assert report.diagnosis.mistake.name == "the given bug"
