# %% [markdown]
# # 01 · Anatomy and roofline
#
# *45 minutes · no GPU, no download · exercises: [01_anatomy_and_roofline](../exercises/01_anatomy_and_roofline.ipynb)*
#
# ## Reading is faster than writing. Why?

# %%
import inspect
import statistics
import sys

if "google.colab" in sys.modules:  # On Colab: install the package, leave Colab's torch alone.
    get_ipython().run_line_magic("pip", "install -q --no-deps git+https://github.com/slmlab/slmlab")

import torch

import slmlab
from slmlab import measured, predict
from slmlab.measure import Roofline, interleaved, predict_decode, tokens_per_second

torch.set_num_threads(1)
lm = slmlab.load()  # "tiny", or the model that SLMLAB_MODEL names
config = lm.model.config

# %% tags=["nbval-ignore-output"]
speed = tokens_per_second(lm, prompt_tokens=256, new_tokens=48)
reading, writing = speed.prefill_tokens_per_second, speed.decode_tokens_per_second
print(f"reading a prompt of 256 tokens: {reading:9,.0f} tokens/s")
print(f"writing one token at a time:    {writing:9,.0f} tokens/s")
print(f"Same weights, same core: reading is {reading / writing:.1f} times as fast as writing.")

# %% [markdown]
# Each token passes through the same layers, read or written, with the same arithmetic. Something
# else must take the time.
#
# By the end of this lesson you can name it. You can also compute a ceiling for any model on a
# device that you have never touched: from its bandwidth for writing, from its arithmetic rate for
# reading.
#
# ## Where the parameters are
#
# A decoder repeats one block. Each block has attention (the matrices for queries, keys, values
# and output) and an MLP (the matrices gate, up and down).

# %%
for name in (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "tie_word_embeddings",
):
    print(f"{name:22} {getattr(config, name)}")

# %% [markdown]
# Two facts are enough for a guess. Attention has four matrices with `hidden_size` on one side;
# keys and values are narrower, because several query heads share one KV head. The MLP has three
# matrices of `hidden_size` x `intermediate_size`.
#
# Replace `None` by your number. You can leave it: the lesson then goes on without a score.

# %%
predict("share of all parameters that sit in the MLPs", None, unit="%")

# %%
queries = config.num_attention_heads * config.head_dim
keys = config.num_key_value_heads * config.head_dim
attention = config.hidden_size * (queries + 2 * keys) + queries * config.hidden_size
mlp = 3 * config.hidden_size * config.intermediate_size
norms = 2 * config.hidden_size
embedding = config.vocab_size * config.hidden_size  # tied: the head is the same table
head = 0 if config.tie_word_embeddings else embedding

by_hand = (
    embedding + head + config.num_hidden_layers * (attention + mlp + norms) + config.hidden_size
)
real = sum(parameter.numel() for parameter in lm.model.parameters())
print(f"counted by hand: {by_hand:,}   in the model: {real:,}")
measured(
    "share of all parameters that sit in the MLPs", 100 * config.num_hidden_layers * mlp / real
)

# %% [markdown]
# The count leaves out biases and the norms on queries and keys, which some families have. If the
# two numbers differ on your model, that is where to look.
#
# Your turn: [count any Llama-like config](exercise:anatomy.parameter_count). Interviewers ask it
# with a tied head and shared KV heads: the one is easily counted twice, the other as query heads.

# %%
from slmlab.widgets import parameter_bars

parameter_bars(config, "float32")

# %% [markdown]
# ## The block, in a few lines
#
# This is the package's own code, not a copy.

# %%
from slmlab.models.decoder import MLP, Block

print(inspect.getsource(Block.forward))
print(inspect.getsource(MLP.forward))

# %% [markdown]
# `x` is the residual stream. Each half adds to it and never overwrites it. Before each half,
# RMSNorm brings the vector to a root mean square of one. It does not subtract the mean: that
# would be LayerNorm.

# %%
from slmlab.models import rms_norm

x = torch.tensor([2.0, -1.0, 0.5])
y = rms_norm(x, weight=torch.ones(3))
print("in: ", x.tolist(), " root mean square", round(x.pow(2).mean().sqrt().item(), 4))
print(
    "out:",
    [round(v, 4) for v in y.tolist()],
    " root mean square",
    round(y.pow(2).mean().sqrt().item(), 4),
)
print("mean before and after:", round(x.mean().item(), 4), round(y.mean().item(), 4))

