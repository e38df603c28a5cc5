# %% [markdown]
# # Exercises: calibrated quantization
# Seven exercises, about 75 minutes; each stands alone. A cell with `@exercise(...)` checks your
# function when you run it: replace the line that raises `NotImplementedError`, run, read what comes
# back. The cell for hints is the last but one; `hint("calibration.gptq_column")` works in any cell.
#
# Your functions need torch, math and the standard library. Weights are `(out, in)`: one row for
# each output, one column for each input channel. Inputs are `(tokens, in)`.

# %%
import math
import sys

if "google.colab" in sys.modules:  # On Colab: install the package, leave Colab's torch alone.
    get_ipython().run_line_magic("pip", "install -q --no-deps git+https://github.com/slmlab/slmlab")

import torch
from torch import Tensor

from slmlab import exercise, hint, progress

# %% [markdown]
# ## 1. The channels that are worth 16 bits
# A few input channels of a layer carry much larger values than the others. Keep their weights in 16
# bits, quantise the rest. Which ones? AWQ's answer: those with the largest mean magnitude of their
# inputs.
#
# - **In**: `x`, float32 `(tokens, channels)`, inputs seen on calibration text; `w`, float32
#   `(out, channels)`, the weight; `share`, above 0 and at most 1.
# - **Out**: bool `(channels,)`, true for the channels to keep. Keep `share * channels` of them,
#   rounded up.
# - **Example**: `x = [[3.0, 1.0, 0.0], [-3.0, 2.0, 0.0]]`, `share` 0.4: two channels, `[True, True,
#   False]`, whatever `w` is.
# - **Must hold**: no channel left out has a larger mean |input| than one that is kept.


# %%
@exercise("calibration.salient_channels")
def salient_channels(x: Tensor, w: Tensor, share: float) -> Tensor:
    """Mask (channels,) of the input channels that stay in 16 bits."""
    ### BEGIN SOLUTION
    importance = x.abs().mean(dim=0)  # (channels,)
    count = math.ceil(share * len(importance))
    loudest_first = importance.argsort(descending=True)
    mask = torch.zeros(len(importance), dtype=torch.bool)
    mask[loudest_first[:count]] = True
    return mask
    ### END SOLUTION


# %% [markdown]
# ## 2. Search the AWQ exponent
# Instead of keeping salient channels in 16 bits, AWQ multiplies their weights by a scale before
# rounding, and divides their inputs by it. With `importance` the mean magnitude of each input
# channel, the scale is $s = \mathrm{importance}^{\alpha}$. Every $\alpha$ computes the same
# function until you round; then some lose less than others.
#
# Round to nearest with one step a row: the step is the row's largest scaled magnitude over
# $2^{b-1} - 1$.
#
# - **In**: `x`, float32 `(tokens, in)`; `w`, float32 `(out, in)`; `alphas`, a list of floats;
#   `bits`, an int.
# - **Out**: a dict. `"errors"`: float32 `(len(alphas),)`, for each alpha the mean over tokens and
#   outputs of the squared error of the outputs. `"alpha"`: the one with the smallest error.
# - **Example**: `x = [[3, 1, 1]]`, `w = [[0.4, 1.0, -0.7]]`, 3 bits, `alphas = [1.0]`: scaled
#   `[1.2, 1.0, -0.7]`, step 0.4, after rounding and unscaling `[0.4, 0.8, -0.8]`, error 0.09.
# - **Must hold**: without the rounding, every error is 0.


# %%
@exercise("calibration.awq_search")
def awq_search(x: Tensor, w: Tensor, alphas: list[float], bits: int) -> dict[str, float | Tensor]:
    """Output error of each exponent, and the best one."""
    ### BEGIN SOLUTION
    importance = x.abs().mean(dim=0)  # (in,)
    wanted = torch.nn.functional.linear(x, w)  # (tokens, out)
    errors = torch.zeros(len(alphas))
    for i, alpha in enumerate(alphas):
        scales = importance**alpha
        scaled = w * scales
        step = scaled.abs().amax(dim=1, keepdim=True) / (2 ** (bits - 1) - 1)  # (out, 1)
        rounded = torch.round(scaled / step) * step
        got = torch.nn.functional.linear(x / scales, rounded)
        errors[i] = ((got - wanted) ** 2).mean()
    return {"alpha": alphas[int(errors.argmin())], "errors": errors}
    ### END SOLUTION


