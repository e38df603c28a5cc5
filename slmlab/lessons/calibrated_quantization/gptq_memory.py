"""calibration.gptq_memory: what a GPTQ run must hold in memory, on paper."""

from __future__ import annotations

import math
from typing import Any

from slmlab.checking import Case, Close, Exercise, Invariant, Mistake

# The table that the exercise prints: the shape of a published 7-billion model.
HIDDEN, FEED_FORWARD, LAYERS = 4096, 11008, 32
SEQUENCES, TOKENS = 128, 2048
TOLERANCE = 0.02
SAME_MISTAKE = 0.005
IN_GIBIBYTES = (
    "That is the sum in units of 2**30 bytes, and the statement counts 10**9 bytes to a GB. By what "
    "do you divide the bytes?"
)
IN_BYTES = "That is in bytes, and a GB has 10**9 of them. By what do you divide?"


def cases(seed: int) -> list[Case]:
    """One case without arguments: the table is fixed, so there is nothing to vary."""
    return [Case({})]


def gigabytes(
    *,
    hessian_rows: int = FEED_FORWARD,
    hessian_columns: int = FEED_FORWARD,
    hessian_bytes: int = 4,
    sequences: int = SEQUENCES,
    layers: int = 1,
) -> float:
    """Weights of so many layers, the hidden states of the text, and one Hessian."""
    weights = layers * (4 * HIDDEN**2 + 3 * HIDDEN * FEED_FORWARD) * 2
    states = sequences * TOKENS * HIDDEN * 2
    return (weights + states + hessian_rows * hessian_columns * hessian_bytes) / 1e9


def reference() -> float:
    """One layer, the states between two layers, and down_proj's Hessian in fp32."""
    return gigabytes()


def within_tolerance(arguments: dict[str, Any], output: Any) -> str | None:
    """None within 2% of the reference, else how far off, without giving the number away."""
    if type(output) not in (int, float) or not math.isfinite(output):
        return "Return one number, in GB: a float such as 1.5."
    if output <= 0:
        return "Memory is positive: a sum of three terms."
    ratio = output / reference()
    if abs(ratio - 1) <= TOLERANCE:
        return None
    for sentence, factor in ((IN_GIBIBYTES, 1e9 / 2**30), (IN_BYTES, 1e9)):
        if abs(ratio / factor - 1) <= SAME_MISTAKE:
            return sentence
    way = "high" if ratio > 1 else "low"
    far = f"Your estimate is {max(ratio, 1 / ratio):.3g} times too {way}."
    if any(abs(output / m.implementation() - 1) <= SAME_MISTAKE for m in GPTQ_MEMORY.mistakes):
        return far  # the mistake's own sentence says which term is off
    return f"{far} Write it as a sum of weights, hidden states and Hessian: which term is off?"


def _by_hand() -> float:
    weights = (4 * 4096 * 4096 + 3 * 4096 * 11008) * 2
    states = 128 * 2048 * 4096 * 2
    return (weights + states + 11008 * 11008 * 4) / 1e9


def _rounded_on_paper() -> float:
    return 0.4 + 2.15 + 0.48


GPTQ_MEMORY = Exercise(
    id="calibration.gptq_memory",
    title="On paper: the memory of a GPTQ run",
    points=2,
    minutes=7,
    difficulty=1,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "Hessian forgotten",
            "The Hessian is missing: it has one row and one column for each input channel, and it "
            "outweighs the layer it belongs to. How many inputs has down_proj?",
            lambda: gigabytes(hessian_rows=0),
        ),
        Mistake(
            "Hessian of the hidden width",
            "Your Hessian is that of the other matrices. The largest one counts: down_proj reads "
            "the widest vector of the layer. How wide is it?",
            lambda: gigabytes(hessian_rows=HIDDEN, hessian_columns=HIDDEN),
        ),
        Mistake(
            "rectangular Hessian",
            "Your Hessian has the shape of a weight: it is the mean of x x^T, and the outputs do "
            "not enter it. How many rows and columns has x x^T?",
            lambda: gigabytes(hessian_rows=HIDDEN),
        ),
        Mistake(
            "Hessian in 16 bits",
            "Your Hessian takes 2 bytes a number: it is summed over many tokens and inverted, "
            "which 16 bits do not survive. What does the table say?",
            lambda: gigabytes(hessian_bytes=2),
        ),
        Mistake(
            "one sequence",
            "You count the hidden states of one sequence. The next layer is calibrated on all of "
            "them: what do you hand to it?",
            lambda: gigabytes(sequences=1),
        ),
        Mistake(
            "all layers at once",
            "You hold the whole model. GPTQ needs one layer at a time: what has gone through it "
            "is kept, not the layers before. Which term has a factor of 32 too much?",
            lambda: gigabytes(layers=LAYERS),
        ),
    ),
    hints=(
        "Three things lie in memory together: the layer being quantised, what the text looks like "
        "on its way into it, and one square matrix. Each is a product of sizes from the table.",
        "A smaller one: width 1,000, feed-forward 3,000, 10 sequences of 1,000 tokens. Three terms: "
        "weights (4*1,000*1,000 + 3*1,000*3,000)*2 bytes = 0.026 GB; states 10*1,000*1,000*2 = 0.020; "
        "Hessian 3,000*3,000*4 = 0.036. Sum 0.082 GB.",
        "weights = (4 * hidden**2 + 3 * hidden * feed_forward) * 2 bytes\n"
        "states = sequences * tokens * hidden * 2 bytes\n"
        "hessian = feed_forward**2 * 4 bytes\n"
        "return the sum / 10**9",
    ),
    compare=Invariant(within_tolerance, match=Close(rtol=SAME_MISTAKE, atol=0.0)),
    alternatives=(_by_hand, _rounded_on_paper),
    unit="GB",
)
