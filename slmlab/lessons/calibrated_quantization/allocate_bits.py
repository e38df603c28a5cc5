"""calibration.allocate_bits: spend a bit budget where it buys the most."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import product
from typing import Any

from slmlab.checking import Case, Exact, Exercise, Invariant, Mistake
from slmlab.quant.allocation import Option, solve

Sizes = dict[str, int]
Errors = dict[str, list[float]]
Plan = dict[str, int]

NAMES = ("q", "k", "o", "gate", "down")
SLACK = 1.1


def cases(seed: int) -> list[Case]:
    """Two and three layers first, then five; budgets that a level just fits, and some between."""
    draw = random.Random(seed)

    def curve(base: float, choices: list[int]) -> list[float]:
        # Each bit fewer makes the step twice as wide and the squared error four times as large.
        return [_digits(base * 4.0 ** (choices[-1] - bits)) for bits in choices]

    def case(sizes: Sizes, bases: dict[str, float], choices: list[int], budget: float) -> Case:
        errors = {name: curve(base, choices) for name, base in bases.items()}
        arguments = {"sizes": sizes, "errors": errors, "choices": choices, "budget": budget}
        return Case(arguments)

    def many(budget: float) -> Case:
        while True:
            sizes = {name: draw.choice((1, 2, 4, 8)) * 100 for name in NAMES}
            bases = {name: 10 ** draw.uniform(-3.5, -1) for name in NAMES}
            found = case(sizes, bases, [2, 3, 4, 8], budget)
            if _is_telling(found.arguments):
                return found

    scale = draw.uniform(0.01, 0.02)
    return [
        # The sensitive layer is small: it gets the bits, and the average hardly notices.
        case({"a": 100, "b": 300}, {"a": scale, "b": scale / 40}, [2, 4], 2.5),
        # The largest drop belongs to the largest layer, and buys less for each bit than two more.
        case(
            {"a": 100, "b": 300, "c": 100},
            {"a": scale, "b": 1.2 * scale, "c": 0.9 * scale},
            [2, 4],
            3.2,
        ),
        # Nothing fits but the lowest level.
        case({"a": 100, "b": 100}, {"a": scale, "b": scale / 2}, [2, 4], 2.4),
        many(3.0),
        many(3.5),
        many(4.6),
    ]


def _digits(value: float) -> float:
    return float(f"{value:.3g}")


def average_bits(sizes: Sizes, plan: Plan) -> float:
    """Bits a weight of the whole plan."""
    return sum(sizes[name] * plan[name] for name in sizes) / sum(sizes.values())


def total_error(errors: Errors, choices: list[int], plan: Plan) -> float:
    """The sum of the layers' errors at the bits of the plan."""
    return sum(errors[name][choices.index(bits)] for name, bits in plan.items())


def best_error(arguments: dict[str, Any]) -> float:
    """The least total error of any plan within the budget, by trying all."""
    sizes, errors, choices = (arguments[key] for key in ("sizes", "errors", "choices"))
    left = arguments["budget"] * sum(sizes.values()) + 1e-6
    # (bits spent, error) of every plan for the layers so far
    plans = [(0.0, 0.0)]
    for name, size in sizes.items():
        steps = [(size * bits, error) for bits, error in zip(choices, errors[name], strict=True)]
        plans = [
            (spent + cost, total + error)
            for spent, total in plans
            for cost, error in steps
            if spent + cost <= left
        ]
    return min(total for _, total in plans)


def near_the_best(arguments: dict[str, Any], output: Any) -> str | None:
    """None where the plan keeps the budget and errs at most 10% more than the best one."""
    sizes, choices, budget = arguments["sizes"], arguments["choices"], arguments["budget"]
    if not isinstance(output, dict) or set(output) != set(sizes):
        return "Return a dict with the bits of every layer: the names of sizes are its keys."
    if any(type(bits) is not int or bits not in choices for bits in output.values()):
        return f"Each layer takes one of the choices, {choices}, as an int."
    average = average_bits(sizes, output)
    if average > budget + 1e-9:
        return f"Your plan takes {average:.4g} bits a weight, and the budget is {budget:g}."
    best = best_error(arguments)
    mine = total_error(arguments["errors"], choices, output)
    if mine > SLACK * best:
        return (
            f"Your plan takes {average:.4g} bits a weight and errs {mine / best:.3g} times as much "
            "as the best plan within the budget."
        )
    return None


def _greedy(
    arguments: dict[str, Any],
    worth: Callable[[str, float, float], float],
    fits: Callable[[Plan, Plan], bool],
) -> Plan:
    """Raise one layer to any higher level at a time, the most worthwhile first, while it fits."""
    sizes, errors, choices = (arguments[key] for key in ("sizes", "errors", "choices"))
    plan = {name: choices[0] for name in sizes}
    while True:
        steps = []
        for name, bits in plan.items():
            at = choices.index(bits)
            for higher in range(at + 1, len(choices)):
                raised = plan | {name: choices[higher]}
                if fits(plan, raised):
                    drop = errors[name][at] - errors[name][higher]
                    cost = sizes[name] * (choices[higher] - bits)
                    steps.append((worth(name, drop, cost), name, choices[higher]))
        if not steps:
            return plan
        _, name, bits = max(steps)
        plan[name] = bits


