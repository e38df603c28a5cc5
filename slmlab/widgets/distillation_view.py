"""What the explorer of lesson 07 says about one position: a function of logits, no picture."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from slmlab.distill.losses import Divergence
from slmlab.widgets.distillation_bench import Bench
from slmlab.widgets.speculative_view import visible
from slmlab.widgets.units import digits

QUESTION = (
    "Up to which temperature do the teacher's ten favourites get at least half of the upward pull, "
    "and does the divergence move that border?"
)
FAVOURITES, OVERRATED = 10, 3  # tokens in rows of their own: the teacher's, the student's
TEMPERATURES = (0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0, 8.0)
# From one end to the other; beta weighs the teacher in the mixture of the JSD.
PULLS: dict[str, tuple[str, float]] = {
    "forward KL": ("forward_kl", 0.5),
    "JSD, beta 0.1": ("jsd", 0.1),
    "JSD, beta 0.5": ("jsd", 0.5),
    "JSD, beta 0.9": ("jsd", 0.9),
    "reverse KL": ("reverse_kl", 0.5),
}
_TOKEN = 12  # characters


@dataclass(frozen=True)
class State:
    """One setting of the controls. divergence: a key of `PULLS`."""

    prompt: str
    divergence: str = "forward KL"
    temperature: float = 4.0


@dataclass(frozen=True)
class Row:
    """One token, or all others together. teacher, student: probability at the temperature.

    pull: minus the loss's gradient to the student's logit, in shares of all upward pull; what is
    pulled up and what is pulled down sum to 1 and -1. kind: "favourite", "overrated" or "others".
    """

    token: str
    teacher: float
    student: float
    up: float
    down: float
    kind: str


@dataclass(frozen=True)
class View:
    """What is shown for a state.

    favourites: share of the upward pull that goes to the teacher's ten. loss: with T squared, nats.
    headline, loss_line, tokens, strongest: one sentence each.
    """

    state: State
    rows: tuple[Row, ...]
    favourites: float
    loss: float
    headline: str
    loss_line: str
    tokens: str
    strongest: str

    @property
    def text(self) -> str:
        """All sentences in reading order."""
        return " ".join((f"{self.headline}.", self.loss_line, self.tokens, self.strongest))


def pull_of(teacher: Tensor, student: Tensor, divergence: str, temperature: float) -> Tensor:
    """Minus the gradient of the loss, T squared in it, to the student's logits: (V,) -> (V,)."""
    name, beta = PULLS[divergence]
    chosen = Divergence(name, temperature, beta)
    log_p = (teacher / temperature).log_softmax(-1)[None]
    log_q = (student / temperature).log_softmax(-1)[None]
    return -temperature * chosen.of(log_p, log_q, pull=True)[0]


def favourites_share(bench: Bench, state: State) -> float:
    """Share of the upward pull, 0 .. 1, that goes to the teacher's ten most likely tokens."""
    teacher, student = bench.teacher[state.prompt], bench.student[state.prompt]
    up = pull_of(teacher, student, state.divergence, state.temperature).clamp(min=0)
    return float(up[teacher.topk(min(FAVOURITES, len(teacher))).indices].sum() / up.sum())


def border(bench: Bench, prompt: str, divergence: str) -> float | None:
    """Answers `QUESTION`: the highest temperature offered up to which the favourites have at least
    half of the upward pull; None where they have less at the lowest."""
    reached = None
    for temperature in TEMPERATURES:
        if favourites_share(bench, State(prompt, divergence, temperature)) < 0.5:
            break
        reached = temperature
    return reached


def net_share(bench: Bench, state: State) -> float:
    """What the teacher's ten are pulled up less what they are pulled down, over all upward pull.

    -1 .. 1. All tokens together have 0.
    """
    teacher, student = bench.teacher[state.prompt], bench.student[state.prompt]
    pull = pull_of(teacher, student, state.divergence, state.temperature)
    ten = teacher.topk(min(FAVOURITES, len(teacher))).indices
    return float(pull[ten].sum() / pull.clamp(min=0).sum())