# %% [markdown]
# Build it: [RMSNorm by hand](exercise:anatomy.rms_norm).
#
# Attention alone cannot tell "dog bites man" from "man bites dog". RoPE turns each pair of values
# in a query or key by an angle that grows with its position. The score of a query and a key then
# depends on the distance between them. Does it depend on where in the text they stand? Take one
# random vector as both query and key, and move the two through the text together.

# %%
import matplotlib.pyplot as plt

from slmlab.models import apply_rope, rope_inverse_frequencies, rope_tables
from slmlab.widgets.plot_style import label_at_end, label_axes, lesson_style
from slmlab.widgets.roof import set_log_axis

frequencies = rope_inverse_frequencies(config.head_dim, config.rope)
vector = torch.randn(config.head_dim, generator=torch.Generator().manual_seed(0))
distances = torch.arange(0, 65)


def scores(query_position):
    query = apply_rope(vector, *rope_tables(torch.tensor(query_position), frequencies))
    keys = apply_rope(vector.expand(65, -1), *rope_tables(query_position - distances, frequencies))
    return keys @ query / vector.dot(vector)  # (65,): 1 where the distance is 0


near, far = scores(64), scores(400)
print(
    "the same scores from position 64 and from position 400:", torch.allclose(near, far, atol=1e-5)
)
with lesson_style():
    figure, axes = plt.subplots(figsize=(7.2, 3.2), layout="constrained")
    (line,) = axes.plot(distances, near, markevery=8, label="query at 64")
    axes.plot(distances[::8], far[::8], linestyle="none", marker="x", color="#222222")
    label_at_end(line, "query at 64; crosses: query at 400")
    axes.set_title("The score depends on the distance, not on the place")
    axes.set_xlim(-2, 105)
    label_axes(axes, "distance between query and key", "tokens", "score", "share of distance 0")
    plt.show()

# %% [markdown]
# The wiggles are the pairs, each turning at its own pace; far apart they fall out of step.
#
# Build it: [RoPE by hand](exercise:anatomy.apply_rope). Its classic mistake, pairing neighbours
# instead of halves, runs without an error and ruins every loaded checkpoint.
#
# ## Two ceilings
#
# A step has to do two things: bring the weights from memory, and multiply with them. In decoding
# each weight is read once and used for one multiply-add. Prefill of 256 tokens reads it once and
# uses it 256 times.
#
# **Arithmetic intensity** is the number of operations for each byte read (FLOP/byte). A machine
# has a **ridge point**: its rate of operations over its rate of bytes. Below it, memory sets the
# pace; above it, arithmetic does. Here are both rates of one core of this machine.

# %% tags=["nbval-ignore-output"]
roof = Roofline.measure()
print(f"reads from memory: {roof.bandwidth_gb_s:6.1f} GB/s")
print(f"fp32 products:     {roof.gemm_gflop_s:6.1f} GFLOP/s")
print(f"ridge point:       {roof.ridge_flop_per_byte:6.1f} FLOP/byte")

# %% [markdown]
# Now the model. `predict_decode` adds up the bytes that one step reads: every matrix once, and
# the keys and values of the tokens so far. Prefill of 256 tokens is a step with a batch of 256
# as far as the layers go, and needs the head once. In fp32 a weight is 4 bytes and one multiply-add is 2 FLOP: 0.5 FLOP a
# byte. The cache lifts it a little, because several query heads share each cached key.

# %% tags=["nbval-ignore-output"]
from slmlab.widgets import RooflinePoint, roofline_plot

context = speed.prompt_tokens + speed.new_tokens // 2
decode = predict_decode(config, "float32", roof, context=context)
prefill = predict_decode(config, "float32", roof, batch=speed.prompt_tokens, head_rows=1)
print(
    f"bytes read for one token: {decode.weight_bytes / 1e6:.1f} MB of weights "
    f"+ {decode.kv_bytes / 1e6:.1f} MB of cache"
)
print(
    f"intensity: decode {decode.intensity_flop_per_byte:.2f}, prefill {prefill.intensity_flop_per_byte:.0f} FLOP/byte"
)
roofline_plot(
    roof,
    [
        RooflinePoint.predicted_from("decode", decode),
        RooflinePoint.predicted_from("prefill", prefill),
    ],
    dtype="float32",
)

