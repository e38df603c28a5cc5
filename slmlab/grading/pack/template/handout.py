# %% [markdown]
# # Exercises: two warm-ups
# Two exercises; each stands alone.
#
# Your functions need torch and the standard library.

# %%
import torch
from torch import Tensor

from slmlab import exercise, hint, progress

# %% [markdown]
# ## 1. The mean so far
# Place k of the answer is the mean of the first k + 1 values.
#
# - **In**: `values`, float32 `(n,)`.
# - **Out**: float32 `(n,)`.
# - **Example**: `[2, 4, 9]` gives `[2, 3, 5]`.


# %%
@exercise("example_pack.running_mean")
def running_mean(values: Tensor) -> Tensor:
    """(n,) -> (n,), the mean of all values up to each place."""
    ### BEGIN SOLUTION
    counts = torch.arange(1, len(values) + 1)
    return torch.cumsum(values, dim=0) / counts
    ### END SOLUTION


# %% [markdown]
# ## 2. Clip a gradient by its norm
# A gradient whose norm is over the limit is made shorter, in the same direction.
#
# - **In**: `gradient`, float32 `(n,)`; `max_norm`, above 0.
# - **Out**: float32 `(n,)`.
# - **Example**: `[3, -4]` with `max_norm` 2.5 gives `[1.5, -2]`.


# %%
@exercise("example_pack.clip_norm")
def clip_norm(gradient: Tensor, max_norm: float) -> Tensor:
    """(n,) -> (n,), its norm at most max_norm."""
    ### BEGIN SOLUTION
    length = torch.linalg.vector_norm(gradient)
    return gradient * torch.clamp(max_norm / length, max=1.0)
    ### END SOLUTION


# %% [markdown]
# Stuck? Write an exercise's id between the quotes, and run the cell.

# %%
stuck_at = ""
if stuck_at:
    hint(stuck_at)

# %% tags=["nbval-ignore-output"]
progress()