# %% [markdown]
# ## 3. One GPTQ column
# GPTQ rounds one column after another. What a column loses, the columns that are still free make up
# for. With the damped second moment of the inputs
#
# $$H = \frac{1}{T} X^\top X + \lambda\, \overline{\mathrm{diag}(X^\top X / T)}\; I,$$
#
# let $G$ be the inverse of the part of $H$ that belongs to column $j$ and the ones after it; its
# first row and column are those of $j$. With $q$ the rounded column,
#
# $$w_k \leftarrow w_k - \frac{w_j - q}{G_{jj}}\, G_{jk} \quad\text{for } k > j, \qquad w_j \leftarrow q.$$
#
# - **In**: `w`, float32 `(out, in)`: columns before `column` are rounded already; `x`, float32
#   `(tokens, in)`; `scales`, float32 `(out,)`: round to the nearest multiple of the row's scale, no
#   clamping is needed here; `column`, an int; `damping`, $\lambda$.
# - **Out**: float32 `(out, in)`, the weight after this one step. Leave `w` itself as it is.
# - **Example**: with a damped $H$ of `[[2, 1], [1, 2]]`, `w = [[0.7, 0.4]]`, scale 0.5, column 0:
#   rounded 0.5, error 0.2, answer `[[0.5, 0.5]]`. The second weight rose by half the error, because
#   the two inputs go together.
# - **Must hold**: finished columns do not move; where inputs are uncorrelated, nothing moves but
#   the column itself.


# %%
@exercise("calibration.gptq_column")
def gptq_column(w: Tensor, x: Tensor, scales: Tensor, column: int, damping: float) -> Tensor:
    """The weight (out, in) after column `column` is rounded."""
    ### BEGIN SOLUTION
    hessian = x.T @ x / len(x)  # (in, in)
    hessian.diagonal().add_(damping * hessian.diagonal().mean())
    free = torch.linalg.inv(hessian[column:, column:])

    done, current, later = w[:, :column], w[:, column], w[:, column + 1 :]
    rounded = torch.round(current / scales) * scales  # (out,)
    error = (current - rounded) / free[0, 0]
    moved = later - torch.outer(error, free[0, 1:])
    return torch.cat([done, rounded.unsqueeze(1), moved], dim=1)
    ### END SOLUTION


# %% [markdown]
# ## 4. On paper: the memory of a GPTQ run
# No loops, no library: put the numbers together on paper, then write the one line. GPTQ takes one
# decoder layer at a time. In memory lie, together:
#
# | | |
# |---|---|
# | the weights of one layer, fp16 | q, k, v, o: 4,096 x 4,096 each; gate, up: 4,096 to 11,008; down: 11,008 to 4,096 |
# | the hidden states that enter it, fp16 | 128 sequences of 2,048 tokens, 4,096 wide |
# | the Hessian of one matrix, fp32 | that of `down_proj`, the largest |
# | the model | 32 layers |
#
# - **Out**: one number, in GB (10**9 bytes). It passes within 2%.
# - **Example**: width 1,000, feed-forward 3,000, 10 sequences of 1,000 tokens: 0.026 + 0.020 +
#   0.036 = 0.082 GB.
# - **Must hold**: a Hessian is square, with one row for each input channel.


# %%
@exercise("calibration.gptq_memory")
def gptq_memory() -> float:
    """GB that one step of GPTQ holds, from the table above."""
    ### BEGIN SOLUTION
    weights = 4 * 4096**2 + 3 * 4096 * 11008
    states = 128 * 2048 * 4096
    return (2 * weights + 2 * states + 4 * 11008**2) / 1e9
    ### END SOLUTION