def border_sentence(bench: Bench) -> str:
    """Both halves of `QUESTION` answered in a sentence or two, from the logits."""
    first, last = next(iter(PULLS)), list(PULLS)[-1]
    ends = {name: [border(bench, prompt, name) for prompt in bench.prompts] for name in PULLS}

    def span(found: list[float | None]) -> str:
        low, high = min(t or 0.0 for t in found), max(t or 0.0 for t in found)
        words = [f"T = {digits(t)}" if t else "none offered" for t in (low, high)]
        return words[0] if low == high else f"{words[0]} to {words[1]}"

    pairs = list(zip(ends[first], ends[last], strict=True))
    lower = sum((b or 0) < (a or 0) for a, b in pairs)
    higher = sum((b or 0) > (a or 0) for a, b in pairs)
    return (
        f"With {first} the border lies at {span(ends[first])}, by prompt. With {last} it is lower "
        f"in {lower} of {len(pairs)} prompts and higher in {higher}."
    )


def view(bench: Bench, state: State) -> View:
    """What to show for ``state``. Raises ValueError for a value that is not offered, TypeError for
    no State."""
    _check(bench, state)
    teacher, student = bench.teacher[state.prompt], bench.student[state.prompt]
    rows = _rows(bench, state)
    share = favourites_share(bench, state)
    name, beta = PULLS[state.divergence]
    temperature = state.temperature
    chosen = Divergence(name, temperature, beta)
    plain = float(
        chosen.of(
            (teacher / temperature).log_softmax(-1)[None],
            (student / temperature).log_softmax(-1)[None],
        )
    )
    single = rows[:-1]
    up = max(single, key=lambda row: row.up)
    down = max(single, key=lambda row: row.down)
    first = rows[0]
    ten = sum(row.kind == "favourite" for row in rows)
    return View(
        state,
        rows,
        share,
        plain * temperature**2,
        headline=(
            f"{state.divergence}, T = {digits(temperature)}: the teacher's {ten} favourites get "
            f"{share:.0%} of the upward pull, all but these ten {1 - share:.0%}; net of what goes "
            f"down, the ten get {net_share(bench, state):+.0%}"
        ),
        loss_line=(
            f"Divergence {digits(plain)} nats; times T², the loss: "
            f"{digits(plain * temperature**2)} nats."
        ),
        tokens=(
            f"The favourite {first.token!r} has {first.teacher:.1%} at this temperature, "
            f"the student gives it {first.student:.1%}."
        ),
        strongest=(
            f"Of the tokens with a row, {up.token!r} is pulled up most ({up.up:.0%}), "
            f"{down.token!r} down most ({down.down:.0%})."
        ),
    )


def _rows(bench: Bench, state: State) -> tuple[Row, ...]:
    """The teacher's favourites, then the student's that are not among them, then all the rest."""
    teacher, student = bench.teacher[state.prompt], bench.student[state.prompt]
    pull = pull_of(teacher, student, state.divergence, state.temperature)
    up, down = pull.clamp(min=0), (-pull).clamp(min=0)
    up, down = up / up.sum(), down / down.sum()
    p = (teacher / state.temperature).softmax(-1)
    q = (student / state.temperature).softmax(-1)
    favourites = teacher.topk(min(FAVOURITES, len(teacher))).indices.tolist()
    by_student = student.argsort(descending=True)[: FAVOURITES + OVERRATED].tolist()
    overrated = [token for token in by_student if token not in favourites][:OVERRATED]
    rows = [
        Row(
            visible(bench.decode([token]), _TOKEN),
            float(p[token]),
            float(q[token]),
            float(up[token]),
            float(down[token]),
            "favourite" if token in favourites else "overrated",
        )
        for token in (*favourites, *overrated)
    ]
    rest = [1 - sum(getattr(row, part) for row in rows) for part in ("teacher", "student", "up")]
    falls = 1 - sum(row.down for row in rows)
    count = len(teacher) - len(rows)
    values = [max(0.0, value) for value in (*rest, falls)]
    return (*rows, Row(f"{count:,} others", values[0], values[1], values[2], values[3], "others"))


def _check(bench: Bench, state: State) -> None:
    if not isinstance(state, State):
        raise TypeError(f"state must be a State, got {type(state).__name__}")
    for name, value, offered in (
        ("prompt", state.prompt, bench.prompts),
        ("divergence", state.divergence, tuple(PULLS)),
        ("temperature", state.temperature, TEMPERATURES),
    ):
        if value not in offered:
            raise ValueError(
                f"state.{name}={value!r} is not offered; choose one of "
                f"{', '.join(map(str, offered))}"
            )
