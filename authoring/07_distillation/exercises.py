# %% [markdown]
# # Exercises: distillation
# Ten exercises, about 85 minutes; each stands alone. A cell with `@exercise(...)` checks your
# function when you run it: replace the line that raises `NotImplementedError`, run, read what comes
# back. The cell for hints is the last but one; `hint("distillation.top_k")` works in any cell.
#
# Your functions need torch and the standard library. Always: `p` is the teacher's distribution, `q`
# the student's, T the temperature, V the size of the vocabulary. Logarithms are natural, so losses
# are in nats.

# %%
import sys

if "google.colab" in sys.modules:  # On Colab: install the package, leave Colab's torch alone.
    get_ipython().run_line_magic("pip", "install -q --no-deps git+https://github.com/slmlab/slmlab")

import torch
from torch import Tensor

from slmlab import exercise, hint, progress

# %% [markdown]
# ## 1. Soft targets: forward KL at a temperature
# The student is asked to match all of the teacher's distribution, softened: softmax of the logits
# over T, on both sides. The loss is T^2 times KL(teacher || student), the mean over positions
# (Hinton et al. 2015, [arXiv:1503.02531](https://arxiv.org/abs/1503.02531), section 2).
#
# - **In**: `student_logits`, `teacher_logits`, float32 `(positions, V)`; `temperature`, above 0.
# - **Out**: a scalar tensor, float32.
# - **Example**: student logits `[[0.0, 0.0, 0.0]]`, teacher logits `[[4.0, 0.0, 0.0]]`, T = 2: p is
#   `[0.787, 0.107, 0.107]`, KL 0.433, loss `1.73`.
# - **Must hold**: 0 for equal logits at every T; a vocabulary or a batch twice as large does not by
#   itself change the size of the loss.


# %%
@exercise("distillation.soft_targets")
def soft_target_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """(positions, V) twice -> a scalar in nats."""
    ### BEGIN SOLUTION
    log_p = torch.log_softmax(teacher_logits / temperature, dim=-1)
    log_q = torch.log_softmax(student_logits / temperature, dim=-1)
    kl = (log_p.exp() * (log_p - log_q)).sum(dim=-1)
    return temperature**2 * kl.mean()
    ### END SOLUTION


# %% [markdown]
# ## 2. The pull on the student's logits
# The derivative of that loss is short enough to write down. Do it on paper first: what is d KL / dz
# at T = 1, and which powers of T come along?
#
# - **In**: as above.
# - **Out**: float32 `(positions, V)`, the derivative of the loss above to each student logit.
# - **Example**: student logits `[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]`, teacher logits `[[4.0, 0.0, 0.0],
#   [0.0, 0.0, 0.0]]`, T = 2: `[[-0.454, 0.227, 0.227], [0.119, -0.059, -0.059]]`.
#   The first row alone: `[[-0.907, 0.454, 0.454]]`.
# - **Must hold**: each row sums to 0; a step against it brings q nearer to p. No autograd.