# %% [markdown]
# ## 5. Repair this: SmoothQuant with three readers
# SmoothQuant moves an outlier from the activations into the weights. A norm's `gain` is divided by
# a scale, channel by channel, and the matrices that read the norm are multiplied by it:
# $s = \max|x|^{\alpha} / \max|w|^{1-\alpha}$. The code below is right for one matrix. But q, k and v
# all read the same norm. Look at what happens with two readers.


# %%
def smoothquant_as_found(
    gain: Tensor, weights: list[Tensor], x_max: Tensor, alpha: float
) -> dict[str, Tensor | list[Tensor]]:
    smoothed = []
    for weight in weights:
        w_max = weight.abs().amax(dim=0)
        scale = x_max**alpha / w_max ** (1 - alpha)
        scale[(x_max == 0) | (w_max == 0)] = 1.0
        gain = gain / scale
        smoothed.append(weight * scale)
    return {"gain": gain, "weights": smoothed}


readers = [torch.tensor([[1.0, 2.0]]), torch.tensor([[4.0, 2.0]])]
for count in (1, 2):
    found = smoothquant_as_found(torch.ones(2), readers[:count], torch.tensor([16.0, 1.0]), 0.5)
    print(
        f"{count} reader(s): gain x first weight = {(found['gain'] * found['weights'][0]).tolist()}"
    )

# %% [markdown]
# With two readers the first one no longer computes what it did. Copy the body into the blank and
# mend it: one scale for all readers.
#
# - **In**: `gain`, float32 `(channels,)`; `weights`, a list of float32 `(out, channels)`, `out` may
#   differ; `x_max`, float32 `(channels,)`, the largest |input| of each channel; `alpha`, a float.
# - **Out**: a dict: `"gain"`, `(channels,)`, and `"weights"`, a list as it came in. The
#   $\max|w|$ of a channel runs over all rows of all readers. Where a maximum is 0 the scale is 1.
# - **Example**: one channel, gain 1, weights 1 and 4, `x_max` 16, alpha 0.5: scale 4 / 2 = 2, gain
#   0.5, weights 2 and 8.
# - **Must hold**: for every reader, `gain * weight` stays what it was.


# %%
@exercise("calibration.smoothquant_fold")
def smoothquant_fold(
    gain: Tensor, weights: list[Tensor], x_max: Tensor, alpha: float
) -> dict[str, Tensor | list[Tensor]]:
    """Gain and weights after the outliers have moved from the inputs into the weights."""
    ### BEGIN SOLUTION
    w_max = torch.stack([weight.abs().amax(dim=0) for weight in weights]).amax(dim=0)  # (channels,)
    scale = torch.ones_like(x_max)
    alive = (x_max != 0) & (w_max != 0)
    scale[alive] = x_max[alive] ** alpha * w_max[alive] ** (alpha - 1)
    return {"gain": gain / scale, "weights": [weight * scale for weight in weights]}
    ### END SOLUTION


# %% [markdown]
# ## 6. Decide: where the bits go
# Layers differ in how much they suffer from few bits, and in size. You have an average of so many
# bits a weight to spend. You are scored by outcome: any plan within the budget whose total error is
# at most 10% above the best possible one passes.
#
# - **In**: `sizes`, name -> number of weights; `errors`, name -> list of errors, one for each of
#   `choices`, measured with that layer alone quantised; `choices`, bits in rising order; `budget`,
#   average bits a weight, at least the lowest choice.
# - **Out**: a dict, name -> bits (one of `choices`, an int).
# - **Example**: `sizes = {"a": 100, "b": 300}`, `errors = {"a": [0.4, 0.02], "b": [0.01, 0.001]}`,
#   `choices = [2, 4]`, `budget` 2.5: `{"a": 4, "b": 2}`, which is 2.5 bits on average, error 0.03.
# - **Must hold**: the average over *weights* is at most the budget.


