"""anatomy.choose_deployment: the scheme that meets memory and speed at the least loss."""

from __future__ import annotations

import random
from functools import partial
from types import SimpleNamespace
from typing import Any

from slmlab.checking import Case, Exact, Exercise, Invariant, Mistake
from slmlab.kv import kv_bytes

Schemes = dict[str, tuple[float, float]]
Numbers = dict[str, float]

# A published 1.24-billion shape, for the two cases whose numbers are fixed.
FIXED_MODEL: Numbers = {
    "parameters": 1.24e9,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "head_dim": 64,
}
GOOD, MIDDLE, SMALL = ("int8", (8.5, 0.01)), ("int4", (4.5, 0.05)), ("int2", (2.5, 0.9))
FEWER_BITS_BETTER = ("int4-calibrated", (4.5, 0.03)), ("int5", (5.5, 0.06))


def cases(seed: int) -> list[Case]:
    """One budget at a time decides; a real table with both budgets comes last."""
    draw = random.Random(seed)
    model: Numbers = {
        "parameters": draw.randint(8, 40) * 10**8,
        "num_hidden_layers": draw.randint(12, 32),
        "num_key_value_heads": draw.choice((4, 8)),
        "head_dim": 128,
    }
    weights = model["parameters"] / 8e9
    kv = _kv_gb(model, 1)
    # As many tokens as make the cache weigh what five bits a weight would.
    long_context = round(5 * weights / kv)

    def case(memory: float, budget: float, context: int, *schemes: tuple[str, Any]) -> Case:
        """Both budgets are given in bits a weight, and the cache is added to each.

        `memory` is what fits, `budget` what the bandwidth delivers for one token.
        """
        bandwidth = float(draw.choice((20, 50, 100)))
        cached = context * kv
        return Case(
            {
                "device": {
                    "memory_gb": _three_digits(memory * weights + cached),
                    "bandwidth_gb_s": bandwidth,
                },
                "model": model,
                "schemes": dict(schemes),
                "context": context,
                "tokens_per_second": _three_digits(bandwidth / (budget * weights + cached)),
            }
        )

    loose, short = 30.0, draw.randint(1, 9)
    table = [GOOD, MIDDLE, SMALL, *FEWER_BITS_BETTER, ("float16", (16.0, 0.0))]
    draw.shuffle(table)
    limits = [draw.uniform(5.8, 8.2), draw.uniform(4.7, 5.3)]
    draw.shuffle(limits)
    return [
        case(loose, loose, short, SMALL, MIDDLE),
        case(3.5, loose, short, SMALL, MIDDLE),
        case(loose, 3.5, short, SMALL, MIDDLE),
        case(1.5, loose, short, SMALL, MIDDLE),
        # Weights alone fit twice over; with the cache only the smaller scheme does.
        case(3.5, loose, long_context, SMALL, MIDDLE),
        case(loose, loose, short, *FEWER_BITS_BETTER),
        *fixed_cases(),
        case(limits[0], limits[1], long_context, *table),
        case(limits[1], limits[0], short, *table),
        case(loose, 1.5, short, *table),
    ]


def fixed_cases() -> list[Case]:
    """The cache slows down what fits easily; 2**30 bytes to a GB fits or runs one scheme more."""
    six = ("int6", (6.75, 0.01))

    def case(memory: float, context: int, rate: float, *schemes: tuple[str, Any]) -> Case:
        device = {"memory_gb": memory, "bandwidth_gb_s": 50.0}
        arguments = {"device": device, "model": FIXED_MODEL, "schemes": dict(schemes)}
        return Case(arguments | {"context": context, "tokens_per_second": rate})

    return [
        case(8.0, 32768, 36.0, GOOD, MIDDLE),
        case(1.0, 0, 10.0, six, MIDDLE),
        case(8.0, 0, 49.0, six, MIDDLE),
    ]


def _three_digits(value: float) -> float:
    # What a counterexample prints must be the number that decides.
    return float(f"{value:.3g}")


def _kv_gb(model: Numbers, context: int) -> float:
    heads = model["num_key_value_heads"]
    return kv_bytes(SimpleNamespace(num_attention_heads=heads, **model), context) / 1e9


def needed_gb(model: Numbers, bits: float, context: int) -> float:
    """GB (10**9 bytes) that the weights and the fp16 cache take, and that one token reads."""
    return model["parameters"] * bits / 8e9 + _kv_gb(model, context)


def _why_not(arguments: dict[str, Any], scheme: str) -> str | None:
    """The budget that a scheme breaks, with its numbers; None where it meets both."""
    device, bits = arguments["device"], arguments["schemes"][scheme][0]
    size = needed_gb(arguments["model"], bits, arguments["context"])
    rate, wanted = device["bandwidth_gb_s"] / size, arguments["tokens_per_second"]
    if size > device["memory_gb"]:
        return f"needs {size:.4g} GB with its KV cache and the device has {device['memory_gb']:.4g}"
    if rate < wanted:
        return f"reaches {rate:.4g} tokens a second at most and {wanted:.4g} are asked for"
    return None


