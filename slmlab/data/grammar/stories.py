"""Tiny stories in which one thing changes hands, and the last word has to know where it went.

Four to eight sentences. Two children, a place, a coloured thing; up to four events change the
place or the owner. The end names the owner, the place or the thing, which is a function of
what was told: it adds no bits. Held out: a hashed 5% of (colour, thing); every evaluation story is
about such a pair.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

from slmlab.data.grammar.chooser import EVALUATION, TRAINING, Chooser, is_held_out
from slmlab.data.grammar.words import words

Pronouns = tuple[str, str, str]
SHE: Pronouns = ("she", "her", "her")
HE: Pronouns = ("he", "him", "his")


@dataclass(frozen=True)
class Lexicon:
    """The words of a story. Every list holds distinct words."""

    people: tuple[tuple[str, Pronouns], ...]
    places: tuple[str, ...]
    colours: tuple[str, ...]
    things: tuple[str, ...]
    times: tuple[str, ...]
    feelings: tuple[str, ...]
    foods: tuple[str, ...]
    events: tuple[int, int] = (0, 4)


LEXICON = Lexicon(
    people=(
        *((name, SHE) for name in words("Mia Lily Anna Rosa Ella Nora Ruth Jane Amy Eva")),
        *((name, HE) for name in words("Tom Ben Max Leo Sam Jack Paul Finn Omar Ned")),
    ),
    places=words("park lake forest garden beach market farm school river library"),
    colours=words("red blue green yellow white black brown pink silver golden"),
    things=words(
        "ball kite boat drum book hat bell bag lamp cup doll flag map rope bucket blanket"
    ),
    times=("morning", "afternoon", "summer day", "winter day", "Sunday", "holiday"),
    feelings=words("happy tired proud curious hungry cheerful calm excited"),
    foods=words("bread apples soup cake cheese nuts plums pancakes"),
)

OPENINGS = (
    "One {time}, {hero} went to the {place}.",
    "It was a quiet {time}, and {hero} walked to the {place}.",
    "{hero} spent the {time} at the {place}.",
    "{hero} loved the {place} and went there every {time}.",
)
FINDINGS = (
    "{He} had a {colour} {thing} with {him}.",
    "In {his} bag {he} carried a {colour} {thing}.",
    "There {he} found a {colour} {thing}.",
    "{His} mother had given {him} a {colour} {thing}.",
)
MEETINGS = (
    "Soon {friend} came along.",
    "{friend} was there too.",
    "After a while {he} saw {friend}.",
    "{His} friend {friend} waved and ran to {him}.",
)
GIVING = (
    "{owner} gave the {thing} to {other}.",
    '"You can have my {thing}," said {owner} to {other}.',
    "{other} asked for the {thing}, and {owner} gave it away.",
)
MOVING = (
    "Then they went to the {place}.",
    "Later they walked to the {place} together.",
    "When it got cold, they moved on to the {place}.",
)
FEELING = (
    "{owner} held the {thing} and felt {feeling}.",
    "The {colour} {thing} made {owner} {feeling}.",
    "{other} looked at the {thing} and felt {feeling}.",
)
EATING = (
    "They sat down at the {place} and ate {food}.",
    "{owner} put the {thing} down, and they shared some {food}.",
    "{other} had brought {food} for both of them.",
)
EVENTS = (GIVING, MOVING, FEELING, EATING)
ENDINGS = (
    ("In the end the {colour} {thing} belonged to", " {owner}."),
    ("That evening the {thing} was in the hands of", " {owner}."),
    ("When the sun went down, they were still at the", " {place}."),
    ("At night {owner} dreamed of the", " {colour} {thing}."),
)


@cache
def objects(split: str, lexicon: Lexicon = LEXICON) -> tuple[tuple[str, str], ...]:
    """The (colour, thing) pairs that belong to `split`."""
    wanted = split == EVALUATION
    return tuple(
        (colour, thing)
        for colour in lexicon.colours
        for thing in lexicon.things
        if is_held_out("stories", colour, thing) == wanted
    )


def generate(
    chooser: Chooser, split: str = TRAINING, lexicon: Lexicon = LEXICON
) -> tuple[str, str]:
    """(prompt, answer) of one story; the answer is the end of its last sentence.

    One derivation a text: no two templates for one place in the story read alike, every slot is
    followed by fixed words, and who owns the thing where is computed, never chosen.
    """
    (hero, pronouns), (friend, _) = chooser.pick_distinct(lexicon.people, 2)
    colour, thing = chooser.pick(objects(split, lexicon))
    place = chooser.pick(lexicon.places)
    he, him, his = pronouns
    known = {"hero": hero, "friend": friend, "colour": colour, "thing": thing, "place": place}
    known |= {"he": he, "him": him, "his": his, "He": he.capitalize(), "His": his.capitalize()}
    known |= {"owner": hero, "other": friend, "time": chooser.pick(lexicon.times)}
    sentences = [chooser.pick(part).format(**known) for part in (OPENINGS, FINDINGS, MEETINGS)]
    for _ in range(chooser.between(*lexicon.events)):
        kind = chooser.pick(EVENTS)
        template = chooser.pick(kind)
        if kind is MOVING:
            known["place"] = chooser.pick([p for p in lexicon.places if p != known["place"]])
        elif kind is FEELING:
            known["feeling"] = chooser.pick(lexicon.feelings)
        elif kind is EATING:
            known["food"] = chooser.pick(lexicon.foods)
        sentences.append(template.format(**known))
        if kind is GIVING:
            known["owner"], known["other"] = known["other"], known["owner"]
    question, answer = chooser.pick(ENDINGS)
    sentences.append(question.format(**known))
    return " ".join(sentences), answer.format(**known)


def entropy(split: str = TRAINING, lexicon: Lexicon = LEXICON) -> float:
    """Mean bits of a story. Every choice has as many options whatever came before it."""
    people = math.log2(len(lexicon.people) * (len(lexicon.people) - 1))
    setting = math.log2(len(objects(split, lexicon)) * len(lexicon.places) * len(lexicon.times))
    frame = math.log2(len(OPENINGS) * len(FINDINGS) * len(MEETINGS) * len(ENDINGS))
    slots = (1, len(lexicon.places) - 1, len(lexicon.feelings), len(lexicon.foods))
    event = math.log2(len(EVENTS)) + sum(
        math.log2(len(kind) * slot) for kind, slot in zip(EVENTS, slots, strict=True)
    ) / len(EVENTS)
    low, high = lexicon.events
    return people + setting + frame + math.log2(high - low + 1) + (low + high) / 2 * event
