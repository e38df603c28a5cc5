# %% [markdown]
# # Exercises: speculative decoding
# Eight exercises, about 80 minutes; each stands alone. A cell with `@exercise(...)` checks your
# function when you run it: replace the line that raises `NotImplementedError`, run, read what comes
# back. The cell for hints is the last but one; `hint("speculative.residual")` works in any cell.
#
# Your functions need torch and the standard library. Always: `p` is the target's
# distribution, `q` the draft's; a round proposes some tokens and ends with one more from the target.

# %%
import sys

if "google.colab" in sys.modules:  # On Colab: install the package, leave Colab's torch alone.
    get_ipython().run_line_magic("pip", "install -q --no-deps git+https://github.com/slmlab/slmlab")

import torch
from torch import Tensor

from slmlab import exercise, hint, progress

# %% [markdown]
# ## 1. Rollback: what each cache keeps
# Before a round both caches hold the text without its last token. The draft reads that token and
# then its own guesses, all but the last. The target reads the token and all guesses in one pass,
# and adds one token that nobody has read yet. Then what was rejected is truncated from both.
#
# - **In**: `prompt`, tokens of the text at the start (at least 1); `rounds`, pairs (proposed, at
#   least 1; accepted, 0 to proposed).
# - **Out**: a list with one pair a round: tokens that the target's cache and the draft's cache hold
#   after it, as many as can be kept.
# - **Example**: a text of 3; 2 proposed, 2 accepted: `[(5, 4)]`. With 1 accepted: `[(4, 4)]`.
# - **Must hold**: each cache is a beginning of the text, and no token in it goes through its model
#   again.