def _within(arguments: dict[str, Any]) -> Callable[[Plan, Plan], bool]:
    return lambda _, plan: average_bits(arguments["sizes"], plan) <= arguments["budget"] + 1e-9


def _arguments(sizes: Sizes, errors: Errors, choices: list[int], budget: float) -> dict[str, Any]:
    return {"sizes": sizes, "errors": errors, "choices": choices, "budget": budget}


def reference(sizes: Sizes, errors: Errors, choices: list[int], budget: float) -> Plan:
    """The package's solver, with a layer's bits where it counts bytes."""
    options = {
        name: [
            Option(str(bits), size * bits, error)
            for bits, error in zip(choices, errors[name], strict=True)
        ]
        for name, size in sizes.items()
    }
    plan = solve(options, int(budget * sum(sizes.values()) + 1e-6))
    return {name: int(option.scheme) for name, option in plan.items()}


def _uniform(sizes: Sizes, errors: Errors, choices: list[int], budget: float) -> Plan:
    return dict.fromkeys(sizes, max(bits for bits in choices if bits <= budget))


def _sizes_ignored(sizes: Sizes, errors: Errors, choices: list[int], budget: float) -> Plan:
    return reference(dict.fromkeys(sizes, 1), errors, choices, budget)


def _drop_alone(sizes: Sizes, errors: Errors, choices: list[int], budget: float) -> Plan:
    arguments = _arguments(sizes, errors, choices, budget)
    return _greedy(arguments, lambda name, drop, cost: drop, _within(arguments))


def _one_step_over(sizes: Sizes, errors: Errors, choices: list[int], budget: float) -> Plan:
    arguments = _arguments(sizes, errors, choices, budget)
    return _greedy(
        arguments,
        lambda name, drop, cost: drop / cost,
        lambda plan, _: average_bits(sizes, plan) < budget - 1e-9,
    )


def _largest_first(sizes: Sizes, errors: Errors, choices: list[int], budget: float) -> Plan:
    arguments = _arguments(sizes, errors, choices, budget)
    return _greedy(arguments, lambda name, drop, cost: sizes[name], _within(arguments))


def _by_trying_all(sizes: Sizes, errors: Errors, choices: list[int], budget: float) -> Plan:
    weights = sum(sizes.values())
    best, least = dict.fromkeys(sizes, choices[0]), float("inf")
    for levels in product(range(len(choices)), repeat=len(sizes)):
        bits = sum(
            size * choices[level] for size, level in zip(sizes.values(), levels, strict=True)
        )
        error = sum(errors[name][level] for name, level in zip(sizes, levels, strict=True))
        if bits <= budget * weights + 1e-6 and error < least:
            best = {name: choices[level] for name, level in zip(sizes, levels, strict=True)}
            least = error
    return best


def _is_telling(arguments: dict[str, Any]) -> bool:
    """The greedy plan is near the best, and no mistake's plan would be."""
    wrong = [
        mistake(**arguments)
        for mistake in (_uniform, _sizes_ignored, _drop_alone, _one_step_over, _largest_first)
    ]
    sizes, choices = arguments["sizes"], arguments["choices"]
    most = SLACK * total_error(arguments["errors"], choices, reference(**arguments))
    if any(
        average_bits(sizes, plan) <= arguments["budget"] + 1e-9
        and total_error(arguments["errors"], choices, plan) <= most
        for plan in wrong
    ):
        return False
    return near_the_best(arguments, reference(**arguments)) is None


ALLOCATE_BITS = Exercise(
    id="calibration.allocate_bits",
    title="Decide: where the bits go",
    points=4,
    minutes=15,
    difficulty=3,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "the same bits everywhere",
            "Every layer gets the same: a layer that hardly cares takes bits from one that does. "
            "What does one more bit buy in each of them?",
            _uniform,
        ),
        Mistake(
            "sizes ignored",
            "You average over layers as if they were equally large: a bit more in a large layer "
            "costs more of the budget. By what is each layer's bits multiplied?",
            _sizes_ignored,
        ),
        Mistake(
            "drop in error alone",
            "You raise the layer whose error falls most, whatever it costs: a large layer eats the "
            "budget of several small ones. What do you get for each bit that you spend?",
            _drop_alone,
        ),
        Mistake(
            "one step over",
            "The last step breaks the budget: you check it before you raise a layer, not after. "
            "What is the average once the step is taken?",
            _one_step_over,
        ),
        Mistake(
            "largest layers first",
            "The largest layers get the most bits, and size is what a bit costs, not what it buys. "
            "Which column says what is gained?",
            _largest_first,
        ),
    ),
    hints=(
        "The average is over weights, not over layers, and it stays within the budget. Take any "
        "bits from one layer and give them to another: the total error must not fall by much.",
        "Three layers of 100, 100 and 200 weights at 2 bits, errors 0.9, 0.3, 0.8; at 4 bits 0.1, "
        "0.1, 0.1. Budget 2.5: 200 bits to spend. A bit buys 0.8/200, 0.2/200 and 0.7/400: the "
        "first layer goes to 4 bits, and the budget is used up.",
        "plan = lowest bits for every layer\n"
        "repeat: for each layer and each higher level that keeps the average within the budget\n"
        "    worth = (error now - error then) / (size * (bits then - bits now))\n"
        "    take the step that is worth most; stop where none fits",
    ),
    compare=Invariant(near_the_best, match=Exact()),
    alternatives=(_by_trying_all,),
)
