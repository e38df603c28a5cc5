"""speculative.acceptance: the chance that a proposed token is kept, temperature on both sides."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import Tensor

from slmlab.checking import Case, Close, Exercise, Mistake
from slmlab.generation import next_token_probabilities
from slmlab.speculative import acceptance_probabilities


def cases(seed: int) -> list[Case]:
    """One token at temperature 1; one below; one above; three places; a larger vocabulary, twice;
    logits above 100, whose exponential float32 cannot hold."""
    draw = random.Random(seed)

    def case(places: int, size: int, temperature: float, keeps: str, shift: float = 0.0) -> Case:
        """keeps: whether the first token is certain to stay ("all") or not ("some"). shift: added
        to every logit."""
        while True:
            target, draft = (
                torch.tensor(
                    [
                        [shift + draw.randint(-20, 20) / 10 for _ in range(size)]
                        for _ in range(places)
                    ]
                )
                for _ in range(2)
            )
            proposed = [draw.randrange(size) for _ in range(places)]
            kept = float(reference(target, draft, proposed, temperature)[0])
            if kept > 0.999 if keeps == "all" else kept < 0.7:
                return Case(
                    {
                        "target_logits": target,
                        "draft_logits": draft,
                        "tokens": proposed,
                        "temperature": temperature,
                    }
                )

    return [
        case(1, 2, 1.0, "some"),
        case(1, 2, 1.0, "all"),
        case(1, 2, 0.5, "some"),
        case(1, 2, 2.0, "some"),
        case(3, 3, 0.7, "some"),
        case(4, 6, 1.0, "all"),
        case(4, 6, 1.4, "some"),
        case(2, 3, 1.0, "some", shift=110.0),
    ]


def reference(
    target_logits: Tensor, draft_logits: Tensor, tokens: list[int], temperature: float
) -> Tensor:
    """The package's, on the distributions that both sides draw from."""
    p, q = (next_token_probabilities(x, temperature) for x in (target_logits, draft_logits))
    return acceptance_probabilities(torch.tensor(tokens), q, p)


def _kept(
    target: Tensor,
    draft: Tensor,
    tokens: list[int],
    target_scale: float,
    draft_scale: float,
    ratio: Callable[[Tensor, Tensor], Tensor] = lambda p, q: (p / q).clamp(max=1.0),
) -> Tensor:
    """Both logits times their scale, then a rule for the two probabilities of each token."""
    places = torch.arange(len(tokens))
    p = (target * target_scale).softmax(-1)[places, tokens]
    q = (draft * draft_scale).softmax(-1)[places, tokens]
    return ratio(p, q)


def _draft_over_target(
    target_logits: Tensor, draft_logits: Tensor, tokens: list[int], temperature: float
) -> Tensor:
    scale = 1 / temperature
    return _kept(
        target_logits, draft_logits, tokens, scale, scale, lambda p, q: (q / p).clamp(max=1.0)
    )


def _not_clamped(
    target_logits: Tensor, draft_logits: Tensor, tokens: list[int], temperature: float
) -> Tensor:
    scale = 1 / temperature
    return _kept(target_logits, draft_logits, tokens, scale, scale, lambda p, q: p / q)


def _target_alone(
    target_logits: Tensor, draft_logits: Tensor, tokens: list[int], temperature: float
) -> Tensor:
    scale = 1 / temperature
    return _kept(target_logits, draft_logits, tokens, scale, scale, lambda p, q: p)


def _target_tempered(
    target_logits: Tensor, draft_logits: Tensor, tokens: list[int], temperature: float
) -> Tensor:
    return _kept(target_logits, draft_logits, tokens, 1 / temperature, 1.0)


def _draft_tempered(
    target_logits: Tensor, draft_logits: Tensor, tokens: list[int], temperature: float
) -> Tensor:
    return _kept(target_logits, draft_logits, tokens, 1.0, 1 / temperature)


def _multiplied(
    target_logits: Tensor, draft_logits: Tensor, tokens: list[int], temperature: float
) -> Tensor:
    return _kept(target_logits, draft_logits, tokens, temperature, temperature)


def _no_temperature(
    target_logits: Tensor, draft_logits: Tensor, tokens: list[int], temperature: float
) -> Tensor:
    return _kept(target_logits, draft_logits, tokens, 1.0, 1.0)


def _all_so_far(
    target_logits: Tensor, draft_logits: Tensor, tokens: list[int], temperature: float
) -> Tensor:
    return reference(target_logits, draft_logits, tokens, temperature).cumprod(0)


def _in_logarithms(
    target_logits: Tensor, draft_logits: Tensor, tokens: list[int], temperature: float
) -> Tensor:
    answers = []
    for place, token in enumerate(tokens):
        log_p = torch.log_softmax(target_logits[place] / temperature, dim=-1)[token]
        log_q = torch.log_softmax(draft_logits[place] / temperature, dim=-1)[token]
        answers.append(torch.exp(torch.minimum(log_p - log_q, torch.tensor(0.0))))
    return torch.stack(answers)


ACCEPTANCE = Exercise(
    id="speculative.acceptance",
    title="The chance that a proposed token stays",
    points=3,
    minutes=8,
    difficulty=1,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "q over p",
            "The ratio is upside down: you keep most easily what the draft overrates. A token that "
            "the draft proposes twice as often as the target wants it: how often must it go?",
            _draft_over_target,
        ),
        Mistake(
            "not clamped",
            "Some of your chances are above 1: where the target likes the token more than the draft "
            "does, it always stays. What is the largest chance there is?",
            _not_clamped,
        ),
        Mistake(
            "target's probability alone",
            "You keep a token with probability p, as if the draft had proposed it for certain. It "
            "was drawn with chance q already: what does p have to be divided by?",
            _target_alone,
        ),
        Mistake(
            "temperature on one side only",
            "Right at temperature 1 and nowhere else: the temperature reaches one side and not the "
            "other. From which distribution was the token drawn, and which should the text follow?",
            _target_tempered,
            (_draft_tempered,),
        ),
        Mistake(
            "logits not divided",
            "Right at temperature 1 and nowhere else: the logits are used as they are, or times the "
            "temperature. What do both sides divide by before softmax?",
            _no_temperature,
            (_multiplied,),
        ),
        Mistake(
            "chance to get this far",
            "Right at the first place: you give the chance that the round gets this far. Wanted is "
            "each place's own, given that those before stayed. What did you multiply by?",
            _all_so_far,
        ),
    ),
    hints=(
        "Each chance lies between 0 and 1, and is 1 exactly where the target gives the token at "
        "least as much as the draft did, both after temperature. Which half breaks?",
        "Target logits [0.0, 0.0, 0.0], draft logits [0.7, 0.0, 0.0], token 0, temperature 1. p = "
        "1/3. q = 2.01 / 4.01 = 0.50. Chance 0.333 / 0.50 = 0.66. For token 1: q = 0.25, p / q = "
        "1.33, so it stays for certain: 1.",
        "p = softmax(target_logits / temperature)\n"
        "q = softmax(draft_logits / temperature)\n"
        "for each place: min(1, p[token] / q[token])",
    ),
    compare=Close(rtol=1e-4, atol=1e-5),
    alternatives=(_in_logarithms,),
)
