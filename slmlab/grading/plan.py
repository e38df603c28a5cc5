"""What one grading run is: which exercises, which seed, which limits, for whom longer."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from slmlab.grading.audit import versions
from slmlab.grading.records import Limits, Submission

SEED_BITS = 48  # exact in every reader of JSON


@dataclass(frozen=True)
class Plan:
    """One grading run.

    exercises     ids in the handout's order
    seed          of the cases and of the learner's random generators
    multipliers   student -> factor on the three times of the limits
    multiplier    the factor for everybody else
    unsafe        no sandbox: the learner's code runs as the grader's own user

    Raises TypeError or ValueError for a bad field.
    """

    exercises: tuple[str, ...]
    seed: int
    limits: Limits = field(default_factory=Limits)
    multipliers: dict[str, float] = field(default_factory=dict)
    multiplier: float = 1.0
    unsafe: bool = False

    def __post_init__(self) -> None:
        if not all(isinstance(name, str) for name in self.exercises):
            raise TypeError("exercises must be texts, the ids of the exercises.")
        if not isinstance(self.unsafe, bool):
            raise TypeError(f"unsafe must be a bool, not {type(self.unsafe).__name__}.")
        if not self.exercises:
            raise ValueError("exercises is empty: name at least one exercise id.")
        twice = {name for name in self.exercises if self.exercises.count(name) > 1}
        if twice:
            raise ValueError(f"exercises names {sorted(twice)[0]!r} twice: name it once.")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise TypeError(f"seed must be an int, not {type(self.seed).__name__}.")
        if not 0 <= self.seed < 2**SEED_BITS:
            raise ValueError(f"seed={self.seed} must lie between 0 and 2**{SEED_BITS} - 1.")
        for value in (self.multiplier, *self.multipliers.values()):
            self.limits.scaled(value)

    def limits_for(self, student: str) -> Limits:
        """The limits for one student."""
        return self.limits.scaled(self.multipliers.get(student, self.multiplier))

    def check_goes_on(self, before: Plan) -> None:
        """ValueError where this plan asks other questions than the run that it goes on with: they
        would replace every grade that is there."""
        for option, old, new in (
            ("--exercises", ", ".join(before.exercises), ", ".join(self.exercises)),
            ("--seed", before.seed, self.seed),
        ):
            if old != new:
                raise ValueError(
                    f"That run was graded with {option} {old}, not {new}: leave it out to go on "
                    "with it, or give another --out."
                )

    def fingerprint(self, submission: Submission) -> str:
        """Equal for two runs that must give one submission the same grade."""
        content = {
            "sha256": submission.sha256,
            "student": submission.student,
            "source": submission.source,
            "flags": list(submission.flags),
            "seed": self.seed,
            "exercises": list(self.exercises),
            "limits": self.limits_for(submission.student).to_json(),
            "unsafe": self.unsafe,
            "versions": versions(),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """The plan as plain data."""
        return {
            "exercises": list(self.exercises),
            "seed": self.seed,
            "limits": self.limits.to_json(),
            "multipliers": dict(sorted(self.multipliers.items())),
            "multiplier": self.multiplier,
            "unsafe": self.unsafe,
        }

    @classmethod
    def from_json(cls, content: Any) -> Plan:
        """The plan that :meth:`to_json` gave; ValueError where it is none."""
        try:
            return cls(
                exercises=tuple(_listed(content["exercises"])),
                seed=content["seed"],
                limits=Limits(**content["limits"]),
                multipliers=dict(content["multipliers"]),
                multiplier=content["multiplier"],
                unsafe=content["unsafe"],
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"this is not a stored grading plan: {error}.") from None


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"exercises must be a list, not {type(value).__name__}")
    return value
