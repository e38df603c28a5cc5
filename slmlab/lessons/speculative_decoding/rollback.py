"""speculative.rollback: how many tokens each cache keeps after a round."""

from __future__ import annotations

import random
from collections.abc import Callable

from slmlab.checking import Case, Exact, Exercise, Mistake

Rounds = list[tuple[int, int]]
Answer = list[tuple[int, int]]


def cases(seed: int) -> list[Case]:
    """One round of each kind: none, some, all accepted; then many in a row."""
    draw = random.Random(seed)
    prompt = draw.randint(3, 9)
    few = draw.randint(3, 5)

    def many(count: int) -> Rounds:
        lengths = [draw.randint(1, 6) for _ in range(count)]
        return [(n, draw.randint(0, n)) for n in lengths]

    return [
        Case({"prompt": prompt, "rounds": [(few, 0)]}),
        Case({"prompt": prompt, "rounds": [(few, 1)]}),
        Case({"prompt": prompt, "rounds": [(few, few - 1)]}),
        Case({"prompt": prompt, "rounds": [(few, few)]}),
        Case({"prompt": prompt, "rounds": [(few, 1), (few, few)]}),
        Case({"prompt": 10 * prompt, "rounds": [(1, 1), (1, 0), (2, 2), *many(4)]}),
        Case({"prompt": 10 * prompt, "rounds": many(12)}),
    ]


def _rounds(
    prompt: int,
    rounds: Rounds,
    target_keeps: Callable[[int, int, int], int] = lambda text, proposed, accepted: text + accepted,
    draft_keeps: Callable[[int, int, int], int] = lambda text, proposed, accepted: min(
        text + accepted, text + proposed - 1
    ),
) -> Answer:
    """``text``: tokens of the text before the round."""
    text, answer = prompt, []
    for proposed, accepted in rounds:
        answer.append(
            (target_keeps(text, proposed, accepted), draft_keeps(text, proposed, accepted))
        )
        text += accepted + 1
    return answer


def reference(prompt: int, rounds: Rounds) -> Answer:
    """All that both have read and that is still text; the last token of the text is never read."""
    return _rounds(prompt, rounds)


def _too_far(prompt: int, rounds: Rounds) -> Answer:
    return _rounds(
        prompt,
        rounds,
        lambda text, proposed, accepted: text + accepted - 1,
        lambda text, proposed, accepted: text + accepted - 1,
    )


def _too_far_target(prompt: int, rounds: Rounds) -> Answer:
    return _rounds(prompt, rounds, lambda text, proposed, accepted: text + accepted - 1)


def _too_few(prompt: int, rounds: Rounds) -> Answer:
    return _rounds(
        prompt,
        rounds,
        lambda text, proposed, accepted: text + accepted + 1,
        lambda text, proposed, accepted: text + accepted + 1,
    )


def _too_few_target(prompt: int, rounds: Rounds) -> Answer:
    return _rounds(prompt, rounds, lambda text, proposed, accepted: text + accepted + 1)


def _draft_forgotten(prompt: int, rounds: Rounds) -> Answer:
    return _rounds(prompt, rounds, draft_keeps=lambda text, proposed, accepted: text + proposed - 1)


def _draft_as_target(prompt: int, rounds: Rounds) -> Answer:
    return _rounds(prompt, rounds, draft_keeps=lambda text, proposed, accepted: text + accepted)


def _draft_behind(prompt: int, rounds: Rounds) -> Answer:
    return _rounds(prompt, rounds, draft_keeps=lambda text, proposed, accepted: text + accepted - 1)


def _nothing_rolled_back(prompt: int, rounds: Rounds) -> Answer:
    return _rounds(
        prompt,
        rounds,
        lambda text, proposed, accepted: text + proposed,
        lambda text, proposed, accepted: text + proposed - 1,
    )


def _everything_rolled_back(prompt: int, rounds: Rounds) -> Answer:
    return _rounds(
        prompt,
        rounds,
        lambda text, proposed, accepted: text,
        lambda text, proposed, accepted: text,
    )


def _token_by_token(prompt: int, rounds: Rounds) -> Answer:
    """Both caches as lists of what was read, cut back to what still is text."""
    text: list[object] = list(range(prompt))
    target, draft = text[:-1], text[:-1]
    answer = []
    for number, (proposed, accepted) in enumerate(rounds):
        guesses: list[object] = [(number, i) for i in range(proposed)]
        draft = [*text, *guesses[:-1]]  # the last guess is said and not read
        target = [*text, *guesses]
        text = [*text, *guesses[:accepted], (number, "extra")]
        for cache in (target, draft):
            while cache != text[: len(cache)]:
                cache.pop()
        answer.append((len(target), len(draft)))
    return answer


ROLLBACK = Exercise(
    id="speculative.rollback",
    title="Rollback: what each cache keeps",
    points=4,
    minutes=10,
    difficulty=2,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "one token too far back",
            "You take an accepted token out of the target's cache: it went through the model and it "
            "is text. It would be read a second time, at a position that is off by one. Which token "
            "is the last that the target has read and that stayed?",
            _too_far,
            (_too_far_target,),
        ),
        Mistake(
            "one token too few back",
            "You keep a token that no model has read: the one that the target adds is said at the "
            "end of the round and read in the next. What stands in the cache at its place?",
            _too_few,
            (_too_few_target,),
        ),
        Mistake(
            "rejected tokens stay",
            "A cache keeps what was rejected, the draft's or both: what comes next continues a text "
            "that does not exist. How many of the proposals are text after the round?",
            _nothing_rolled_back,
            (_draft_forgotten,),
        ),
        Mistake(
            "the draft always one behind",
            "Right where all are accepted, else the draft's cache is one token short: it is behind "
            "the target only where the last guess stays. Which guess has the draft not read?",
            _draft_behind,
        ),
        Mistake(
            "the draft as the target",
            "Right until all are accepted: then you keep one token in the draft's cache that it has "
            "never read. Which of its proposals does a draft feed back to itself?",
            _draft_as_target,
        ),
        Mistake(
            "accepted tokens taken back too",
            "Both go back to where the round began: right, and slow, for the accepted tokens will be "
            "read again. Which of them need not be?",
            _everything_rolled_back,
        ),
    ),
    hints=(
        "Each cache holds a beginning of the text, as long as can be, of tokens that its model has "
        "read. The last token of the text was read by neither. Which of the two breaks?",
        "Text of 3, 2 proposals, both accepted. The target reads text[2] and both guesses: 5 tokens, "
        "all text: it keeps 5. The draft reads text[2] and the first guess: 4. The text now has 6. "
        "With 1 accepted: both keep 4, and the text has 5.",
        "text = prompt\n"
        "for proposed, accepted:\n"
        "    target keeps text + accepted\n"
        "    draft has read text + proposed - 1, keeps that or text + accepted, the smaller\n"
        "    text += accepted + 1",
    ),
    compare=Exact(),
    alternatives=(_token_by_token,),
    unit="tokens",
)
