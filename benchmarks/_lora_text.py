"""One domain that tiny has never seen: commands to a greenhouse, as JSON tool calls.

The grammar of `slmlab.data.grammar.tool_calls` with seven new tools: the same bytes on every machine.
Training and held-out texts are drawn from other streams, and the held-out ones hold argument
combinations (a hashed 5%) that training never shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from slmlab.data.grammar import Chooser, stream, tool_calls
from slmlab.data.grammar.tools import Tool, Value


def _words(text: str) -> tuple[Value, ...]:
    return tuple(Value(word, word) for word in text.split(", "))


def _numbers(numbers: range) -> tuple[Value, ...]:
    return tuple(Value(str(number), number) for number in numbers)


PLANTS = _words("tomatoes, basil, peppers, lettuce, orchids, ferns, chillies, mint, beans, melons")
BEDS = tuple(Value(f"bed {n}", n) for n in range(1, 13))
SENSORS = _words("moisture, humidity, light, acidity")
TOOLS = (
    Tool(
        "water_bed",
        (("bed", BEDS), ("litres", _numbers(range(1, 21)))),
        (
            "give {bed} {litres} litres",
            "water {bed} with {litres} litres",
            "{litres} litres of water for {bed}",
        ),
    ),
    Tool(
        "open_vent",
        (("bed", BEDS), ("percent", _numbers(range(5, 101, 5)))),
        (
            "open the vent over {bed} to {percent} percent",
            "vent over {bed} at {percent} percent",
            "let in air at {bed}, {percent} percent",
        ),
    ),
    Tool(
        "read_sensor",
        (("sensor", SENSORS), ("bed", BEDS)),
        ("what is the {sensor} in {bed}", "read the {sensor} of {bed}", "{sensor} of {bed} please"),
    ),
    Tool(
        "sow_seeds",
        (("plant", PLANTS), ("bed", BEDS)),
        ("sow {plant} in {bed}", "put seeds of {plant} into {bed}", "I want {plant} in {bed}"),
    ),
    Tool(
        "order_pots",
        (("count", _numbers(range(2, 40))), ("plant", PLANTS)),
        ("order {count} pots for {plant}", "we need {count} pots for the {plant}"),
    ),
    Tool(
        "shade_plants",
        (("plant", PLANTS), ("hours", _numbers(range(1, 13)))),
        (
            "shade the {plant} for {hours} hours",
            "keep the sun off the {plant} for {hours} hours",
        ),
    ),
    Tool(
        "harvest",
        (("plant", PLANTS), ("grams", _numbers(range(50, 1001, 50)))),
        ("pick {grams} grams of {plant}", "harvest {grams} grams of {plant} today"),
    ),
)


@dataclass(frozen=True)
class Command:
    prompt: str
    answer: str

    @property
    def text(self) -> str:
        return self.prompt + self.answer


def commands(split: str, seed: int) -> Iterator[Command]:
    """An endless stream of one split, "training" or "evaluation"."""
    chooser = Chooser(stream(f"greenhouse/{split}", seed))
    while True:
        yield Command(*tool_calls.generate(chooser, split, TOOLS))


def held_out(count: int) -> tuple[Command, ...]:
    """Distinct commands with combinations that training never shows; the same for every run."""
    found: dict[str, Command] = {}
    for command in commands("evaluation", 0):
        found.setdefault(command.text, command)
        if len(found) == count:
            break
    return tuple(found.values())


def training_rows(tokenizer: object, rows: int, time: int, seed: int) -> Tensor:
    """(rows, time + 1) int64: commands one behind the other, each ended by the end of text."""
    end: int = tokenizer.eos_token_id  # type: ignore[attr-defined]
    ids = [end]
    for command in commands("training", seed):
        if len(ids) >= rows * time + 1:
            break
        ids += [*tokenizer.encode(command.text, add_special_tokens=False), end]  # type: ignore[attr-defined]
    # Neighbours share a token: the last of one row is the first of the next, and none is untrained.
    return torch.stack([torch.tensor(ids[r * time : (r + 1) * time + 1]) for r in range(rows)])
