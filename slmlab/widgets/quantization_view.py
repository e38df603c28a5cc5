"""What the explorer of lesson 02 shows for a state: a function of the bench, no widget, no picture."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from torch import Tensor

from slmlab.widgets.quantization_bench import Bench, Damage, Steps
from slmlab.widgets.units import digits

BITS = (8, 4, 3, 2)
ROW = "row"
GROUPS: tuple[int | str, ...] = (ROW, 128, 64, 32, 16)
MORE_BITS = {2: 3, 3: 4, 4: 8}
QUESTION = (
    "With 4-bit codes, from one scale a row to ever smaller groups: at which group size does "
    "metadata stop paying?"
)
_CLEAR = 2.0  # standard errors


@dataclass(frozen=True)
class State:
    """One setting of the controls. group: weights that share a scale, or "row"."""

    bits: int = 4
    group: int | str = 32
    symmetric: bool = True


@dataclass(frozen=True)
class Trade:
    """What the metadata buys, beside what as many bits of code would.

    more_bits: bits a weight beyond one scale a row. code_kl_nats: KL of one scale a row with these
    bits spent on wider codes; between two widths it is read off the straight line that joins them
    where KL has a log axis.
    lead: code_kl_nats over the KL with the metadata; above 1 the metadata is the better buy.
    """

    more_bits: float
    code_kl_nats: float
    lead: float


@dataclass(frozen=True)
class Answer:
    """Where metadata stops paying. group: the one with the largest lead. leads: of every group.

    as_good: the other groups that these tokens cannot tell from it (two standard errors).
    """

    bits: int
    group: int | str
    leads: dict[int | str, float]
    as_good: tuple[int | str, ...]
    tokens: int

    @property
    def sentence(self) -> str:
        """One line: all leads, and what follows."""
        leads = ", ".join(f"{group} {lead:.2f}" for group, lead in self.leads.items())
        verdict = (
            "It never pays" if self.group == ROW else f"It pays down to {group_name(self.group)}"
        )
        text = f"int{self.bits}: lead of {leads}. {verdict}"
        if not self.as_good:
            return f"{text}, clearly."
        others = " and ".join(map(str, self.as_good))
        return f"{text}; {self.tokens} tokens cannot tell {others} from it."


@dataclass(frozen=True)
class View:
    """What is shown for a state. trade: None at 8 bits, where there are no wider codes."""

    state: State
    scheme: str
    damage: Damage
    steps: Steps
    trade: Trade | None
    headline: str
    bits: str
    codes: str
    paying: str
    notes: tuple[str, ...]

    @property
    def text(self) -> str:
        """All sentences in reading order."""
        return " ".join((self.headline, self.bits, self.codes, *self.notes, self.paying))


def scheme_of(state: State, longest_row: int = 65536) -> str:
    """The scheme's name; int8 in groups has no zero points, and the symmetric one stands in.

    longest_row: columns of the widest layer; a group of so many is one scale a row.
    """
    row = state.group == ROW
    if state.bits == 8:
        return ("int8" if state.symmetric else "int8-asym") if row else f"int8-g{state.group}"
    if state.symmetric:
        return f"int{state.bits}-{ROW if row else f'g{state.group}'}"
    return f"int{state.bits}-g{longest_row if row else state.group}-asym"


def all_schemes(longest_row: int = 65536) -> list[str]:
    """Every scheme that some state shows, once."""
    states = (State(*setting) for setting in itertools.product(BITS, GROUPS, (True, False)))
    return list(dict.fromkeys(scheme_of(state, longest_row) for state in states))


def view(bench: Bench, state: State) -> View:
    """What to show for ``state``; the bench tries what it has not tried yet."""
    scheme = scheme_of(state, bench.longest_row)
    damage, steps = bench.damage(scheme), bench.steps(scheme)
    exchange = trade(bench, state)
    return View(
        state=state,
        scheme=scheme,
        damage=damage,
        steps=steps,
        trade=exchange,
        headline=(
            f"{_name(state)}: {digits(damage.bits_per_weight, 4)} bits a weight, "
            f"KL {digits(damage.kl_nats)} nats a token."
        ),
        bits=(
            f"{state.bits} bits are code, {digits(damage.metadata_bits)} metadata. Weights come back "
            f"with an error of {digits(100 * damage.relative_error)} % (root mean square); "
            f"{digits(100 * damage.flips)} % of {damage.tokens} tokens would be chosen differently."
        ),
        codes=(
            f"The codes of {bench.matrix} carry {digits(steps.entropy_bits)} bits of information "
            f"in their {state.bits}."
        ),
        paying=_paying(state, exchange),
        notes=_notes(state),
    )


def trade(bench: Bench, state: State) -> Trade | None:
    """The metadata of ``state`` against as many bits of code. None at 8 bits: there are no wider."""
    if state.bits not in MORE_BITS:
        return None
    names, share = _on_the_line(bench, state)
    row, wider, here = map(bench.damage, names)
    kl = [max(found.kl_nats, 1e-12) for found in (row, wider, here)]
    code_kl = kl[0] ** (1 - share) * kl[1] ** share
    return Trade(here.bits_per_weight - row.bits_per_weight, code_kl, code_kl / kl[2])


def code_line(bench: Bench, state: State) -> tuple[Damage, Damage] | None:
    """The two ends of the line on which codes get wider, one scale a row; None at 8 bits."""
    if state.bits not in MORE_BITS:
        return None
    (row, wider, _), _ = _on_the_line(bench, state)
    return bench.damage(row), bench.damage(wider)


def _on_the_line(bench: Bench, state: State) -> tuple[tuple[str, str, str], float]:
    """One scale a row, the same with wider codes, and the state; where between the first two the
    state's bits lie, 0 .. 1."""

    def name(bits: int, group: int | str) -> str:
        return scheme_of(State(bits, group, state.symmetric), bench.longest_row)

    row, wider = name(state.bits, ROW), name(MORE_BITS[state.bits], ROW)
    here = name(state.bits, state.group)
    start, end, bits = (bench.damage(n).bits_per_weight for n in (row, wider, here))
    return (row, wider, here), (bits - start) / (end - start)