# %%
@exercise("speculative.rollback")
def kept(prompt: int, rounds: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """(target's cache, draft's cache) in tokens, after each round."""
    ### BEGIN SOLUTION
    text, answer = prompt, []
    for proposed, accepted in rounds:
        draft_has_read = text + proposed - 1
        answer.append((text + accepted, min(text + accepted, draft_has_read)))
        text += accepted + 1
    return answer
    ### END SOLUTION


# %% [markdown]
# ## 2. The chance that a proposed token stays
# A token x drawn from q is kept with probability min(1, p(x) / q(x)) (Leviathan et al. 2023,
# [arXiv:2211.17192](https://arxiv.org/abs/2211.17192), algorithm 1). p and q are what the two sides
# really draw from: softmax of the logits over the temperature, the same for both.
#
# - **In**: `target_logits`, `draft_logits`, float32 `(places, vocabulary)`; `tokens`, one id a
#   place, drawn by the draft; `temperature`, above 0.
# - **Out**: float32 `(places,)`, the chance that each token stays, given that all before it did.
# - **Example**: target logits `[[0.0, 0.0, 0.0]]`, draft logits `[[0.7, 0.0, 0.0]]`, token 0,
#   temperature 1: p = 0.333, q = 0.502, so `[0.664]`.
# - **Must hold**: 1 wherever the target gives the token at least as much as the draft; also for
#   logits above 100.


# %%
@exercise("speculative.acceptance")
def acceptance(
    target_logits: Tensor, draft_logits: Tensor, tokens: list[int], temperature: float
) -> Tensor:
    """(places, vocabulary) twice and (places,) -> (places,)."""
    ### BEGIN SOLUTION
    p = torch.softmax(target_logits / temperature, dim=-1)
    q = torch.softmax(draft_logits / temperature, dim=-1)
    at = torch.arange(len(tokens))
    return (p[at, tokens] / q[at, tokens]).clamp(max=1.0)
    ### END SOLUTION


# %% [markdown]
# ## 3. The residual: what replaces a rejected token
# The accepted tokens alone give every x the share min(p(x), q(x)). What is still owed to p is
# max(0, p(x) - q(x)), and a rejected token is replaced by a draw from that.
#
# - **In**: `p`, `q`, float32 `(vocabulary,)`, each of which sums to 1. They may be equal.
# - **Out**: float32 `(vocabulary,)`, the distribution to draw from; `p` where nothing is owed.
# - **Example**: p = `[0.7, 0.2, 0.1]`, q = `[0.5, 0.4, 0.1]` give `[1, 0, 0]`.
# - **Must hold**: min(p, q) plus the share rejected times the residual is p.


# %%
@exercise("speculative.residual")
def residual(p: Tensor, q: Tensor) -> Tensor:
    """(vocabulary,) each -> (vocabulary,)."""
    ### BEGIN SOLUTION
    owed = (p - q).clamp(min=0.0)
    total = owed.sum()
    if total == 0:
        return p
    return owed / total
    ### END SOLUTION


# %% [markdown]
# ## 4. One round: accept, reject, replace
# All of the algorithm for one round. The random numbers come as arguments, so that the answer is
# certain: one for each proposal, and one for the token that ends the round.
#
# - **In**: `tokens`, the proposals; `q`, float32 `(proposals, vocabulary)`, what each was drawn
#   from; `p`, `(proposals + 1, vocabulary)`, the target's at each place and behind the last;
#   `draws`, one number a proposal, in [0, 1); `last`, one more.
# - **Do**: proposal i stays if `draws[i] < p / q` of its token. At the first that does not, draw
#   from the residual of that place, and the round is over. If all stay, draw from the last row of
#   `p`. To draw from a row: the first id whose cumulative probability lies above `last`.
# - **Out**: a list of ints, 1 to proposals + 1 of them.
# - **Example**: q = `[[0.5, 0.4, 0.1]]`, p = `[[0.7, 0.2, 0.1], [0.2, 0.3, 0.5]]`, tokens `[1]`, last
#   0.4. With draw 0.6 `[0]`, with draw 0.3 `[1, 1]`.
# - **Must hold**: over all random numbers, each token comes as often as under p.


# %%
@exercise("speculative.one_round")
def one_round(
    tokens: list[int], q: Tensor, p: Tensor, draws: list[float], last: float
) -> list[int]:
    """The accepted tokens and one more."""

    ### BEGIN SOLUTION
    def pick(row: Tensor) -> int:
        above = (row.cumsum(dim=0) > last).nonzero()
        return int(above[0]) if len(above) else len(row) - 1

    out = []
    for i, token in enumerate(tokens):
        if draws[i] >= p[i, token] / q[i, token]:
            owed = (p[i] - q[i]).clamp(min=0.0)
            return [*out, pick(owed / owed.sum())]
        out.append(token)
    return [*out, pick(p[-1])]
    ### END SOLUTION


# %% [markdown]
# ## 5. Tokens a round gives on average
# The paper's formula has one rate for all positions. In a real text the first guess of a round holds
# more often than the fourth, or less often.
#
# - **In**: `rates`, a list: the chance that guess i stays, given that all before it did.
# - **Out**: the tokens that a round gives on average, a float.
# - **Example**: rates `[0.8, 0.5, 0.5]`: 1 + 0.8 + 0.4 + 0.2 = `2.4`.
# - **Must hold**: for equal rates it is (1 - a^(n + 1)) / (1 - a).


# %%
@exercise("speculative.expected_tokens")
def tokens_per_round(rates: list[float]) -> float:
    """Accepted tokens and the one more, on average."""
    ### BEGIN SOLUTION
    total = reached = 1.0
    for rate in rates:
        reached *= rate
        total += reached
    return total
    ### END SOLUTION


# %% [markdown]
# ## 6. On paper: what this pair can give
# No loops, no library: put the numbers together on paper, then write the one line.
#
# | pair | |
# |---|---|
# | one plain step of the target | 40 ms |
# | one step of the draft | 3 ms |
# | a pass of the target over 6 tokens | 46 ms |
# | sampling and rollback, a round | 4 ms |
# | chance that a guess stays | 0.8, at every position |
# | draft length | 5 |
#
# - **Out**: tokens a second over plain decoding's, one number. It passes within 2%.
# - **Example**: rate 0.5, 3 proposals, step 10 ms, draft 1 ms, pass 12 ms, rest 1 ms: 1.17.
# - **Must hold**: with a rate of 0 it would be below 1.


# %%
@exercise("speculative.speedup")
def speedup() -> float:
    """Times plain decoding."""
    ### BEGIN SOLUTION
    tokens = (1 - 0.8**6) / (1 - 0.8)
    round_ms = 5 * 3 + 46 + 4
    return tokens / round_ms * 40
    ### END SOLUTION


# %% [markdown]
# ## 7. Decide: a draft length for a recorded text
# You know for every position of a text whether the draft names the right token. Which draft length
# writes it soonest? You are scored by outcome: any length within 1% of the best time is right.
#
# - **In**: `agreed`, a list of bools, one a position; `draft_cost`, one step of the draft, in plain
#   steps of the target; `verify_cost`, a list: entry n is a pass of the target over n + 1 tokens, in
#   plain steps (entry 0 is 1).
# - **Count so**: with length n a round starts at a position, accepts the `True` in a row from there,
#   n at most, and gives one token more: right or not, that position is written. It costs
#   `n * draft_cost + verify_cost[n]`, also where it runs over the end.
# - **Out**: the length, 0 (plain decoding) to `len(verify_cost) - 1`.
# - **Example**: agreed `[True, True, False]`, draft 0.2, passes `[1.0, 1.1, 1.2]`. Length 0 takes 3.0,
#   length 1 two rounds of 1.3, length 2 one round of 1.6: `2`.
# - **Must hold**: no other length takes clearly less time.


# %%
@exercise("speculative.choose_length")
def choose_length(agreed: list[bool], draft_cost: float, verify_cost: list[float]) -> int:
    """The draft length, 0 for none."""
    ### BEGIN SOLUTION
    times = []
    for length, verify in enumerate(verify_cost):
        at = rounds = 0
        while at < len(agreed):
            accepted = 0
            while accepted < length and at + accepted < len(agreed) and agreed[at + accepted]:
                accepted += 1
            at += accepted + 1
            rounds += 1
        times.append(rounds * (length * draft_cost + verify))
    return times.index(min(times))
    ### END SOLUTION


# %% [markdown]
# ## 8. Repair this: a biased sampler
# A sampler is hard to test by its samples. So this one returns its probabilities. The rows of q and
# p do not depend on what was drawn before. Row i of the answer is the chance of ending the round
# after i accepted tokens, with each id as the last token. One line is wrong.


# %%
def outcomes_as_found(q: Tensor, p: Tensor) -> Tensor:
    out, reached = torch.zeros_like(p), 1.0
    for i in range(len(q)):
        stays = torch.minimum(p[i], q[i]).sum()
        owed = (p[i] - q[i]).clamp(min=0.0)
        out[i] = reached * (1 - stays) * owed / owed.sum()
        reached = reached * stays
    out[-1] = reached * p[i]
    return out


q, p = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.8, 0.2], [0.1, 0.9]])
print(outcomes_as_found(q, p), "sum", round(outcomes_as_found(q, p).sum().item(), 4))

