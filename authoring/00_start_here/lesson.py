# %% [markdown]
# # 00 · Start here
#
# *25 minutes · no GPU, no download · exercise: [00_start_here](../exercises/00_start_here.ipynb)*
#
# ## A file that grows when you open it

# %%
import os
import sys

if "google.colab" in sys.modules:  # On Colab: install the package, leave Colab's torch alone.
    get_ipython().run_line_magic("pip", "install -q --no-deps git+https://github.com/slmlab/slmlab")

import torch

import slmlab
from slmlab import measured, predict, progress
from slmlab.models import model_directory

torch.set_num_threads(1)
lm = slmlab.load()  # "tiny", or the model that SLMLAB_MODEL names
folder = model_directory(os.environ.get("SLMLAB_MODEL") or "tiny")
on_disk = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
in_memory = sum(parameter.nbytes for parameter in lm.model.parameters())
print(f"weights on disk:   {on_disk / 1e6:5.1f} MB")
print(f"weights in memory: {in_memory / 1e6:5.1f} MB, {in_memory / on_disk:.1f} times as many")
if "SLMLAB_MODEL" in os.environ:
    print(f"You run {folder.name}: what is said below about training is said of tiny.")

# %% [markdown]
# Nothing was added on the way. The file of tiny, the model inside this package, holds each weight
# in 16 bits, and the model computes with 32. Storage and arithmetic are two choices, and much of
# this workbook is about the first one: where bytes sit, how often they move, and what a model
# loses with fewer of them.
#
# All lessons use tiny, so nothing is downloaded. It is small on purpose: every effect that you
# will measure on it takes seconds, and the large ones have the same causes.

# %% tags=["nbval-ignore-output"]
for prompt in (
    "<|user|>\nset a timer for 15 minutes\n<|assistant|>\n",
    "12+34=46\n58+27=",
    "Return the number of",
):
    print(repr(prompt))
    print("   ", repr(lm.generate(prompt, max_new_tokens=24)))

# %% [markdown]
# It was trained on commands that become tool calls, sums, small memory tasks, short stories, and
# the documentation that comes with Python. Ask it about the world and it will invent. Its
# [model card](https://github.com/slmlab/slmlab/blob/main/slmlab/models/embedded/tiny/README.md)
# says how often it is right at each task.
#
# ## Is your machine ready?

# %% tags=["nbval-ignore-output"]
from slmlab.cli.doctor import doctor

doctor()

# %% [markdown]
# A warning tells you what to mend, and the lessons run all the same.
#
# ## How a lesson works
#
# **1. Predict.** You commit to a number before you see it. Here is one. The model generates one
# token after another; each one takes a pass through all its weights. A core of a laptop does some
# tens of billions of multiplications in a second. How many tokens does this model write in a
# second?
#
# Replace `None` by your number and run the cell. Being wrong by a factor of ten is fine: you will
# see why in lesson 01.

# %%
print(f"{sum(parameter.numel() for parameter in lm.model.parameters()):,} weights")
predict("tokens the model writes in one second", None, unit="tokens/s")

# %% [markdown]
# **2. Measure.** The lesson measures the real thing on your machine, now, and scores your number.

# %% tags=["nbval-ignore-output"]
from slmlab.measure import tokens_per_second

speed = tokens_per_second(lm, prompt_tokens=32, new_tokens=32)
guess = measured("tokens the model writes in one second", speed.decode_tokens_per_second)

# %% tags=["nbval-ignore-output"]
from slmlab.widgets import prediction_vs_measured

rates = [speed.new_tokens / seconds for seconds in speed.decode.wall]
prediction_vs_measured({"decode": (guess.value, rates)}, unit="tokens/s", quantity="decode speed")

# %% [markdown]
# **3. Build.** The exercises stand in a notebook of their own. You write a function of five to
# twenty lines, and it is checked as soon as its cell runs. The check does not only say that an
# answer is wrong. It compares what your function returned with what well-known mistakes return,
# and tells you which one to think about.
#
# Here is such a mistake. A model ends in a list of scores, one for each token of its vocabulary;
# softmax turns them into probabilities. A temperature below one should make the likely tokens
# likelier.

