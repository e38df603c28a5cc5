# %% [markdown]
# # Start here: one exercise, to see how checks work
# About 5 minutes. You need to know what a softmax is, or to read one formula.
#
# Run the cells from top to bottom with Shift+Enter. A cell that begins with `@exercise(...)` is
# yours: replace the line that raises `NotImplementedError`, run the cell, and your function is
# checked at once. The answer is one of four: not started, error, wrong, passed. A wrong answer
# comes with the smallest input that shows it and, where the check knows the mistake, with what to
# think about. Run it as often as you like. `hint("start.softmax")` gives a first hint; called again
# it gives the next of three.

# %%
import sys

if "google.colab" in sys.modules:  # On Colab: install the package, leave Colab's torch alone.
    get_ipython().run_line_magic("pip", "install -q --no-deps git+https://github.com/slmlab/slmlab")

import torch
from torch import Tensor

from slmlab import exercise, hint, progress

# %% [markdown]
# ## Softmax with temperature
# A model ends in one number a vocabulary entry, the *logits*. Softmax makes probabilities of them:
# $p_i = e^{z_i / T} / \sum_j e^{z_j / T}$. A temperature $T$ above 1 evens them out, one below 1
# sharpens them.
#
# - **In**: `logits`, float32 of shape `(rows, vocabulary)`, any size of number, 1000 included;
#   `temperature`, a float above 0.
# - **Out**: float32 of the same shape. Each row is one distribution.
# - **Example**: `logits = [[0.0, 1.0986]]` (the second is ln 3) at temperature 1 gives
#   `[[0.25, 0.75]]`.
# - **Must hold**: every row sums to 1, and no finite logit gives NaN.
#
# Write it with `exp` and `sum`; `torch.softmax` would do the thinking for you.


# %%
@exercise("start.softmax")
def softmax(logits: Tensor, temperature: float) -> Tensor:
    """(rows, vocabulary) logits -> (rows, vocabulary) probabilities."""
    ### BEGIN SOLUTION
    scaled = logits / temperature
    # exp overflows float32 above 88; the largest exponent becomes 0, the ratios stay.
    shifted = scaled - scaled.max(dim=-1, keepdim=True).values
    exponentials = torch.exp(shifted)
    return exponentials / exponentials.sum(dim=-1, keepdim=True)
    ### END SOLUTION


# %% [markdown]
# Stuck? Write the exercise's id between the quotes, `start.softmax`, and run the next cell. Each run
# shows one rung more: what must hold, a worked example, pseudocode. Hints cost no points; your
# progress remembers how many you used.

# %%
stuck_at = ""
if stuck_at:
    hint(stuck_at)

# %% [markdown]
# What you have passed is kept on your machine. The next cell shows it.

# %% tags=["nbval-ignore-output"]
progress()