# %% [markdown]
# - **In**: `q`, float32 `(proposals, vocabulary)`; `p`, `(proposals + 1, vocabulary)`. No row of p
#   equals its row of q.
# - **Out**: float32 `(proposals + 1, vocabulary)`, summing to 1.
# - **Example**: the rows printed above should be `[[0.3, 0.0], [0.07, 0.63]]`.
# - **Must hold**: the token behind k accepted ones follows row k of p, whatever the draft.


# %%
@exercise("speculative.sampler_repair")
def outcomes(q: Tensor, p: Tensor) -> Tensor:
    """(proposals, vocabulary), (proposals + 1, vocabulary) -> (proposals + 1, vocabulary)."""
    ### BEGIN SOLUTION
    out, reached = torch.zeros_like(p), 1.0
    for i in range(len(q)):
        stays = torch.minimum(p[i], q[i]).sum()
        owed = (p[i] - q[i]).clamp(min=0.0)
        out[i] = reached * (1 - stays) * owed / owed.sum()
        reached = reached * stays
    out[-1] = reached * p[-1]
    return out
    ### END SOLUTION


# %% [markdown]
# Stuck? Write an exercise's id between the quotes, such as `speculative.one_round`, and run the next
# cell. The first run shows what must hold, the second a worked example, the third pseudocode.

# %%
stuck_at = ""
if stuck_at:
    hint(stuck_at)

# %% [markdown]
# How far you are in the whole workbook:

# %% tags=["nbval-ignore-output"]
progress()
