"""What the replay of lesson 06 says about one round: a function of recorded runs, no picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from slmlab.speculative import Round
from slmlab.widgets.speculative_bench import Bench, Race
from slmlab.widgets.units import digits

QUESTION = (
    "A server has one draft length for all its texts. Which one gives up least, for the kind that it "
    "hurts most, of that kind's own best speed?"
)
_SHOWN = 7  # characters of a token in a box


@dataclass(frozen=True)
class State:
    """One setting of the controls. length: tokens proposed a round. at: the round, from 1."""

    domain: str
    length: int
    at: int


@dataclass(frozen=True)
class Box:
    """One token of a round. kind: "accepted", "rejected", "unchecked" or "own" (the target's)."""

    text: str
    kind: str


@dataclass(frozen=True)
class View:
    """What is shown for a state.

    rows: the rounds so far, each as its boxes. written: the text so far as (piece, kind), each
    piece "accepted" or "own". speed, predicted: of this domain and length, in times of plain
    decoding. headline, here, rates, costs, everyone: one sentence each.
    """

    state: State
    rows: tuple[tuple[Box, ...], ...]
    written: tuple[tuple[str, str], ...]
    speed: float
    predicted: float
    headline: str
    here: str
    rates: str
    costs: str
    everyone: str

    @property
    def text(self) -> str:
        """All sentences in reading order."""
        return " ".join((f"{self.headline}.", self.here, self.rates, self.costs, self.everyone))


def rounds_of(bench: Bench, domain: str, length: int) -> tuple[Round, ...]:
    """The rounds that the widget replays: those of the domain's first text."""
    return bench.races[domain][length].replays[0]


def given_up(bench: Bench, domain: str, length: int) -> float:
    """Share of the domain's own best speed that this draft length loses, 0 at its best length."""
    races = bench.races[domain]
    return 1 - races[length].speedup / races[best_measured(races)].speedup


def most_hurt(bench: Bench, length: int) -> str:
    """The domain that gives up most at this draft length."""
    return max(bench.domains, key=lambda domain: given_up(bench, domain, length))


def best_for_all(bench: Bench) -> int:
    """Answers `QUESTION`: the draft length at which the domain that it hurts most gives up least."""
    return min(bench.lengths, key=lambda n: given_up(bench, most_hurt(bench, n), n))


def best_measured(races: Mapping[int, Race]) -> int:
    """The draft length with the largest measured speed-up."""
    return max(races, key=lambda length: races[length].speedup)


def visible(text: str, most: int = _SHOWN) -> str:
    """A token that can be seen: blanks and line ends as signs, long ones cut."""
    shown = text.replace("\n", "\u23ce").replace("\t", "\u2192").replace(" ", "\u00b7")
    shown = "".join(sign if sign.isprintable() else "?" for sign in shown)
    return (shown if len(shown) <= most else shown[: most - 1] + "\u2026") or "?"


def view(bench: Bench, state: State) -> View:
    """What to show for ``state``.

    Raises ValueError for a domain, a length or a round that was not recorded.
    """
    _check(bench, state)
    race = bench.races[state.domain][state.length]
    rounds = rounds_of(bench, state.domain, state.length)
    tokens = bench.texts[state.domain][0].tokens
    done = rounds[: state.at]
    alpha, (low, high) = bench.alpha(state.domain), bench.interval(state.domain)
    predicted = bench.costs.speedup(alpha, state.length)
    now = done[-1]
    rest = len(now.proposed) - now.accepted
    worst = most_hurt(bench, state.length)
    each = ", ".join(
        f"{domain} {given_up(bench, domain, state.length):.0%}" for domain in bench.domains
    )
    return View(
        state=state,
        rows=tuple(_boxes(bench, one) for one in done),
        written=_written(bench, tokens, done),
        speed=race.speedup,
        predicted=predicted,
        headline=(
            f"{state.domain}, draft length {state.length}: {race.speedup:.2f} times plain decoding "
            f"(formula: {predicted:.2f})"
        ),
        here=(
            f"Round {state.at} of {len(rounds)}: {len(now.proposed)} proposed, {now.accepted} accepted, "
            f"{rest} thrown away, 1 from the target."
        ),
        rates=(
            f"Of its guesses {alpha:.0%} hold ({low:.0%} to {high:.0%}); a round gives "
            f"{digits(race.tokens_per_round)} tokens."
        ),
        costs=(
            f"A round takes {digits(race.round_steps)} plain steps, "
            f"{race.draft_seconds / race.seconds:.0%} of that in the draft."
        ),
        everyone=(
            f"Given up at this length, of each kind's own best speed: {each}; hurt most: {worst}."
        ),
    )


def _boxes(bench: Bench, one: Round) -> tuple[Box, ...]:
    boxes = []
    for place, token in enumerate(one.proposed):
        kind = (
            "accepted"
            if place < one.accepted
            else "rejected"
            if place == one.accepted
            else "unchecked"
        )
        boxes.append(Box(visible(bench.decode([token])), kind))
    return (*boxes, Box(visible(bench.decode([one.extra])), "own"))


def _written(
    bench: Bench, tokens: Sequence[int], done: Sequence[Round]
) -> tuple[tuple[str, str], ...]:
    """The text as it grew; decoded from its beginning, for a character may span several tokens."""
    pieces, at, before = [], 0, ""
    for one in done:
        for kind, count in (("accepted", one.accepted), ("own", 1)):
            at = min(at + count, len(tokens))
            whole = bench.decode(list(tokens[:at]))
            if len(whole) > len(before):
                pieces.append((whole[len(before) :], kind))
                before = whole
    return tuple(pieces)


def _check(bench: Bench, state: State) -> None:
    if not isinstance(state, State):
        raise TypeError(f"state must be a State, got {type(state).__name__}")
    for name, value, offered in (
        ("domain", state.domain, bench.domains),
        ("length", state.length, bench.lengths),
    ):
        if value not in offered:
            raise ValueError(
                f"state.{name}={value!r} was not recorded; choose one of "
                f"{', '.join(map(str, offered))}"
            )
    last = len(rounds_of(bench, state.domain, state.length))
    if not 1 <= state.at <= last:
        raise ValueError(f"state.at={state.at} must lie in 1 .. {last}, the rounds of this run")