def stops_paying(bench: Bench, bits: int = 4, symmetric: bool = True) -> Answer:
    """Answers `QUESTION`: the group with the largest lead, and which others are as good.

    Raises ValueError for bits other than 4, 3, 2.
    """
    if bits not in MORE_BITS:
        raise ValueError(f"bits must be one of {', '.join(map(str, MORE_BITS))}, got {bits}")
    leads: dict[int | str, float] = {}
    changes: dict[int | str, Tensor] = {}
    for group in GROUPS:
        state = State(bits, group, symmetric)
        exchange = trade(bench, state)
        assert exchange is not None
        leads[group] = exchange.lead
        names, share = _on_the_line(bench, state)
        # What each token does to the logarithm of the lead: to first order, its share of each KL.
        row, wider, here = (kl / kl.mean() for kl in map(bench.kl_by_token, names))
        changes[group] = (1 - share) * row + share * wider - here
    best = max(leads, key=lambda group: leads[group])

    def is_as_good(group: int | str) -> bool:
        between = changes[best] - changes[group]
        error = float(between.std()) / math.sqrt(len(between))
        return math.log(leads[best] / leads[group]) <= _CLEAR * error

    as_good = tuple(group for group in GROUPS if group != best and is_as_good(group))
    return Answer(bits, best, leads, as_good, len(changes[best]))


def group_name(group: int | str) -> str:
    """ "groups of 32", "one scale a row"."""
    return "one scale a row" if group == ROW else f"groups of {group}"


def _name(state: State) -> str:
    kind = "symmetric" if state.symmetric else "with zero points"
    return f"int{state.bits}, {group_name(state.group)}, {kind}"


def _paying(state: State, exchange: Trade | None) -> str:
    if exchange is None:
        return "At 8 bits there are no wider codes to compare with: choose fewer to see the trade."
    if state.group == ROW:
        return (
            "Metadata and wider codes start here. Make the groups smaller and see which takes more "
            "off the KL."
        )
    behind = "" if exchange.lead >= 1 else ", so it is behind"
    return (
        f"Spent on wider codes, the same {digits(exchange.more_bits)} bits would give KL "
        f"{digits(exchange.code_kl_nats)} (dashed line): the lead of the metadata is "
        f"{exchange.lead:.2f} times{behind}."
    )


def _notes(state: State) -> tuple[str, ...]:
    if state.bits == 8 and not state.symmetric and state.group != ROW:
        return ("Note: int8 in groups has no zero points; the symmetric one is shown.",)
    return ()
