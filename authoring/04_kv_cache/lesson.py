# %% [markdown]
# # 04 · The KV cache: what a model remembers, and what that costs
#
# *45 minutes · no GPU, no download · exercises: [04_kv_cache](../exercises/04_kv_cache.ipynb)*
#
# ## The notes are longer than the book

# %%
import inspect
import sys

if "google.colab" in sys.modules:  # On Colab: install the package, leave Colab's torch alone.
    get_ipython().run_line_magic("pip", "install -q --no-deps git+https://github.com/slmlab/slmlab")

import torch

import slmlab
from slmlab import measured, predict
from slmlab.data import evaluation_set
from slmlab.kv import (
    ConcatenatingCache,
    ContiguousCache,
    QuantizedCache,
    SlidingWindowCache,
    kv_bytes,
)
from slmlab.quant import model_bytes

torch.set_num_threads(1)
lm = slmlab.load()  # "tiny", or the model that SLMLAB_MODEL names
model, config = lm.model, lm.model.config
text = evaluation_set("prose").texts[0]  # held out: no model here was trained on it
longest = min(512, config.max_position_embeddings)
tokens = lm.tokenizer.encode(text)[:longest]
ids = torch.tensor([tokens])  # (1, longest)

# %%
from slmlab.widgets.kv_cache_models import cache_configs
from slmlab.widgets.units import bytes_text

published = cache_configs()
with torch.inference_mode():
    cache = ConcatenatingCache(config)  # holds what it needs and no more
    reference = model(ids, cache)[0]  # (longest, vocabulary)
letters = len(lm.tokenizer.decode(tokens).encode())
print(f"{len(tokens)} tokens of text:      {bytes_text(letters)}")
print(
    f"what the model keeps of it: {bytes_text(cache.nbytes)}, {cache.nbytes / letters:,.0f} times the text"
)
print(f"so many such texts weigh as much as the model: {model_bytes(lm.model) / cache.nbytes:.0f}")
seven, eight = published["Llama-2-7B"], kv_bytes(published["Llama-2-7B"], 4096, batch=8)
weights = slmlab.measure.predict.weight_bytes_stored(seven, "float16")
print(
    f"Llama-2-7B, 8 texts of 4,096 tokens: {bytes_text(eight)}, its weights {bytes_text(weights)}"
)

# %% [markdown]
# That store is the **KV cache**: the keys and values of every token, in every layer, kept so that no
# token is computed twice. In this lesson you size it, see what it saves, and make it smaller in three
# ways: shared heads, a window, fewer bits.
#
# First commit yourself. Without a cache the model reads the whole text again for each new token: the
# arithmetic of all of them instead of one. But a single token leaves the arithmetic idle while the
# weights come from memory (lesson 01), and many tokens share one reading of the weights. So the
# factor lies between 1 and the number of tokens. Replace `None` by yours, or leave it.

# %%
print(f"the last token of a text of {longest}:")
predict("time of the last token without a cache, over with one", None, unit="times")

# %% [markdown]
# ## What is kept, and for whom
#
# Watch one layer store three tokens. A query is used once and forgotten; keys and values stay.


# %%
class Watched(ContiguousCache):
    """A cache that tells what its first layer is given."""

    def append(self, layer, k, v):
        if layer == 0:
            print("keys  ", tuple(k.shape), " (batch, kv_heads, time, head_dim)")
            print(
                "values", tuple(v.shape), " query heads that will ask:", config.num_attention_heads
            )
        return super().append(layer, k, v)


with torch.inference_mode():
    model(ids[:, :3], Watched(config, max_length=3))

# %% [markdown]
# The heads of that shape are the ones to count. A formula that is often copied takes the model's
# width instead, which is query heads times head_dim. Put both beside the bytes of the real object.

# %%
a_token = cache.nbytes / cache.length
copied = 2 * config.num_hidden_layers * config.num_attention_heads * config.head_dim * 4
print(f"one token, measured:               {a_token:8,.0f} bytes (float32)")
print(f"2 * layers * width * 4 bytes:      {copied:8,} bytes, {copied / a_token:.1f} times as much")
print(f"kv_bytes:                          {kv_bytes(config, 1, dtype='float32'):8,} bytes\n")
print("\n".join(inspect.getsource(kv_bytes).splitlines()[-3:]))
assert kv_bytes(config, cache.length, dtype="float32") == cache.nbytes