# %%
scores = torch.tensor([2.0, 1.0, 0.0])


def softmax_suspect(logits, temperature):
    weights = logits.exp() / temperature
    return weights / weights.sum()


for temperature in (1.0, 0.5, 0.1):
    print(temperature, [round(p, 3) for p in softmax_suspect(scores, temperature).tolist()])

# %% [markdown]
# Three temperatures, one distribution: the division cancels. It has to come before the
# exponential. You have found a bug by a property, without staring at the code. Every lesson has
# one of these.
#
# Now write it right: [softmax with a temperature](exercise:start.softmax). If you are stuck, each
# exercise has three hints: `hint("start.softmax")` shows the first, the same call again the next.
# The first is a property, the last is nearly the code.
#
# **4. Explain.** A lesson ends with two sentences of yours and three interview questions, with
# answers folded away. Say yours aloud before you open them.
#
# **5. See how far you are.** Outcomes, hints and predictions are kept in one file on your machine.
# On Binder or Colab that file is gone tomorrow: `slmlab progress --export my-progress.json` saves
# it, and `--import` brings it back.

# %% tags=["nbval-ignore-output"]
progress()

# %% [markdown]
# ## A plan
#
# | Day | Two weeks | Day | Four weeks |
# |---|---|---|---|
# | 1 | 00, 01 anatomy and roofline | 1-2 | 00, 01 |
# | 2-3 | 02 quantization | 3-5 | 02 |
# | 4 | 03 calibrated quantization | 6-8 | 03 |
# | 5 | 04 KV cache | 9-10 | 04 |
# | 6-7 | 05 paged serving | 11-13 | 05 |
# | 8 | 06 speculative decoding | 14-15 | 06 |
# | 9 | 07 distillation | 16-18 | 07 |
# | 10 | 08 kernel fusion | 19-20 | 08 |
# | 11 | 09 portability | 21-22 | 09 |
# | 12 | 10 evaluation | 23-24 | 10 |
# | 13 | 11 capstone | 25-27 | 11 |
# | 14 | 12 interview | 28 | 12 |
#
# A lesson takes 35 to 50 minutes and its exercises about as long again. Lessons that are not in
# this version of the workbook yet come with `slmlab update`, which never overwrites your work.
#
# ## Explain
#
# In two sentences: why does this workbook ask for a prediction before each measurement?
#
# <details><summary>A model answer</summary>
#
# A number that I have predicted teaches me something whether I was right or wrong; a number that
# I have only read does not. And an engineer is asked for estimates before there is anything to
# measure.
#
# </details>
#
# ## Three interview questions

# %% jupyter={"source_hidden": true}
from slmlab.checking import Question, ask

weights = sum(parameter.numel() for parameter in lm.model.parameters())
ask(
    Question(
        "How many bytes do this model's weights take in 32, 16, 8 and 4 bits?",
        ", ".join(f"{bits} bits: {weights * bits / 8 / 1e6:.1f} MB" for bits in (32, 16, 8, 4))
        + ". Real 4-bit files are larger: they also store scales.",
    ),
    Question(
        "What does temperature 0 mean, if dividing by it is impossible?",
        "By convention, greedy decoding: always the token with the largest score. It is the limit "
        "of the softmax as the temperature falls to zero, where no two scores tie.",
    ),
    Question(
        "You measured 300 tokens/s once. What do you say in a report?",
        "The machine, the number of threads, the length of prompt and output, the precision, how "
        "often it was measured, the median and the spread. One number alone cannot be repeated.",
    ),
)

# %% [markdown]
# **Where next:** [01 · Anatomy and roofline](01_anatomy_and_roofline.ipynb) computes a ceiling for
# the speed that you just measured, and finds what keeps the model below it.
#
# Sources: the softmax of a language model, Bengio et al. 2003 (JMLR 3, section 2). How tiny was
# trained: [its recipe](https://github.com/slmlab/slmlab/blob/main/slmlab/training/recipes/tiny.toml).
