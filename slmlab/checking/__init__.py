"""Exercises, checks and progress.

A lesson author writes ``EXERCISES``, a tuple of :class:`Exercise`, in ``slmlab/lessons/TOPIC.py``::

    EXERCISES = (
        Exercise(
            id="quant.absmax_int8",             # topic.name
            title="Absmax int8, one scale a row",
            points=3, minutes=8, difficulty=1,
            cases=lambda seed: [Case({"w": torch.tensor([[1.0, 0.5], [10.0, 5.0]])}), ...],
            reference=absmax_int8,              # the package's own function
            mistakes=(Mistake("one scale", "One scale was used for the whole matrix.", wrong), ...),
            hints=("what must hold", "three elements worked out", "pseudocode"),
            compare=Exact(),                    # or Close(rtol=..., atol=...), Invariant(function)
            alternatives=(written_differently,),
        ),
    )

and names it in ``pyproject.toml`` under ``[project.entry-points."slmlab.exercises"]``, as
``quant = "slmlab.lessons.quantization:EXERCISES"``. Cases are small to large and depend on nothing
but the seed; the counterexample comes from them, so at least one must show each mistake with a few
numbers. Each mistake must differ from the others in some output. ``audit(exercise)`` lists what
does not hold; tests/lessons/test_specs.py runs it on every registered exercise.

The notebook puts ``@exercise("quant.absmax_int8")`` over a function whose body raises
NotImplementedError; ``hint(id)``, ``predict(name, value, unit)``, ``measured(name, value)``,
``progress()`` and ``ask(Question(text, answer), ...)`` are the rest of what a lesson calls.

Importing this package does not import torch.
"""

from slmlab.checking.comparison import Close, Comparison, Exact, Invariant
from slmlab.checking.diagnosis import Diagnosis, diagnose
from slmlab.checking.hints import hint
from slmlab.checking.interview import Question, ask
from slmlab.checking.notebook import CheckFailed, exercise, progress
from slmlab.checking.predictions import Prediction, calibration_plot, measured, predict
from slmlab.checking.progress_file import CorruptProgress, ProgressError, ProgressFile
from slmlab.checking.proof import audit
from slmlab.checking.registry import all_exercises, get, register, registered, topics, unregister
from slmlab.checking.report import Report, check
from slmlab.checking.runner import Execution, Run, execute, judge, make_cases, run
from slmlab.checking.spec import Case, Exercise, Mistake

__all__ = [
    "Case",
    "CheckFailed",
    "Close",
    "Comparison",
    "CorruptProgress",
    "Diagnosis",
    "Exact",
    "Execution",
    "Exercise",
    "Invariant",
    "Mistake",
    "Prediction",
    "ProgressError",
    "ProgressFile",
    "Question",
    "Report",
    "Run",
    "all_exercises",
    "ask",
    "audit",
    "calibration_plot",
    "check",
    "diagnose",
    "execute",
    "exercise",
    "get",
    "hint",
    "judge",
    "make_cases",
    "measured",
    "predict",
    "progress",
    "register",
    "registered",
    "run",
    "topics",
    "unregister",
]
