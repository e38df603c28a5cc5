"""What the explorer of lesson 02 shows for a state: a function of the bench, no widget, no picture."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

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


@dataclass(frozen=True)
class State:
    """One setting of the controls. group: weights that share a scale, or "row"."""

    bits: int = 4
    group: int | str = 32
    symmetric: bool = True


@dataclass(frozen=True)
class Trade:
    """What the next smaller group would buy, beside what more bits in the codes would.

    smaller: that group. more_bits: bits a weight that it adds. kl_factor: KL after over KL before.
    a_bit_of_metadata, a_bit_of_code: the factor for one whole bit of each kind, 0 .. 1 where it
    helps; the smaller one is the better buy.
    """

    smaller: int | str
    more_bits: float
    kl_factor: float
    a_bit_of_metadata: float
    a_bit_of_code: float

    @property
    def pays(self) -> bool:
        """A bit of metadata takes more off the KL than a bit of code."""
        return self.a_bit_of_metadata < self.a_bit_of_code


@dataclass(frozen=True)
class View:
    """What is shown for a state. trade: None where there is nothing to compare with."""

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
        return " ".join((self.headline, self.bits, self.codes, self.paying, *self.notes))


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
    """The next smaller group against more bits of code, both per whole bit.

    None at 8 bits, at the smallest group, and where the next group costs nothing (short rows).
    """
    place = GROUPS.index(state.group)
    if state.bits not in MORE_BITS or place + 1 == len(GROUPS):
        return None
    smaller = GROUPS[place + 1]

    def found(bits: int, group: int | str) -> Damage:
        # Zero points exist at 8 bits for whole rows only: codes are bought without them.
        symmetric = state.symmetric or bits == 8
        return bench.damage(scheme_of(State(bits, group, symmetric), bench.longest_row))

    here = found(state.bits, state.group)
    finer = found(state.bits, smaller)
    wider = found(MORE_BITS[state.bits], state.group)
    more_bits = finer.bits_per_weight - here.bits_per_weight
    if more_bits <= 0:
        return None

    def a_bit(there: Damage) -> float:
        added = there.bits_per_weight - here.bits_per_weight
        return (max(there.kl_nats, 1e-12) / max(here.kl_nats, 1e-12)) ** (1 / added)

    factor = finer.kl_nats / max(here.kl_nats, 1e-12)
    return Trade(smaller, more_bits, factor, a_bit(finer), a_bit(wider))


def stops_paying(bench: Bench, bits: int = 4, symmetric: bool = True) -> int | str:
    """Answers `QUESTION`: the largest group from which the next smaller one no longer pays.

    The smallest group on offer where every step pays. Raises ValueError for bits other than
    4, 3, 2.
    """
    if bits not in MORE_BITS:
        raise ValueError(f"bits must be one of {', '.join(map(str, MORE_BITS))}, got {bits}")
    for group in GROUPS:
        exchange = trade(bench, State(bits, group, symmetric))
        if exchange is not None and not exchange.pays:
            return group
    return GROUPS[-1]


def group_name(group: int | str) -> str:
    """ "groups of 32", "one scale a row"."""
    return "one scale a row" if group == ROW else f"groups of {group}"


def _name(state: State) -> str:
    kind = "symmetric" if state.symmetric else "with zero points"
    return f"int{state.bits}, {group_name(state.group)}, {kind}"


def _paying(state: State, exchange: Trade | None) -> str:
    if state.bits not in MORE_BITS:
        return (
            "At 8 bits there are no more bits of code to buy here: choose fewer to see the trade."
        )
    if exchange is None:
        if state.group == GROUPS[-1]:
            return f"{group_name(state.group).capitalize()} are the smallest on offer."
        return "No row is longer than that: the next smaller group changes nothing."
    to = MORE_BITS[state.bits]
    verdict = "Metadata pays." if exchange.pays else "Metadata no longer pays."
    return (
        f"{group_name(exchange.smaller).capitalize()} would add {digits(exchange.more_bits)} bits and "
        f"multiply KL by {digits(exchange.kl_factor)}: at that rate a whole bit of metadata "
        f"multiplies it by {digits(exchange.a_bit_of_metadata)}. A bit of code, on the way from "
        f"int{state.bits} to int{to}, multiplies it by {digits(exchange.a_bit_of_code)}. {verdict}"
    )


def _notes(state: State) -> tuple[str, ...]:
    if state.bits == 8 and not state.symmetric and state.group != ROW:
        return ("Note: int8 in groups has no zero points; the symmetric one is shown.",)
    return ()