def best_that_fits(arguments: dict[str, Any], output: Any) -> str | None:
    """None where `output` meets both budgets and no scheme that does loses less."""
    schemes: Schemes = arguments["schemes"]
    fitting = [name for name in schemes if _why_not(arguments, name) is None]
    if output is None:
        return f"You return None, and {fitting[0]!r} meets both budgets." if fitting else None
    if not isinstance(output, str) or output not in schemes:
        return "Return the name of a scheme from the table, or None where none fits."
    broken = _why_not(arguments, output)
    if broken is not None:
        return f"{output!r} {broken}."
    better = [name for name in fitting if schemes[name][1] < schemes[output][1]]
    if better:
        return f"{output!r} meets both budgets, and {better[0]!r} does too and loses less quality."
    return None


def reference(
    device: Numbers, model: Numbers, schemes: Schemes, context: int, tokens_per_second: float
) -> str | None:
    """Least loss among the schemes that meet both budgets, None where none does."""
    arguments = {
        "device": device,
        "model": model,
        "schemes": schemes,
        "context": context,
        "tokens_per_second": tokens_per_second,
    }
    fitting = [name for name in schemes if _why_not(arguments, name) is None]
    return min(fitting, key=lambda name: schemes[name][1], default=None)


def _choose(
    device: Numbers,
    model: Numbers,
    schemes: Schemes,
    context: int,
    tokens_per_second: float,
    *,
    cache_in_memory: bool = True,
    cache_in_speed: bool = True,
    gigabyte: float = 1e9,
    memory: bool = True,
    speed: bool = True,
    most_bits: bool = False,
) -> str | None:
    def bits(name: str) -> float:
        return schemes[name][0]

    def fits(name: str) -> bool:
        stored = needed_gb(model, bits(name), context if cache_in_memory else 0) * 1e9 / gigabyte
        read = needed_gb(model, bits(name), context if cache_in_speed else 0) * 1e9 / gigabyte
        enough = not memory or stored <= device["memory_gb"]
        return enough and (not speed or device["bandwidth_gb_s"] / read >= tokens_per_second)

    fitting = [name for name in schemes if fits(name)]
    if most_bits:
        return max(fitting, key=bits, default=None)
    return min(fitting, key=lambda name: schemes[name][1], default=None)


def _one_budget(
    device: Numbers, model: Numbers, schemes: Schemes, context: int, tokens_per_second: float
) -> str | None:
    budget = 1e9 * min(device["memory_gb"], device["bandwidth_gb_s"] / tokens_per_second)
    heads_width = model["num_key_value_heads"] * model["head_dim"]
    left = budget - 2 * model["num_hidden_layers"] * heads_width * 2 * context
    for name, (bits, _) in sorted(schemes.items(), key=lambda item: item[1][1]):
        if model["parameters"] * bits / 8 <= left:
            return name
    return None


CHOOSE_DEPLOYMENT = Exercise(
    id="anatomy.choose_deployment",
    title="Decide: which scheme goes on this device",
    points=4,
    minutes=12,
    difficulty=3,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "KV cache ignored",
            "Short contexts are right, long ones are not: the cache takes memory and is read for "
            "every token. Which two budgets does it eat from?",
            partial(_choose, cache_in_memory=False, cache_in_speed=False),
        ),
        Mistake(
            "KV cache missing from the speed",
            "You count the cache where it lies in memory and not where it is read: your choice is "
            "too slow for a long context. Which bytes does one token read?",
            partial(_choose, cache_in_speed=False),
        ),
        Mistake(
            "speed ignored",
            "Your choice fits in memory and is too slow: a token reads every weight and the whole "
            "cache. How many of those reads a second does the bandwidth allow?",
            partial(_choose, speed=False),
        ),
        Mistake(
            "memory ignored",
            "Your choice is fast enough and does not fit: weights and cache lie in memory together. "
            "How many GB is that?",
            partial(_choose, memory=False),
        ),
        Mistake(
            "GiB for GB",
            "You take a GB as 2**30 bytes and so see 7% more memory and bandwidth than there is: "
            "the statement counts 10**9. By what do you divide bytes?",
            partial(_choose, gigabyte=2.0**30),
        ),
        Mistake(
            "most bits chosen",
            "You take the scheme with the most bits, and another that fits loses less: more bits do "
            "not always mean better. Which column of the table says what is lost?",
            partial(_choose, most_bits=True),
        ),
    ),
    hints=(
        "The scheme you return meets both budgets, and every scheme that loses less breaks one of "
        "them. Check your answer against that sentence: which half fails?",
        "0.8e9 parameters, 12 layers, 4 KV heads of 128, context 1,000 (cache 0.0246 GB), 0.6 GB, "
        "50 GB/s, 80 tokens a second. Three schemes: int8 8.5 bits needs 0.8746 GB, too large; int4 "
        "4.5 bits 0.4746 GB, 105.4 tokens a second, fits; int2 2.5 bits 0.2746 GB, fits and loses "
        "more. Answer int4.",
        "cache = 2 * layers * kv_heads * head_dim * 2 bytes * context\n"
        "for each scheme: size = parameters * bits / 8 + cache\n"
        "    fits where size <= memory and bandwidth / size >= tokens_per_second\n"
        "return the fitting one with the least loss, None where there is none",
    ),
    compare=Invariant(best_that_fits, match=Exact()),
    alternatives=(_one_budget,),
)