# %% [markdown]
# Build both formulas: [bytes for one token](exercise:anatomy.bytes_per_token) and
# [intensity and ridge](exercise:anatomy.arithmetic_intensity).
#
# You have the bytes for one token and the bytes that memory delivers in a second. Divide, then
# say what the model will reach.

# %%
predict("decode in fp32 on this machine", None, unit="tokens/s")

# %% tags=["nbval-ignore-output"]
from slmlab.widgets import prediction_vs_measured

mine = measured("decode in fp32 on this machine", writing)
share = decode.bandwidth_utilisation(writing)
rates = [speed.new_tokens / seconds for seconds in speed.decode.wall]
print(
    f"ceiling {decode.tokens_per_second:,.0f} tokens/s, measured {writing:,.0f}: {share:.0%} of the bandwidth in use"
)
prediction_vs_measured(
    {"decode": (mine.value, rates)},
    unit="tokens/s",
    quantity="decode speed",
    ceiling=decode.tokens_per_second,
    ceiling_label="bandwidth ceiling",
)

# %% [markdown]
# No run can pass the ceiling, unless a part of the weights stays in the processor's cache. Most
# runs stay below it. The plot puts both steps under their roof.

# %% tags=["nbval-ignore-output"]
roofline_plot(
    roof,
    [
        RooflinePoint.predicted_from("decode", decode),
        RooflinePoint.predicted_from("prefill", prefill),
        RooflinePoint.measured_from("decode", decode, writing),
        RooflinePoint.measured_from("prefill", prefill, reading),
    ],
    dtype="float32",
    title=f"Decode reaches {share:.0%} of its roof, prefill {reading / prefill.tokens_per_second:.0%}",
)

# %% [markdown]
# ## Where the rest of the step goes
#
# A ceiling says what cannot be beaten. It does not say what takes the time. So take the step
# apart. First add up the weights, which reads every byte and does next to nothing else. Then run
# the matrix products alone. Then the whole step, with norms, attention and the Python around them.

# %% tags=["nbval-ignore-output"]
linears = [module for module in lm.model.modules() if isinstance(module, torch.nn.Linear)]
inputs = [torch.randn(1, 1, linear.in_features) for linear in linears]
start, token = torch.zeros(1, 256, dtype=torch.int64), torch.zeros(1, 1, dtype=torch.int64)
cache = slmlab.kv.ContiguousCache(config, max_length=context + 1)


@torch.inference_mode()
def reads():
    for linear in linears:
        linear.weight.sum()


@torch.inference_mode()
def products():
    for linear, vector in zip(linears, inputs):
        linear(vector)


@torch.inference_mode()
def step():
    lm.model(token, cache)
    cache.truncate(256)


with torch.inference_mode():
    lm.model(start, cache)
outer, inner = interleaved(step, products, repeats=30), interleaved(products, reads, repeats=30)
whole, bare = 1e3 * outer.a.median_seconds, 1e3 * outer.b.median_seconds
read = bare / inner.ratio
parts = {
    "reading the weights": read,
    "the products beyond reading": max(bare - read, 0.0),
    "all between the products": max(whole - bare, 0.0),
}
for part, milliseconds in parts.items():
    print(f"{part:28} {milliseconds:5.2f} ms  {milliseconds / whole:4.0%} of the step")
largest = max(parts, key=parts.get)
print(
    f"The largest part is {largest}. Without it a step would be {whole / (whole - parts[largest]):.1f} times as fast."
)

# %% [markdown]
# Where the second line is large, the kernel for one row is what keeps the model below its ceiling:
# the memory could deliver faster than the kernel asks. Where the third is large, it is the calls
# between: the smaller the model, the more they weigh. Real engines attack all three.
#
# ## Half the bytes
#
# In bf16 each weight takes two bytes instead of four. If memory sets the pace, how many times
# faster is decoding?

# %%
predict("decode in bf16 over decode in fp32", None, unit="times")


