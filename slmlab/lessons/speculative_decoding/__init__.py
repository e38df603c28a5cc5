"""The exercises of lesson 06, in the order in which a learner meets them."""

from slmlab.checking import Exercise
from slmlab.lessons.speculative_decoding.acceptance import ACCEPTANCE
from slmlab.lessons.speculative_decoding.choose_length import CHOOSE_LENGTH
from slmlab.lessons.speculative_decoding.expected_tokens import EXPECTED_TOKENS
from slmlab.lessons.speculative_decoding.one_round import ONE_ROUND
from slmlab.lessons.speculative_decoding.residual import RESIDUAL
from slmlab.lessons.speculative_decoding.rollback import ROLLBACK
from slmlab.lessons.speculative_decoding.sampler_repair import SAMPLER_REPAIR
from slmlab.lessons.speculative_decoding.speedup import SPEEDUP

EXERCISES: tuple[Exercise, ...] = (
    ROLLBACK,
    ACCEPTANCE,
    RESIDUAL,
    ONE_ROUND,
    EXPECTED_TOKENS,
    SPEEDUP,
    CHOOSE_LENGTH,
    SAMPLER_REPAIR,
)
