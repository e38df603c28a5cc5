"""English command -> JSON tool call, in chat form.

    <|user|>
    set a timer for 15 minutes
    <|assistant|>
    {"tool": "set_timer", "arguments": {"minutes": 15}}

The answer is a function of the prompt: it adds no bits. Held out: a hashed 5% of the argument
combinations of every tool. Training never shows them; the evaluation split shows nothing else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import cache
from itertools import product

from slmlab.data.grammar.chooser import EVALUATION, TRAINING, Chooser, is_held_out
from slmlab.data.grammar.tools import TOOLS, Tool, Value
from slmlab.data.special_tokens import ASSISTANT, USER

Combination = tuple[Value, ...]


@cache
def combinations(split: str, tool: Tool) -> tuple[Combination, ...]:
    """The argument values of `tool` that belong to `split`, one of each argument.

    A combination in which one value stands twice (a route from a city to itself) is left out.
    """
    wanted = split == EVALUATION
    return tuple(
        values
        for values in product(*(options for _, options in tool.arguments))
        if len({value.spoken for value in values}) == len(values)
        and is_held_out("tool_calls", tool.name, *(value.spoken for value in values)) == wanted
    )


def render(tool: Tool, phrasing: str, values: Combination) -> tuple[str, str]:
    """(prompt, answer) for one tool, one phrasing and one value for each argument."""
    names = [name for name, _ in tool.arguments]
    spoken = {name: value.spoken for name, value in zip(names, values, strict=True)}
    arguments = {name: value.meant for name, value in zip(names, values, strict=True)}
    command = phrasing.format(**spoken)
    answer = json.dumps({"tool": tool.name, "arguments": arguments})
    return f"{USER}\n{command}\n{ASSISTANT}\n", answer


def generate(
    chooser: Chooser, split: str = TRAINING, tools: Sequence[Tool] = TOOLS
) -> tuple[str, str]:
    """(prompt, answer) of one command.

    One derivation a text: the JSON names the tool and its values, and no two phrasings of a tool
    read the same for the same values.
    """
    tool = chooser.pick(tools)
    values = chooser.pick(combinations(split, tool))
    return render(tool, chooser.pick(tool.phrasings), values)


def entropy(split: str = TRAINING, tools: Sequence[Tool] = TOOLS) -> float:
    """Mean bits of a command: the tool, then its values, then the phrasing."""
    rest = [
        math.log2(len(combinations(split, tool))) + math.log2(len(tool.phrasings)) for tool in tools
    ]
    return math.log2(len(tools)) + sum(rest) / len(rest)