# %% tags=["nbval-ignore-output"]
@torch.inference_mode()
def stepper(dtype):
    other = slmlab.load(dtype=dtype).model
    other_cache = slmlab.kv.ContiguousCache(config, max_length=context + 1, dtype=dtype)
    other(start, other_cache)

    @torch.inference_mode()
    def one_step():
        other(token, other_cache)
        other_cache.truncate(256)

    return one_step


half = predict_decode(config, "bfloat16", roof, context=context)
print(f"the ceiling rises by a factor of {half.tokens_per_second / decode.tokens_per_second:.2f}")
gains = {}
for dtype in (torch.bfloat16, torch.float16):
    gains[dtype] = interleaved(step, stepper(dtype), repeats=30).ratio
    print(f"{str(dtype).removeprefix('torch.'):9} is {gains[dtype]:.2f} times as fast as float32")
measured("decode in bf16 over decode in fp32", gains[torch.bfloat16])
apart = max(gains.values()) / min(gains.values())
print(
    "Both formats have the same bytes. "
    + (
        f"Their speeds differ by a factor of {apart:.1f}: the kernel decides how much of the ceiling you get."
        if apart > 1.3
        else "Their kernels are about equally good here."
    )
)

# %% [markdown]
# Lesson 02 goes on from here: 4 bits instead of 16, and kernels that keep up.
#
# ## Sharing the bytes
#
# Eight people ask at once. One step reads the weights once and serves all eight. Tokens/s should
# grow with the batch until the arithmetic becomes the limit. You know the ridge point, and that one
# sequence has about 0.5 FLOP a byte. At which batch does the ceiling stop growing?

# %%
predict("batch at which the ceiling stops growing", None, unit="sequences")


# %% tags=["nbval-ignore-output"]
@torch.inference_mode()
def decode_rate(batch, steps=6):
    caches = slmlab.kv.ContiguousCache(config, batch, max_length=64)
    lm.model(torch.zeros(batch, 32, dtype=torch.int64), caches)

    def one_step():
        lm.model(torch.zeros(batch, 1, dtype=torch.int64), caches)
        caches.truncate(32)

    timed = interleaved(one_step, one_step, repeats=steps)
    return batch / statistics.median(timed.a.wall + timed.b.wall)


measured("batch at which the ceiling stops growing", roof.ridge_flop_per_byte / 0.5)
batches = [1, 2, 4, 8, 16, 32, 64]
reached = [decode_rate(batch) for batch in batches]
bound = [
    predict_decode(config, "float32", roof, batch=b, context=32).tokens_per_second for b in batches
]
with lesson_style():
    figure, axes = plt.subplots(figsize=(7.2, 3.6), layout="constrained")
    for values, text in ((bound, "ceiling"), (reached, "measured")):
        (line,) = axes.plot(batches, values)
        label_at_end(line, text)
    set_log_axis(axes.xaxis, 0.9, 130)
    set_log_axis(axes.yaxis, min(reached) / 1.5, max(bound) * 1.5)
    axes.set_title(
        f"A batch of 64 writes {reached[-1] / reached[0]:.0f} times as many tokens/s as one sequence"
    )
    label_axes(axes, "batch", "sequences", "decode speed of the batch", "tokens/s")
    plt.show()

# %% [markdown]
# On paper, without running anything: [the ceiling of a phone-class device](exercise:anatomy.decode_ceiling).
# Then use it: [choose a precision for a device](exercise:anatomy.choose_deployment).
#
# ## A sampler with a bug
#
# The last step of decoding is sampling. Here is a top-p filter that is easy to write. It runs, and
# its text looks fine. It promises to keep tokens whose probabilities sum to at least `p`. Check the
# promise before you read the code.

# %%
from slmlab.generation import top_p_filter


def top_p_suspect(logits, p):
    ordered, order = logits.sort(descending=True)
    mass = ordered.softmax(dim=-1).cumsum(dim=-1)
    return logits.masked_fill((mass > p).scatter(-1, order, mass > p), float("-inf"))


prompt = torch.tensor([lm.tokenizer.encode("def main(")])
with torch.inference_mode():
    logits = lm.model(prompt)[0, -1]