# %%
@exercise("calibration.allocate_bits")
def allocate_bits(
    sizes: dict[str, int], errors: dict[str, list[float]], choices: list[int], budget: float
) -> dict[str, int]:
    """Bits of each layer, within the budget."""
    ### BEGIN SOLUTION
    level = dict.fromkeys(sizes, 0)
    left = budget * sum(sizes.values()) - choices[0] * sum(sizes.values()) + 1e-6
    while True:
        best, worth, price = None, 0.0, 0.0
        for name, size in sizes.items():
            for higher in range(level[name] + 1, len(choices)):
                cost = size * (choices[higher] - choices[level[name]])
                saved = errors[name][level[name]] - errors[name][higher]
                if cost <= left and saved / cost > worth:
                    best, worth, price = (name, higher), saved / cost, cost
        if best is None:
            return {name: choices[at] for name, at in level.items()}
        level[best[0]] = best[1]
        left -= price
    ### END SOLUTION


# %% [markdown]
# ## 7. Repair this: a clip that knows the exam
# The largest weight of a row sets the step of all. Clip it and the others get a finer grid: a
# `ratio` of 0.8 makes the step `0.8 * largest / (2**(bits-1) - 1)`, and codes beyond the last level
# are clamped. The code below looks for the best ratio and reports its error. Its numbers are always
# a little better than everybody else's.


# %%
def clip_as_found(
    w: Tensor, x_calibration: Tensor, x_evaluation: Tensor, ratios: list[float], bits: int
) -> dict[str, float]:
    levels = 2 ** (bits - 1) - 1
    best = {"ratio": 1.0, "error": math.inf}
    for ratio in ratios:
        step = ratio * w.abs().amax(dim=1, keepdim=True) / levels
        quantised = torch.clamp(torch.round(w / step), -levels, levels) * step
        error = (x_evaluation @ (quantised - w).T).square().mean().item()
        if error < best["error"]:
            best = {"ratio": ratio, "error": error}
    return best


# %% [markdown]
# Copy the body into the blank and mend it.
#
# - **In**: `w`, float32 `(out, in)`; `x_calibration` and `x_evaluation`, float32 `(tokens, in)`;
#   `ratios`, a list of floats; `bits`, an int.
# - **Out**: a dict: `"ratio"`, the one whose outputs err least on the calibration inputs, and
#   `"error"`, its mean squared output error (over tokens and outputs) on the evaluation inputs.
# - **Example**: two ratios with errors 3 and 2 on the calibration inputs, 4 and 6 on the evaluation
#   inputs: the second ratio, with an error of 6.
# - **Must hold**: other evaluation inputs leave the ratio as it is.


# %%
@exercise("calibration.honest_clip")
def honest_clip(
    w: Tensor, x_calibration: Tensor, x_evaluation: Tensor, ratios: list[float], bits: int
) -> dict[str, float]:
    """The ratio that calibration chooses, and its error on text it has not seen."""
    ### BEGIN SOLUTION
    levels = 2 ** (bits - 1) - 1
    best = {"ratio": 1.0, "error": math.inf}
    least = math.inf
    for ratio in ratios:
        step = ratio * w.abs().amax(dim=1, keepdim=True) / levels
        quantised = torch.clamp(torch.round(w / step), -levels, levels) * step
        seen = (x_calibration @ (quantised - w).T).square().mean().item()
        if seen < least:
            unseen = (x_evaluation @ (quantised - w).T).square().mean().item()
            least, best = seen, {"ratio": ratio, "error": unseen}
    return best
    ### END SOLUTION


# %% [markdown]
# Stuck? Write an exercise's id between the quotes, such as `calibration.gptq_column`, and run the
# next cell. The first run shows what must hold, the second a worked example, the third pseudocode.

# %%
stuck_at = ""
if stuck_at:
    hint(stuck_at)

# %% [markdown]
# How far you are in the whole workbook:

# %% tags=["nbval-ignore-output"]
progress()
