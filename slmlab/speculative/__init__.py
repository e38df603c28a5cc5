"""Floor 3: speculative decoding."""

from slmlab.speculative.adaptive import AdaptiveLength
from slmlab.speculative.draft import Draft, ModelDraft, Proposal, Sampling
from slmlab.speculative.formulas import (
    acceptance_interval,
    best_gamma,
    expected_speedup,
    expected_tokens,
)
from slmlab.speculative.generate import SpeculativeResult, speculative_generate
from slmlab.speculative.layer_skip import layer_skip_draft
from slmlab.speculative.lookup import PromptLookup
from slmlab.speculative.rejection import (
    acceptance_probabilities,
    rejection_sample,
    rejection_sample_batch,
    residual_distribution,
)
from slmlab.speculative.stats import Round, SpeculativeStats

__all__ = [
    "AdaptiveLength",
    "Draft",
    "ModelDraft",
    "PromptLookup",
    "Proposal",
    "Round",
    "Sampling",
    "SpeculativeResult",
    "SpeculativeStats",
    "acceptance_interval",
    "acceptance_probabilities",
    "best_gamma",
    "expected_speedup",
    "expected_tokens",
    "layer_skip_draft",
    "rejection_sample",
    "rejection_sample_batch",
    "residual_distribution",
    "speculative_generate",
]