# %%
@exercise("distillation.gradient")
def pull(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """(positions, V) twice -> (positions, V)."""
    ### BEGIN SOLUTION
    p = torch.softmax(teacher_logits / temperature, dim=-1)
    q = torch.softmax(student_logits / temperature, dim=-1)
    return temperature * (q - p) / len(student_logits)
    ### END SOLUTION


# %% [markdown]
# ## 3. Which positions count
# The KL is there for every position of a padded batch. Position t reads token t and speaks about
# token t + 1: it counts only if both are real.
#
# - **In**: `divergence`, float32 `(rows, time)`, the KL at each position; `real`, bool `(rows,
#   time)`, False at padding, which stands before or after the text. Each row has at least two real
#   tokens.
# - **Out**: a scalar tensor, the mean over the positions that count.
# - **Example**: divergence `[[0.5, 1.0, 2.0]]`, real `[[True, True, False]]`: position 0 counts,
#   position 1 speaks about padding: `0.5`.
# - **Must hold**: more padding changes nothing; each position that counts weighs the same.


# %%
@exercise("distillation.padding")
def mean_over_tokens(divergence: Tensor, real: Tensor) -> Tensor:
    """(rows, time) twice -> a scalar."""
    ### BEGIN SOLUTION
    counts = real[:, :-1] & real[:, 1:]
    return divergence[:, :-1][counts].mean()
    ### END SOLUTION


# %% [markdown]
# ## 4. Cover both modes or settle on one
# A teacher has two good answers. A student with one bump cannot give both. Forward KL,
# KL(teacher || student), and reverse KL, KL(student || teacher), want different students: which ones?
#
# - **In**: `teacher`, float32 `(V,)`, a distribution with two modes; `students`, float32 `(count,
#   V)`, one distribution a row. No entry is 0.
# - **Out**: a list of two ints: the row with the least forward KL, the row with the least reverse KL.
# - **Example**: teacher `[0.55, 0.02, 0.43]`, students `[[0.4, 0.3, 0.3], [0.90, 0.05, 0.05]]`.
#   Forward 0.28 and 0.64, reverse 0.58 and 0.38: `[0, 1]`.
# - **Must hold**: the first has no small number where the teacher's is large, the second no large
#   number where the teacher's is small.


# %%
@exercise("distillation.two_modes")
def closest(teacher: Tensor, students: Tensor) -> list[int]:
    """(V,), (count, V) -> [row by forward KL, row by reverse KL]."""
    ### BEGIN SOLUTION
    log_ratio = teacher.log() - students.log()
    forward = (teacher * log_ratio).sum(dim=-1)
    reverse = -(students * log_ratio).sum(dim=-1)
    return [int(forward.argmin()), int(reverse.argmin())]
    ### END SOLUTION


# %% [markdown]
# ## 5. Top k and the rest
# A teacher that is asked once, not in every epoch, must be stored. Keep its k largest logits a
# position, and the mass of all other tokens in one more number. Then both sides are distributions
# over k + 1 buckets: the teacher's k tokens, and the rest.
#
# - **In**: `student_logits`, `teacher_logits`, float32 `(positions, V)`; `k`, 1 to V - 1;
#   `temperature`.
# - **Out**: a scalar tensor: T^2 times the mean over positions of the forward KL between the buckets.
# - **Example**: T = 1, k = 1, probabilities `[0.7, 0.2, 0.1]` and, the student's, `[0.5, 0.1, 0.4]`:
#   buckets `[0.7, 0.3]` and `[0.5, 0.5]`, KL `0.082`. All three tokens would give 0.236.
# - **Must hold**: never below 0, never above the loss over all tokens.


# %%
@exercise("distillation.top_k")
def top_k_loss(
    student_logits: Tensor, teacher_logits: Tensor, k: int, temperature: float
) -> Tensor:
    """(positions, V) twice -> a scalar in nats."""
    ### BEGIN SOLUTION
    ids = teacher_logits.topk(k, dim=-1).indices
    p = torch.softmax(teacher_logits / temperature, dim=-1).gather(-1, ids)
    q = torch.softmax(student_logits / temperature, dim=-1).gather(-1, ids)
    p = torch.cat([p, 1 - p.sum(dim=-1, keepdim=True)], dim=-1)  # (positions, k + 1)
    q = torch.cat([q, 1 - q.sum(dim=-1, keepdim=True)], dim=-1)
    return temperature**2 * (p * (p / q).log()).sum(dim=-1).mean()
    ### END SOLUTION


# %% [markdown]
# ## 6. On paper: a teacher's logits on disk
# No loops, no library: put the numbers together on paper, then write the one line.
#
# | stored | |
# |---|---|
# | text | 120 million tokens, one position each |
# | vocabulary | 49,152 tokens |
# | kept a position | the 16 largest logits |
# | a logit | fp16 |
# | a token's id | int32 |
# | the mass of all other tokens | one fp32 a position |
#
# - **Out**: the size in GB (10^9 bytes), one number. It passes within 1%.
# - **Example**: 1 million tokens and the 4 largest logits: 0.028 GB.
# - **Must hold**: all logits in fp16 would take 98,304 bytes a position; yours is about a thousandth.


# %%
@exercise("distillation.stored_logits")
def stored_gb() -> float:
    """GB on disk."""
    ### BEGIN SOLUTION
    bytes_a_position = 16 * (2 + 4) + 4
    return 120e6 * bytes_a_position / 1e9
    ### END SOLUTION


# %% [markdown]
# ## 7. Decide: how many logits to store
# More logits lose less of the teacher and take more disk. You have a sample of its logits and two
# bounds. You are scored by outcome: any k that keeps both bounds is right.
#
# - **In**: `teacher_logits`, float32 `(positions, V)`; `temperature`, of the loss; `most_lost`, the
#   mass outside the k largest that may be lost, mean over positions; `most_bytes` a position.
# - **Count so**: a position takes 6 bytes for each of its k logits with its id, and 4 for the rest.
# - **Out**: k, an int from 1 to V, or 0 where no k keeps both bounds.
# - **Example**: probabilities at T `[[0.6, 0.3, 0.1], [0.8, 0.1, 0.1]]`, at most 0.15 lost: k = 1 loses
#   0.3, k = 2 loses 0.1. With 16 bytes `2`, with 15 bytes `0`.
# - **Must hold**: both bounds, measured on the distribution that the student will see.


# %%
@exercise("distillation.choose_k")
def choose_k(teacher_logits: Tensor, temperature: float, most_lost: float, most_bytes: int) -> int:
    """Logits a position, 0 for none."""
    ### BEGIN SOLUTION
    p = torch.softmax(teacher_logits / temperature, dim=-1)
    largest_first = p.sort(dim=-1, descending=True).values
    lost = 1 - largest_first.cumsum(dim=-1).mean(dim=0)  # (V,), behind 1 .. V tokens
    for k in range(1, len(lost) + 1):
        if lost[k - 1] <= most_lost and 6 * k + 4 <= most_bytes:
            return k
    return 0
    ### END SOLUTION


# %% [markdown]
# ## 8. Depth pruning: which layers stay
# A student can start as its teacher with fewer layers. Leave each layer out once, alone, and measure
# by how much the loss grows; the layers that are missed least go (Muralidharan et al. 2024,
# [arXiv:2407.14679](https://arxiv.org/abs/2407.14679), section 2).
#
# - **In**: `increase`, a list of floats, nats a token, one a layer: loss without it less loss with
#   all. Below 0 the model is better without it. No two are equal. `keep`, layers of the student,
#   fewer than there are.
# - **Out**: the numbers of the layers that stay, counted from 0, in the order in which a hidden state
#   goes through them.
# - **Example**: increase `[2.0, 0.1, 0.7]`, keep 2: `[0, 2]`.
# - **Must hold**: no layer that goes is missed more than one that stays.


# %%
@exercise("distillation.keep_layers")
def keep_layers(increase: list[float], keep: int) -> list[int]:
    """Layer numbers, ascending."""
    ### BEGIN SOLUTION
    by_worth = sorted(range(len(increase)), key=lambda layer: increase[layer], reverse=True)
    return sorted(by_worth[:keep])
    ### END SOLUTION


# %% [markdown]
# ## 9. On-policy: the predictions that the student wrote
# In on-policy distillation (Agarwal et al. 2024,
# [arXiv:2306.13649](https://arxiv.org/abs/2306.13649), algorithm 1) the student continues a prompt
# and the teacher judges what it wrote, token by token. Rows are written together: behind its first
# stop id a row is filled with stop ids until the longest row is done.
#
# - **In**: `ids`, int64 `(rows, time)`; `prompt`, tokens at the start of each row that were given, at
#   least 1; `stop`, the stop id, which a prompt may hold too.
# - **Out**: bool `(rows, time - 1)`: column t is the prediction of token t + 1, True where the student
#   wrote that token. Its stop id counts, the filling does not.
# - **Example**: ids `[[5, 7, 9, 0, 0]]`, prompt 2, stop 0: `[[False, True, True, False]]`.
# - **Must hold**: each row has as many True as the student wrote tokens.


# %%
@exercise("distillation.on_policy")
def written(ids: Tensor, prompt: int, stop: int) -> Tensor:
    """(rows, time) -> (rows, time - 1) bool."""
    ### BEGIN SOLUTION
    answer = torch.zeros(len(ids), ids.shape[1] - 1, dtype=torch.bool)
    for row, tokens in enumerate(ids.tolist()):
        for at in range(prompt, len(tokens)):
            answer[row, at - 1] = True
            if tokens[at] == stop:
                break
    return answer
    ### END SOLUTION


# %% [markdown]
# ## 10. Repair this: a step whose student stays bad
# A training step with labels and a teacher, `alpha` the teacher's share. It runs, its loss falls, and
# its student is bad. Both models get the same ids; a label of -100 does not count. A student that has
# the teacher's very logits has nothing to learn from it, so at alpha = 1 its loss should be 0.


# %%
def step_loss_as_found(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    alpha: float,
    temperature: float,
) -> Tensor:
    student, teacher, targets = student_logits[:, :-1], teacher_logits[:, 1:], labels[:, 1:]
    counts = targets != -100
    student, teacher, targets = student[counts], teacher[counts], targets[counts]
    log_p = torch.log_softmax(teacher / temperature, dim=-1)
    log_q = torch.log_softmax(student / temperature, dim=-1)
    soft = temperature**2 * (log_p.exp() * (log_p - log_q)).sum(dim=-1).mean()
    hard = torch.nn.functional.cross_entropy(student, targets)
    return alpha * soft + (1 - alpha) * hard


same = torch.tensor([[[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]]])  # (1 row, 3 tokens, V = 2)
print(round(step_loss_as_found(same, same, torch.tensor([[0, 0, 1]]), 1.0, 2.0).item(), 4))

# %% [markdown]
# - **In**: `student_logits`, `teacher_logits`, float32 `(rows, time, V)`; `labels`, int64 `(rows,
#   time)`, the ids themselves, -100 where a token does not count; `alpha`, 0 to 1; `temperature`.
# - **Out**: a scalar tensor: alpha times the soft loss (exercise 1, over the positions that count) plus
#   1 - alpha times the mean cross-entropy at T = 1.
# - **Example**: the logits printed above should give `0`.
# - **Must hold**: at alpha = 1 equal logits give 0; at alpha = 0 the loss does not depend on T; the logits
#   at the last position, which speak about no token here, never change it.


# %%
@exercise("distillation.step_repair")
def step_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    alpha: float,
    temperature: float,
) -> Tensor:
    """(rows, time, V) twice and (rows, time) -> a scalar in nats."""
    ### BEGIN SOLUTION
    student, teacher, targets = student_logits[:, :-1], teacher_logits[:, :-1], labels[:, 1:]
    counts = targets != -100
    student, teacher, targets = student[counts], teacher[counts], targets[counts]
    log_p = torch.log_softmax(teacher / temperature, dim=-1)
    log_q = torch.log_softmax(student / temperature, dim=-1)
    soft = temperature**2 * (log_p.exp() * (log_p - log_q)).sum(dim=-1).mean()
    hard = torch.nn.functional.cross_entropy(student, targets)
    return alpha * soft + (1 - alpha) * hard
    ### END SOLUTION


# %% [markdown]
# Stuck? Write an exercise's id between the quotes, such as `distillation.top_k`, and run the next
# cell. The first run shows what must hold, the second a worked example, the third pseudocode.

# %%
stuck_at = ""
if stuck_at:
    hint(stuck_at)

# %% [markdown]
# How far you are in the whole workbook:

# %% tags=["nbval-ignore-output"]
progress()