# %% [markdown]
# Sharing is called **grouped-query attention** (Ainslie et al. 2023,
# [arXiv:2305.13245](https://arxiv.org/abs/2305.13245)): several query heads ask one key and value
# head. It costs nothing at run time, and it is decided before training. Published models, from their
# config files:

# %%
import matplotlib.pyplot as plt

from slmlab.widgets.plot_style import SERIES, lesson_style

shapes = {"this model": config, **published}
factors = {
    name: c.num_attention_heads / (c.num_key_value_heads or c.num_attention_heads)
    for name, c in shapes.items()
}
with lesson_style():
    figure, axes = plt.subplots(figsize=(7.2, 3.4), layout="constrained")
    for place, (name, shape) in enumerate(shapes.items()):
        stored = kv_bytes(shape, 1) / 1024
        axes.barh(place, stored * factors[name], color="none", edgecolor="#222222", hatch="///")
        axes.barh(place, stored, color=SERIES[0].colour)
        heads = "1 query head" if factors[name] == 1 else f"{factors[name]:.0f} query heads"
        note = f"  {stored:,.0f} KiB, {heads} a KV head"
        axes.text(stored * factors[name], place, note, va="center", fontsize=9)
    axes.set_yticks(range(len(shapes)), list(shapes))
    axes.invert_yaxis()
    axes.set_xlim(0, max(kv_bytes(c, 1) / 1024 * factors[n] for n, c in shapes.items()) * 1.65)
    axes.set_xlabel("cache of one token, float16 (KiB); hatched: if every query head had its own")
    best = max(factors, key=factors.get)
    axes.set_title(f"Sharing heads makes the cache of {best} {factors[best]:.0f} times smaller")
    plt.show()

# %% [markdown]
# Sum it up yourself: [size a cache](exercise:kv.bytes), then, on paper,
# [the context that still fits](exercise:kv.context_fits).
#
# ## Off and on
#
# The decode loop, with a cache or with none. Without one, each step gets the whole text.


# %%
@torch.inference_mode()
def decode(prompt, steps, cache=None):
    text, step = list(prompt), list(prompt)
    for _ in range(steps):
        hidden = model.hidden(torch.tensor([step if cache is not None else text]), cache)
        text.append(model.lm_head(hidden[:, -1]).argmax().item())
        step = text[-1:]
    return text[len(prompt) :]


prompt, steps = tokens[:24], 16
caches = {
    "none": None,
    "concatenating": ConcatenatingCache(config),
    "preallocated": ContiguousCache(config, max_length=longest),
}
said = {name: decode(prompt, steps, cache) for name, cache in caches.items()}
for name, cache in caches.items():
    note = "" if cache is None else f"{bytes_text(cache.bytes_copied)} written"
    print(f"{name:14} {lm.tokenizer.decode(said[name])!r}  {note}")
assert said["none"] == said["concatenating"] == said["preallocated"]

# %% [markdown]
# The same tokens. Now the cost of a token against its position. The prediction comes from lesson 01:
# the slower of arithmetic and memory, with the rates of this machine.

# %% tags=["nbval-ignore-output"]
from functools import partial

from slmlab.measure import Roofline, interleaved, predict_decode