print("   p   suspect keeps (mass)    slmlab keeps (mass)")
for p in (0.8, 0.5, 0.2, 0.05):
    kept = [f(logits, p).isfinite() for f in (top_p_suspect, top_p_filter)]
    mass = [logits.softmax(-1)[k].sum().item() for k in kept]
    print(
        f"{p:5}  " + "      ".join(f"{int(k.sum()):5} tokens ({m:.4f})" for k, m in zip(kept, mass))
    )
print(
    "probabilities of the suspect at p = 0.05:",
    top_p_suspect(logits, 0.05).softmax(-1)[:3].tolist(),
)

# %% [markdown]
# The kept mass is below `p` in every row. At a small `p` nothing is left, and the sampler divides
# zero by zero. [Repair it](exercise:anatomy.top_p_repair).
#
# ## Play: when does the cache cost as much as the weights?
#
# Each token that is written reads the weights and the whole KV cache. Take int4 in the layers (4.5
# bits with scales), the tied head in 16 bits as most files have it, and batch 1: **at which context
# are the two equal, for SmolLM2-135M and for the much larger Llama-3.2-1B?** Guess which comes
# first, then move the context and watch the line that compares them.

# %% tags=["nbval-ignore-output"]
from slmlab.widgets.anatomy import explorer

explorer(lm, roof)

# %%
from slmlab.widgets import PUBLISHED
from slmlab.widgets.anatomy_view import cache_equals_weights_at

for name, published in PUBLISHED.items():
    shape = published.config()
    print(
        f"{name:13} {shape.parameter_count() / 1e6:6,.0f} M parameters, "
        f"{slmlab.kv.kv_bytes(shape, tokens=1) / 1024:4.1f} KiB of cache a token: "
        f"equal at {cache_equals_weights_at(shape):,} tokens"
    )

# %% [markdown]
# Parameters set the size of the weights; layers and KV heads set that of the cache. The two need
# not grow together: the smallest model here is the first whose cache costs more than its weights.
#
# ## Explain
#
# Say it in two sentences: why is reading a prompt faster than writing, and what would you change
# to write faster?
#
# <details><summary>A model answer</summary>
#
# Writing reads every weight from memory for one token, so bandwidth over bytes is its ceiling, and
# a kernel for one row comes only so close to it; reading a prompt uses each weight for hundreds of
# tokens, and its ceiling is the arithmetic rate. To write faster, read fewer bytes for each token
# (fewer bits a weight, a larger batch, several tokens checked in one step), with kernels that keep
# up.
#
# </details>
#
# ## Three interview questions

# %% jupyter={"source_hidden": true}
from slmlab.checking import Question, ask

one_b = PUBLISHED["Llama-3.2-1B"].config()
at_fp16 = predict_decode(one_b, "float16", (50, None))
with_cache = predict_decode(one_b, "float16", (50, None), context=8192)
ask(
    Question(
        "A model has 1.24e9 parameters in fp16. The device reads 50 GB/s. How fast can it write?",
        f"{at_fp16.weight_bytes / 1e9:.2f} GB for each token, so at most {at_fp16.tokens_per_second:.1f} tokens/s at batch 1.",
    ),
    Question(
        "The same with 8,192 tokens in an fp16 KV cache (16 layers, 8 KV heads of 64)?",
        f"The cache adds {with_cache.kv_bytes / 2**20:.0f} MiB that every token reads: {with_cache.tokens_per_second:.1f} tokens/s.",
    ),
    Question(
        "An accelerator has 45 TOPS and 77 GB/s. Does a faster multiplier help int4 decoding?",
        f"Its ridge is {45e12 / 77e9:.0f} operations a byte; int4 decoding does 2 operations for half a byte, about 4 a byte. "
        "No: it waits for memory.",
    ),
)

# %% [markdown]
# ## Your predictions so far

# %% tags=["nbval-ignore-output"]
from slmlab.checking import calibration_plot

calibration_plot()

# %% [markdown]
# **Where next:** lesson 02 goes down to 4 bits a weight, and asks what that costs.
#
# Sources: Williams, Waterman and Patterson, "Roofline", CACM 52(4), 2009. RoPE: Su et al. 2021,
# [arXiv:2104.09864](https://arxiv.org/abs/2104.09864), section 3.4. The decoder of this lesson:
# `slmlab/models/decoder.py`.
