"""Answers worked out from the prompt alone, by other means than the generator's."""

from __future__ import annotations

import re


def sums_answer(prompt: str) -> str:
    left, right = prompt.split("\n")[-1].rstrip("=").split("+")
    return str(int(left) + int(right))


def recall_answer(prompt: str) -> str:
    stored, asked = prompt.removeprefix("store:\n").split("ask:\n")
    pairs = dict(line.split(" ") for line in stored.splitlines())
    return f" {pairs[asked.splitlines()[-1]]}"


def coloured_thing(prompt: str) -> str:
    """Colour and thing of a story: the second sentence names them after an article."""
    return re.findall(r" a (\w+ \w+)(?: with h\w+)?\.", prompt)[0]


def stories_answer(prompt: str) -> str:
    """Follow the thing from sentence to sentence."""
    colour, thing = coloured_thing(prompt).split()
    people = re.findall(
        r"\b(?!In|One|It|She|He|Her|His|There|Soon|After|Then|Later|When|The|They)"
        r"(?!You|That|At|Sunday)([A-Z][a-z]+)\b",
        prompt,
    )
    owner = people[0]
    place = ""
    for sentence in re.split(r"(?<=\.) ", prompt):
        moved = re.search(
            r"(?:went|walked|moved on) to the (\w+)|at the (\w+)\.|loved the (\w+) and", sentence
        )
        if moved:
            place = next(group for group in moved.groups() if group)
        given = re.search(r"^(\w+) gave the \w+ to (\w+)\.", sentence)
        offered = re.search(r'," said (\w+) to (\w+)\.', sentence)
        asked = re.search(r"^(\w+) asked for the \w+, and (\w+) gave it away", sentence)
        if given:
            assert given[1] == owner
            owner = given[2]
        if offered:
            assert offered[1] == owner
            owner = offered[2]
        if asked:
            assert asked[2] == owner
            owner = asked[1]
    last = prompt.rsplit(". ", 1)[-1]
    if last.endswith("at the"):
        return f" {place}."
    if last.endswith("dreamed of the"):
        assert f"At night {owner} " in last
        return f" {colour} {thing}."
    return f" {owner}."
