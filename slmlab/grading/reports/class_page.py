"""The page about the class, for the instructor."""

from __future__ import annotations

from slmlab.checking.render import visible
from slmlab.grading.audit import versions
from slmlab.grading.overrides import in_order
from slmlab.grading.records import Grade
from slmlab.grading.reports import statistics
from slmlab.grading.reports.pages import page
from slmlab.grading.reports.results import UNSAFE, Results
from slmlab.grading.store import FEEDBACK, SUBMISSIONS, safe_name


def class_html(results: Results) -> str:
    """Distribution, hardest exercises, commonest mistakes, flags, decisions by hand, all students."""
    values = statistics.shares(results)
    mean, median = statistics.middle(values)
    bins = statistics.distribution(values)
    trouble = [grade for grade in results.grades if grade.status != "graded"]
    flags = [(grade, flag) for grade in results.grades for flag in grade.flags]
    return page(
        "class.html",
        results=results,
        counted=len(values),
        mean=mean,
        median=median,
        bins=bins,
        tallest=max((item.count for item in bins), default=0),
        hardest=statistics.hardest(results),
        mistakes=statistics.mistakes(results),
        trouble=trouble,
        flags=flags,
        overrides=list(in_order(results.overrides)),
        rows=[(grade, results.total(grade), _link(grade)) for grade in results.grades],
        versions=", ".join(f"{name} {text}" for name, text in versions().items()),
        unsafe=UNSAFE if results.unsafe else "",
        title=f"Class of {len(results.grades)}",
    )


def _link(grade: Grade) -> str:
    return f"{SUBMISSIONS}/{visible(safe_name(grade.student))}/{FEEDBACK}"