roofline = Roofline.measure()
positions = sorted({max(2, longest // part) for part in (32, 16, 8, 4, 2, 1)})
cost = {"without a cache": [], "with a cache": []}


@torch.inference_mode()
def without(position):
    model.lm_head(model.hidden(ids[:, :position])[:, -1])


@torch.inference_mode()
def stepper(cache, position):
    model.hidden(ids[:, : position - 1], cache)

    @torch.inference_mode()
    def step():
        model.lm_head(model.hidden(ids[:, position - 1 : position], cache)[:, -1])
        cache.truncate(position - 1)

    return step


for position in positions:
    step = stepper(ContiguousCache(config, max_length=longest), position)
    timed = interleaved(partial(without, position), step, repeats=3)
    cost["without a cache"].append(timed.a.min_seconds * 1000)
    cost["with a cache"].append(timed.b.min_seconds * 1000)
measured("time of the last token without a cache, over with one", timed.ratio)
print(f"token {longest}: {timed.ratio:.0f} times as long without a cache (n = {timed.n})")

# %% tags=["nbval-ignore-output"]
from slmlab.widgets.plot_style import label_at_end

foreseen = {
    "without a cache": [
        predict_decode(config, "float32", roofline, batch=p, head_rows=1).step_seconds * 1000
        for p in positions
    ],
    "with a cache": [
        predict_decode(config, "float32", roofline, context=p).step_seconds * 1000
        for p in positions
    ],
}
with lesson_style():
    figure, axes = plt.subplots(figsize=(7.2, 3.6), layout="constrained")
    for series, (name, line) in zip(SERIES, cost.items()):
        axes.plot(positions, foreseen[name], color=series.colour, linestyle=":", marker="")
        (drawn,) = axes.plot(
            positions, line, color=series.colour, marker=series.marker, linestyle="-"
        )
        label_at_end(drawn, name)
    axes.set(xscale="log", yscale="log", xlim=(positions[0] / 1.2, positions[-1] * 3.2))
    axes.set_xticks(positions, [str(p) for p in positions])
    axes.minorticks_off()
    axes.set_xlabel("position of the token; dotted: the ceiling of this machine (tokens)")
    axes.set_ylabel("time of the token (ms)")
    gap = cost["without a cache"][-1] / cost["with a cache"][-1]
    axes.set_title(f"Token {longest} takes {gap:.0f} times as long without a cache")
    plt.show()
print(
    f"All {longest} tokens of a text: without a cache the cost of a token grows with its position, so "
    "the sum grows with the square; with one it grows with the length."
)

# %% [markdown]
# ## A cache that copies itself
#
# There are two ways to keep a growing tensor. Join the old one and the new row at every step, as the
# first implementations did. Or reserve room once and write into it. The cost of the first: step t
# writes t tokens.

# %%
predict("bytes written for the whole text, concatenating over preallocated", None, unit="times")

# %% tags=["nbval-ignore-output"]
from slmlab.measure.timing import time_once

room = min(4096, int(2e8 / a_token))  # tokens; both caches together stay below 0.4 GB
row = torch.zeros(1, config.num_key_value_heads, 1, config.head_dim)
written, pause = {}, {}
for name, grown in (
    ("concatenating", ConcatenatingCache(config)),
    ("preallocated", ContiguousCache(config, max_length=room + 1)),
):

    def append(new, grown=grown):
        for layer in range(config.num_hidden_layers):
            grown.append(layer, new, new)

    written[name] = []
    for _ in range(longest):
        append(row)
        written[name].append(grown.bytes_copied)
    pause[name] = []
    lengths = [n for n in (longest, 2 * longest, 4 * longest, 8 * longest) if n <= room]
    for length in lengths:
        if length > grown.length:
            append(row.expand(-1, -1, length - grown.length, -1))
        seconds = []
        for _ in range(5):
            seconds.append(time_once(lambda: append(row))[0])
            grown.truncate(length)
        pause[name].append(min(seconds) * 1000)
times_more = written["concatenating"][-1] / written["preallocated"][-1]
measured("bytes written for the whole text, concatenating over preallocated", times_more)
assert times_more == (longest + 1) / 2  # 1 + 2 + ... + n over n
with lesson_style():
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.4), layout="constrained")
    steps = list(range(1, longest + 1))
    for series, (name, line) in zip(SERIES, written.items()):
        shown = [n - 1 for n in positions]
        formula = [a_token * (n * (n + 1) / 2 if name == "concatenating" else n) for n in steps]
        left.plot(steps, formula, color=series.colour, linestyle=":", marker="")
        left.plot(
            [steps[n] for n in shown],
            [line[n] for n in shown],
            color=series.colour,
            marker=series.marker,
            linestyle="none",
        )
        left.annotate(
            name,
            (steps[-1], line[-1]),
            (-10, 0),
            textcoords="offset points",
            ha="right",
            va="center",
        )
        right.plot(
            lengths, pause[name], color=series.colour, marker=series.marker, linestyle=series.line
        )
    left.set(xscale="log", yscale="log", xlabel="tokens so far", ylabel="bytes written so far")
    figure.suptitle(
        f"Joining writes {times_more:.0f} times the bytes after {longest} tokens",
        x=0.01,
        ha="left",
        fontsize=11,
        weight="bold",
    )
    left.set_title("dotted: n (n + 1) / 2 and n", fontsize=10)
    right.set(
        xscale="log", yscale="log", xlabel="tokens in the cache", ylabel="one token more (ms)"
    )
    right.set_xticks(lengths, [f"{n:,}" for n in lengths])
    right.minorticks_off()
    right.set_title("the same two caches in time", fontsize=10)
    plt.show()
print(
    f"{longest} tokens: {times_more:.0f} times the bytes. At {lengths[-1]:,} tokens a concatenating "
    f"append takes {pause['concatenating'][-1]:.2f} ms, a preallocated one {pause['preallocated'][-1]:.2f} ms; "
    f"a whole step of the model {cost['with a cache'][-1]:.1f} ms."
)

# %% [markdown]
# At short contexts the copies hide behind the model. They grow with every token, and the rest of the
# step hardly does. Repair one that does not even know how long it will get: [grow by doubling](exercise:kv.concat_repair).
#
# ## A bug that runs: the rewound cache
#
# Speculative decoding (lesson 06) feeds tokens that may be rejected, and takes them back. This session
# counts the positions itself. Three checks that people write pass.


# %% tags=["nbval-ignore-output"]
class Session:
    """Feeds tokens, and takes back what was rejected."""

    def __init__(self):
        self.cache, self.seen = ContiguousCache(config, max_length=longest), 0

    @torch.inference_mode()
    def feed(self, new):
        at = torch.arange(self.seen, self.seen + len(new))
        self.seen += len(new)
        return model(torch.tensor([new]), self.cache, positions=at)[0, -1]  # (vocabulary,)

    def rewind(self, n):
        self.cache.truncate(n)


@torch.inference_mode()
def off(session_logits, held):
    """How far the logits are from those of a pass over the same tokens without a cache."""
    wanted = model(torch.tensor([held]))[0, -1]
    return float((session_logits - wanted).abs().max() / wanted.abs().max())


one, many, again = Session(), Session(), Session()
first = off(one.feed(tokens[:8]), tokens[:8])
for token in tokens[:8]:
    last = many.feed([token])
again.feed(tokens[:8])
again.rewind(0)
checks = {
    "one prompt": first,
    "token by token": off(last, tokens[:8]),
    "rewound to the start": off(again.feed(tokens[8:16]), tokens[8:16]),
}
for name, found in checks.items():
    print(f"{name:21} off by {found:.0e}: {'passes' if found < 1e-4 else 'fails'}")
    assert found < 1e-4

# %% [markdown]
# Even the rewind passes: rotary attention sees only distances between tokens, and after a rewind to
# nothing all positions are wrong by the same amount. So state the property and let the machine look:
# **after any feeds and rewinds, the logits equal those of a pass over the held tokens without a
# cache.**


# %% tags=["nbval-ignore-output"]
def smallest_counterexample(make, largest=4):
    for first in range(1, largest):
        for kept in range(first + 1):
            session = make()
            session.feed(tokens[:first])
            session.rewind(kept)
            found = off(session.feed(tokens[20:21]), tokens[:kept] + tokens[20:21])
            if found > 1e-4:
                return f"feed {first}, keep {kept}, feed 1: the logits are off by {found:.1%}"
    return "none"


class Repaired(Session):
    def rewind(self, n):
        self.cache.truncate(n)
        self.seen = self.cache.length


print("the session: ", smallest_counterexample(Session))
print("its repair:  ", smallest_counterexample(Repaired))
assert smallest_counterexample(Repaired) == "none" != smallest_counterexample(Session)

# %% [markdown]
# The cache knows how long it is; a second counter can only disagree.
# [Repair it](exercise:kv.rewind_repair).
#
# ## A window: what it saves, what it forgets
#
# `SlidingWindowCache` keeps the newest tokens in a ring, and its size does not depend on the text.
# Mistral 7B was trained with a window; this model may not have been, and then it loses what it would
# have looked at. Ask it: the held-out recall task stores pairs such as `cup 33` and asks for one.

# %% tags=["nbval-ignore-output"]
samples = evaluation_set("recall").samples[:20]
windows = (8, 16, 32, 64, None)


@torch.inference_mode()
def recalled(window):
    """Share of the samples whose answer gets the highest logit at every one of its tokens."""
    right = 0
    for sample in samples:
        asked = lm.tokenizer.encode(sample.prompt, add_special_tokens=False)
        whole = lm.tokenizer.encode(sample.prompt + sample.answer, add_special_tokens=False)
        ring = None if window is None else SlidingWindowCache(config, window=window)
        best = model(torch.tensor([whole]), ring)[0].argmax(-1).tolist()
        right += best[len(asked) - 1 : -1] == whole[len(asked) :]
    return right / len(samples)


shares = [recalled(window) for window in windows]
with lesson_style():
    figure, axes = plt.subplots(figsize=(7.2, 3.2), layout="constrained")
    spread_of = [(share * (1 - share) / len(samples)) ** 0.5 for share in shares]
    places = range(len(windows))
    axes.errorbar(places, shares, yerr=spread_of, color=SERIES[0].colour, marker="o", capsize=4)
    axes.set_xticks(places, ["all" if w is None else str(w) for w in windows])
    axes.set(ylim=(-0.05, 1.08), xlabel="window (tokens)")
    axes.set_ylabel(f"recalled (share of {len(samples)})")
    axes.set_title(
        f"With a window of {windows[1]} it recalls {shares[1]:.0%}, with every token {shares[-1]:.0%}"
    )
    plt.show()

# %% [markdown]
# A ring has its own classic bug: a chunk of a prompt pushes keys out that its own first tokens should
# still see. [Repair a window that forgets too early](exercise:kv.window_repair).
#
# ## Fewer bits: keys are not values
#
# Quantise three tokens of three channels, where the first channel is loud in every token. A group
# is cut into steps between its minimum and its maximum. Along which side should it run?

# %%
from slmlab.kv.minmax import MinMaxGrid

few_keys = torch.tensor([[30.0, 0.3, -0.9], [33.0, -0.4, 0.6], [31.0, 0.5, 0.1]])
for name, groups in (("per token", few_keys), ("per channel", few_keys.T)):
    grid = MinMaxGrid(bits=2, group_size=3, columns=3)
    back = grid.dequantize(*grid.quantize(groups))  # a row is a group
    back = back if name == "per token" else back.T
    quiet = [[round(x, 1) for x in row] for row in back[:, 1:].tolist()]
    worst = (back - few_keys)[:, 1:].abs().max()
    print(f"{name:12} quiet channels come back as {quiet}, off by up to {worst:.2f}")

# %% [markdown]
# In a token the loud channel sets the step, about 10, and its quiet neighbours collapse onto one
# value. Are there loud channels in this model? Take the head with the loudest and look at keys and
# values side by side.

# %%
with torch.inference_mode():
    filled = ConcatenatingCache(config)
    model(ids, filled)
    nothing = row[:, :, :0]  # appending nothing returns all that is held
    held = [filled.append(layer, nothing, nothing) for layer in range(config.num_hidden_layers)]
sizes = torch.stack([torch.stack((k[0], v[0])) for k, v in held]).abs()  # (layer, 2, head, T, D)
by_channel = sizes.mean(dim=3)  # (layer, keys or values, kv_head, channel)
loudness = by_channel.amax(-1) / by_channel.mean(-1)
layer, head = divmod(int(loudness[:, 0].argmax()), loudness.shape[2])
quiet = (by_channel[layer, 0, head] < 0.01 * by_channel[layer, 0, head].max()).sum()
with lesson_style():
    figure, both = plt.subplots(1, 2, figsize=(7.2, 3.4), layout="constrained", sharey=True)
    for axes, picture, name, most in zip(
        both, sizes[layer, :, head], ("keys", "values"), loudness[layer, :, head]
    ):
        image = axes.imshow(picture[:96], aspect="auto", cmap="Greys", interpolation="nearest")
        axes.set_title(f"{name}: loudest channel {most:.1f} x the mean")
        axes.set_xlabel("channel")
        figure.colorbar(image, ax=axes, label="magnitude", shrink=0.8)
    both[0].set_ylabel("token")
    plt.show()
print(
    f"layer {layer}, KV head {head}; {quiet} of its {config.head_dim} key channels are nearly silent"
)
mean_of = loudness.mean(dim=(0, 2))
print(
    f"over all layers and heads the loudest channel is {mean_of[0]:.1f} times the mean in keys, {mean_of[1]:.1f} in values"
)
print(
    "Keys have the louder channels here."
    if mean_of[0] > 1.1 * mean_of[1]
    else "Here the keys have no louder channels than the values."
)

# %% [markdown]
# A stripe is a channel that is loud, or silent, in every token. KIVI (Liu et al. 2024,
# [arXiv:2402.02750](https://arxiv.org/abs/2402.02750)) found them in the keys of the models it looked
# at and not in the values. So it groups keys along a channel, over 32
# tokens, and values along a token. What is it worth in the model's answers? The error grows with the
# square of the step, and the step with the loudest neighbour.

# %%
predict("KL of 2-bit keys per token, over per channel", None, unit="times")

# %% tags=["nbval-ignore-output"]
from slmlab.measure import position_kl_nats


@torch.inference_mode()
def tried(cache, chunk=32):
    """(KL to the full cache in nats a token, share of its bytes)"""
    logits = torch.cat([model(part, cache)[0] for part in ids.split(chunk, dim=1)])
    kl = position_kl_nats(logits, reference).mean().item()
    return kl, cache.nbytes / filled.nbytes


ways = {
    f"int{b}, keys per {p}": QuantizedCache(config, bits=b, keys_per=p)
    for p in ("channel", "token")
    for b in (8, 4, 2)
}
ways |= {
    f"window {w}": SlidingWindowCache(config, window=w) for w in (256, 128, 64, 32) if w < longest
}
outcome = {name: tried(cache) for name, cache in ways.items()}
lines = {
    kind: [outcome[n] for n in outcome if kind in n]
    for kind in ("per channel", "per token", "window")
}
few, many = outcome["int2, keys per channel"], outcome["int2, keys per token"]
four = outcome["int4, keys per channel"]
with lesson_style():
    figure, axes = plt.subplots(figsize=(7.2, 3.8), layout="constrained")
    for series, (kind, points) in zip(SERIES, lines.items()):
        kls, bytes_ = zip(*points)
        axes.plot(
            [100 * b for b in bytes_],
            kls,
            color=series.colour,
            marker=series.marker,
            linestyle=series.line,
            label=kind,
        )
        names = (
            ("8 bits", "4", "2") if kind != "window" else ("256", "128", "64", "32")[-len(points) :]
        )
        if kind != "per token":
            for name, kl, b in zip(names, kls, bytes_):
                axes.annotate(
                    name,
                    (100 * b, kl),
                    xytext=(-8, -5),
                    textcoords="offset points",
                    fontsize=8.5,
                    ha="right",
                )
    axes.set(yscale="log", xlabel="bytes (% of the float32 cache)", ylabel="KL (nats a token)")
    axes.legend(loc="center right", title="keys, or a window")
    axes.margins(x=0.12, y=0.12)
    larger = [n for n in outcome if "window" in n and outcome[n][1] >= four[1]]
    rival = min(
        larger or [n for n in outcome if "window" in n],
        key=lambda n: outcome[n][0] if not larger else outcome[n][1],
    )
    costs = outcome[rival][0] / four[0]
    axes.set_title(
        f"{rival.capitalize()} ({outcome[rival][1]:.0%} of the bytes) costs "
        f"{costs:,.0f} times the KL of int4 ({four[1]:.0%})"
    )
    plt.show()
for name, (kl, share) in outcome.items():
    print(f"{name:23} {share:6.1%} of the bytes  KL {kl:.5f} nats")
ratio = many[0] / few[0]
measured("KL of 2-bit keys per token, over per channel", ratio)
print(
    f"2-bit keys per token cost {ratio:.2f} times the KL of keys per channel, with {many[1]:.1%} of the "
    f"bytes against {few[1]:.1%}."
)

# %% [markdown]
# Build it: [keys per channel, values per token](exercise:kv.quantize_cache). Then decide
# [which of the two gets the bits](exercise:kv.choose_bits).
#
# Time is the third side. A smaller cache is read faster, and what was packed must be unpacked at
# every step. Which of the two counts here?

# %% tags=["nbval-ignore-output"]
plain = stepper(ContiguousCache(config, max_length=longest), longest)
for name, cache in (
    ("int4, keys per channel", QuantizedCache(config, bits=4)),
    ("window 64", SlidingWindowCache(config, window=64)),
):
    timed = interleaved(stepper(cache, longest), plain, repeats=5)
    verdict = "slower" if timed.ratio > 1.05 else "faster" if timed.ratio < 0.95 else "as fast"
    print(
        f"{name:23} {timed.ratio:.2f} times the time of a step with the full cache ({verdict}, n = {timed.n})"
    )
share_of_step = filled.nbytes / (filled.nbytes + model_bytes(model))
print(
    f"At {longest} tokens the cache is {share_of_step:.0%} of the bytes a step reads: that much a smaller one could save."
)

# %% [markdown]
# ## Play: which model holds the longest text?
#
# You have seen shared heads, windows and bits one at a time, and a cache lies next to weights of
# very different sizes. **In 2 GB, next to weights in int4-g32 and with a float16 cache: which
# published model holds the longest conversation?** It is not the smallest. Move `model` and read
# where the line crosses 2 GB. Then 8 GB.

# %% tags=["nbval-ignore-output"]
from slmlab.widgets.kv_cache import explorer, fits_beside_weights, tokens_text

explorer(lm)

# %% tags=["nbval-ignore-output"]
from slmlab.widgets.kv_cache import longest as holds_most

for memory in (2, 8):
    held = {name: fits_beside_weights(shape, memory) for name, shape in published.items()}
    print(f"in {memory} GB: " + "; ".join(f"{name} {tokens_text(n)}" for name, n in held.items()))
    print(f"        the longest: {holds_most(memory)}")
gemma = published["Gemma-3-1B"]
local = gemma.layer_types.count("sliding_attention")
print(
    f"Gemma-3-1B has {gemma.num_key_value_heads} KV head, and {local} of its "
    f"{gemma.num_hidden_layers} layers stop growing at {gemma.sliding_window} tokens. Mistral-7B-v0.1 stops in "
    f"every layer, at {published['Mistral-7B-v0.1'].sliding_window:,}: once that fits, any length does."
)

# %% [markdown]
# What fits is not what a model can use: each was trained up to some length, and the widget says so.
#
# ## Explain
#
# Say it in two sentences: what does a cache save and what does it cost, and why do keys and values
# get different groups?
#
# <details><summary>A model answer</summary>
#
# A cache keeps keys and values of every token so that a step computes one token instead of the whole
# text, and pays with bytes that grow with layers, KV heads, head_dim and length, soon more than the
# weights. Keys have channels that are loud in every token, so a scale per channel keeps them from
# coarsening their neighbours, while values have few and are summed token by token, so a scale per
# token keeps an error where it arose.
#
# </details>
#
# ## Three interview questions

# %% jupyter={"source_hidden": true} tags=["nbval-ignore-output"]
from slmlab.checking import Question, ask

mistral, llama = published["Mistral-7B-v0.1"], published["Llama-2-7B"]
packed = QuantizedCache(config, bits=4)
tried(packed)
ask(
    Question(
        "A 7B model with 32 layers, 32 query heads and head_dim 128: the fp16 cache of 4,096 tokens? And with 8 KV heads?",
        f"2 * 32 * 32 * 128 * 2 bytes = {kv_bytes(llama, 1) / 1024:.0f} KiB a token, {bytes_text(kv_bytes(llama, 4096))} in all. With "
        f"8 KV heads a quarter: {bytes_text(kv_bytes(mistral, 4096))}. The 32 query heads do not count.",
    ),
    Question(
        "Mistral-7B-v0.1 reads 32,768 tokens with a window of 4,096. How large is its cache, and what is lost?",
        f"{bytes_text(kv_bytes(mistral, 32768))}, as at 4,096 tokens: each layer keeps 4,096. No layer sees further back than that, "
        f"though stacked layers pass on what they saw. A model that was not trained so has only what is left: here recall goes from "
        f"{shares[-1]:.0%} to {shares[1]:.0%} at a window of {windows[1]}.",
    ),
    Question(
        "Does a 4-bit cache take a quarter of an fp16 one?",
        f"No: a scale and a minimum for 32 numbers make it {packed.bits_per_value:.1f} bits, and the newest tokens stay in full "
        f"precision, {packed.length - packed.quantized_length} of {packed.length} here. In all this one takes "
        f"{packed.nbytes / kv_bytes(config, packed.length):.2f} of the bytes of fp16 (its newest tokens are float32).",
    ),
)

# %% [markdown]
# ## Your predictions so far

# %% tags=["nbval-ignore-output"]
from slmlab.checking import calibration_plot

calibration_plot()

# %% [markdown]
# **Where next:** lesson 05 puts many such caches into one memory, in blocks, and serves them.
#
# Sources: Ainslie et al. 2023, [arXiv:2305.13245](https://arxiv.org/abs/2305.13245), section 2 (grouped
# queries). Liu et al. 2024, [arXiv:2402.02750](https://arxiv.org/abs/2402.02750), section 3 (keys per
# channel). The code of this lesson: `slmlab/kv/contiguous.py`, `window.py` and `quantized.py`.
