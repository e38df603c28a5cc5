# %% [markdown]
# # 07 · Distillation: what a teacher knows beyond the right answer
#
# *45 minutes · no GPU, no download · exercises: [07_distillation](../exercises/07_distillation.ipynb)*
#
# ## It reads dice, and learns how often tokens come

# %%
import sys

if "google.colab" in sys.modules:  # On Colab: install the package, leave Colab's torch alone.
    get_ipython().run_line_magic("pip", "install -q --no-deps git+https://github.com/slmlab/slmlab")

import torch

import slmlab
from slmlab import measured, predict
from slmlab.distill import Distiller, distillation_loss, evenly_spaced_layers, student_from_layers
from slmlab.widgets.distillation_bench import held_out, noise_rows, one_answer, text_rows
from slmlab.widgets.distillation_curves import learning_curves, steps_of

torch.set_num_threads(1)
lm = slmlab.load()  # "tiny", or the model that SLMLAB_MODEL names
teacher, decode = lm.model, lm.tokenizer.decode
depth = len(teacher.layers)
keep = evenly_spaced_layers(depth, max(1, depth // 3))  # every third layer
held = held_out(lm)  # documentation that no model here was trained on
STEPS, BATCH, TIME = 24, 4, 64

# %% tags=["nbval-ignore-output"]
noise = noise_rows(lm, STEPS * BATCH, TIME)  # (96, 65) ids, each drawn alone


def learn(rows, method, layers=keep, rate=2e-3, temperature=1.0):
    """A student cut out of the teacher and trained; its held-out KL over the tokens it saw."""
    student = student_from_layers(teacher, layers)
    distiller = Distiller(
        student,
        teacher,
        rows,
        method=method,
        steps=STEPS,
        batch_size=BATCH,
        learning_rate=rate,
        temperature=temperature,
        warmup_steps=3,
        evaluate=lambda model, _: held.kl(model),
        evaluate_every=STEPS // 4,
        progress=False,
    )
    return student, steps_of(distiller.train(), BATCH * TIME)


cut = student_from_layers(teacher, keep)
from_noise, noise_curve = learn(noise, "logits")
always = one_answer(teacher, noise)  # (V,) the mean of the teacher's answers, log-probabilities
always_kl, always_perplexity = held.judge(always.expand_as(held.reference))
print("what it reads:", repr(decode(noise[0][:16])))
print(f"\n{'held-out documentation':38} KL to the teacher   perplexity")
judged = {
    "the teacher": held.judge(held.logits(teacher)),
    f"its layers {keep}, nothing more": held.judge(held.logits(cut)),
    "every token alike": held.judge(torch.zeros_like(held.reference)),
    "one answer for every place": (always_kl, always_perplexity),
    f"after {STEPS * BATCH * TIME:,} tokens of dice": held.judge(held.logits(from_noise)),
}
for name, (kl, perplexity) in judged.items():
    print(f"{name:38} {kl:12.2f} nats {perplexity:14,.0f}")

# %% [markdown]
# The **student** is the teacher with most of its layers thrown away; the second row says what is left.
# Then it read random tokens, and never a sentence. At every place the **teacher** said what it would
# expect next, and the student learned to say the same. KL is how far its distribution is from the
# teacher's on real text, in nats a token; a perfect copy has 0.
#
# Most of the way is short. The cut student is worse than a guess that gives every token the same chance.
# And **one answer for every place**, the teacher's answers to those dice averaged, reads nothing at all. Only
# what the student has beyond that line can come from what it read. From dice and a teacher it learns which
# tokens are common, and a little of what follows what.
#
# Compare that with ordinary training: as many tokens of **real documentation**, and the label at each
# place is the token that does follow. You know where the cut student starts, where dice brought it, and
# what one answer for every place gives.

# %%
print(f"beyond one answer, dice gave {always_kl - noise_curve[-1][1]:.2f} nats")
predict("KL after as many tokens of real text, labelled by itself", None, unit="nats")

# %% tags=["nbval-ignore-output"]
text = text_rows(lm, STEPS * BATCH, TIME)
from_labels, label_curve = learn(text, "hard")
_, alone_curve = learn(noise, "hard")  # a control: dice, and no teacher
guess = measured("KL after as many tokens of real text, labelled by itself", label_curve[-1][1])

# %% tags=["nbval-ignore-output"]
from_logits, logit_curve = learn(text, "logits")
ends = [curve[-1][1] for curve in (noise_curve, label_curve, logit_curve)]
beyond = [always_kl - end for end in ends]  # nats below the line of one answer
learning_curves(
    {
        "text, its own labels": label_curve,
        "text, teacher's logits": logit_curve,
        "dice, teacher's logits": noise_curve,
        "dice, their own labels": alone_curve,
    },
    f"Nats below one answer: dice + teacher {beyond[0]:.2f}, text alone {beyond[1]:.2f}, both {beyond[2]:.2f}",
    {"every token alike": held.uniform_kl, "one answer for every place": always_kl},
    guess.value,
)

# %% [markdown]
# One start, equal tokens. Dice with their own labels lead to the line of a guess where every token is alike:
# there is nothing else in them. With a teacher they teach how often tokens come, and a little more; the
# title counts from there. Real text with its own labels is the ordinary way. On the same text, what does
# the teacher's answer carry that a label does not?
#
# ## What the label leaves out

# %% tags=["nbval-ignore-output"]
from slmlab.widgets.distillation_bench import PROMPTS, bench
from slmlab.widgets.distillation_plots import entropies, pull_lengths, soft_targets, two_modes

asked = bench(lm, from_logits)  # next-token logits of both models behind a few prompts
prompt = PROMPTS[0]
soft_targets(asked.teacher[prompt], asked.decode, prompt)

# %% [markdown]
# A label names one of these tokens and calls all others equally wrong. The teacher says which of the
# others would do as well, which would be odd, and how odd. Hinton called it **dark knowledge** in talks; the
# paper (Hinton et al. 2015, [arXiv:1503.02531](https://arxiv.org/abs/1503.02531)) says soft targets. It softens
# them with a **temperature**: softmax(z / T). Small probabilities grow, large ones shrink, the order stays. Over a
# whole text:

# %% tags=["nbval-ignore-output"]
entropies(held.reference, (0.5, 1, 2, 3, 4, 8, 16))

# %% [markdown]
# Their temperatures, 1 to 20, were for ten digits and for some 14,000 states of speech. How soon a softmax
# flattens depends on how far the logits are apart, so a T does not carry over from one teacher to the next.
# Keep that in mind for the widget.
#
# A teacher that is asked once and stored needs all those numbers on disk. Unless it is enough to keep a
# few and the mass of the rest ([top k and the rest](exercise:distillation.top_k)):

# %% tags=["nbval-ignore-output"]
from slmlab.distill import top_k_logits

size = held.reference.shape[-1]
print(f"all {size:,} logits in 16 bits: {2 * size:,} bytes a position\n")
print("   k   bytes a position   mass kept, T = 1   T = 2   T = 4")
for k in (4, 16, 64, 256):
    kept = {t: top_k_logits(held.reference, k, t) for t in (1.0, 2.0, 4.0)}
    mass = {
        t: float(
            (top.values / t).logsumexp(-1).sub((held.reference / t).logsumexp(-1)).exp().mean()
        )
        for t, top in kept.items()
    }
    bytes_each = k * (2 + 4) + 4  # a 16-bit logit and a 32-bit id each, and the rest
    print(f"{k:4} {bytes_each:18,} {mass[1.0]:18.0%} {mass[2.0]:7.0%} {mass[4.0]:7.0%}")
print(
    f"\n{k} logits keep {mass[1.0]:.0%} at T = 1 and {mass[4.0]:.0%} at T = 4: choose T first, then k."
)

# %% [markdown]
# [How large is it on disk?](exercise:distillation.stored_logits) And
# [choose a k](exercise:distillation.choose_k) that loses little for its bytes.
#
# ## The pull on a logit
#
# The loss is forward KL, the sum of p (log p - log q), with p the teacher's softened distribution and q
# the student's. Its gradient to the student's logit z is (q - p) / T: every token is pulled by what it
# lacks. Two more divergences will matter; four tokens by hand, each formula against autograd and against
# a nudge of the logit:

# %%
from slmlab.distill.losses import Divergence

z_teacher = torch.tensor([2.0, 1.0, 0.0, -1.0], dtype=torch.float64)
z = torch.tensor([0.0, 1.5, 0.5, -1.0], dtype=torch.float64, requires_grad=True)
T, nudge = 2.0, 1e-6
log_p, log_q = (z_teacher / T).log_softmax(-1), (z.detach() / T).log_softmax(-1)
p, q = log_p.exp(), log_q.exp()
m = (p + q) / 2
reverse = (q * (log_q - log_p)).sum()
formulas = {
    "forward_kl": (q - p) / T,
    "reverse_kl": q * (log_q - log_p - reverse) / T,
    "jsd": q * (0.5 * (q / m).log() - (q * 0.5 * (q / m).log()).sum()) / T,
}
print("p", [f"{x:.3f}" for x in p.tolist()], "  q", [f"{x:.3f}" for x in q.tolist()])
for name, formula in formulas.items():

    def loss(logits, name=name):
        return distillation_loss(logits, z_teacher, T, name) / T**2  # without the factor

    (auto,) = torch.autograd.grad(loss(z), z)
    steps = torch.eye(4, dtype=torch.float64) * nudge
    nudged = torch.stack([(loss(z + s) - loss(z - s)) / (2 * nudge) for s in steps]).detach()
    assert torch.allclose(formula, auto, atol=1e-12) and torch.allclose(nudged, auto, atol=1e-8)
    assert abs(formula.sum()) < 1e-12  # what goes up comes from what goes down
    print(f"{name:11} {[f'{x:+.4f}' for x in formula.tolist()]}")

# %% [markdown]
# Three ways, one answer: [soft targets](exercise:distillation.soft_targets), and
# [the pull](exercise:distillation.gradient). Each row sums to 0.
#
# Now raise T. Two things shrink the gradient. There is a 1 / T in front. And q - p shrinks as well, for
# both distributions flatten. How long is the gradient at T = 4, in parts of that at T = 1? The first picture
# of this part says how far a favourite flattens; the cell repeats it.

# %%
top = [(asked.teacher[prompt] / T).softmax(-1).max().item() for T in (1, 4)]
print(f"the favourite of {prompt!r}: {top[0]:.0%} at T = 1, {top[1]:.1%} at T = 4")
predict("gradient at T = 4 over that at T = 1", None, unit="times")

# %% tags=["nbval-ignore-output"]
temperatures = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
ours, theirs = held.logits(from_logits)[:160].double(), held.reference[:160].double()


def length(T):
    """Mean length of a position's gradient, without T squared."""
    return ((ours / T).softmax(-1) - (theirs / T).softmax(-1)).div(T).norm(dim=-1).mean().item()


one = length(1.0)
bare = [length(T) / one for T in temperatures]
apart = ours - theirs
flat = (apart - apart.mean(-1, keepdim=True)) / size  # the limit of T (q - p)
far = 1e6 * ((ours / 1e6).softmax(-1) - (theirs / 1e6).softmax(-1))
assert torch.allclose(far, flat, atol=1e-3 * flat.abs().max())
told = measured("gradient at T = 4 over that at T = 1", bare[2])
pull_lengths(
    temperatures,
    bare,
    [b * T**2 for b, T in zip(bare, temperatures)],
    flat.norm(dim=-1).mean().item() / one,
    told.value,
)

# %% [markdown]
# Once T is large, the bare gradient falls as 1 / T². Multiply the loss by T² and it levels off: there it
# matches logits, (z - z') / V once both are centred. Without the factor, a loss that mixes in hard labels
# forgets its teacher as T rises, and nothing looks wrong. But on the way to that limit the gradient has
# lost more than T² gives back: a sharp distribution pulls hard where it is sharp.
#
# ## Cover both, or settle on one
#
# Forward KL weighs by p: it costs dearly to miss what the teacher would say. Reverse KL weighs by q: it
# costs dearly to say what the teacher would not. A student that can only be a single bump, and a teacher
# with two:

# %%
places = torch.arange(41.0, dtype=torch.float64)


def bump(centre, width):
    return (-(((places - centre) / width) ** 2) / 2).softmax(-1)


target = 0.6 * bump(11, 2.0) + 0.4 * bump(29, 2.0)
family = [bump(c / 2, w / 2) for c in range(81) for w in range(2, 31)]
rows = torch.stack(family).log()  # log-probabilities are logits
closest = {
    name: family[int(Divergence(kind, 1.0).of(target.log().expand_as(rows), rows).argmin())]
    for name, kind in (("forward KL", "forward_kl"), ("reverse KL", "reverse_kl"))
}
outside = {name: float(s[target < 1e-3].sum()) for name, s in closest.items()}
two_modes(places, target, closest, outside)

# %% [markdown]
# A student that covers both says much that its teacher never would; one that settles leaves out a whole
# mode. [Which is which?](exercise:distillation.two_modes) The generalised **JSD** goes from the one to the
# other: it measures both against a mixture of p and q, with beta the weight of p. Divided by beta it tends to
# forward KL as beta goes to 0; divided by 1 - beta, to reverse KL as beta goes to 1 (Agarwal et al. 2024,
# [arXiv:2306.13649](https://arxiv.org/abs/2306.13649), section 2).
#
# ## A bug that runs: the loss that is too small
#
# This loss runs. trl's `generalized_jsd_loss` had it where no labels are given (huggingface/trl pull request
# [4105](https://github.com/huggingface/trl/pull/4105)); without labels it now divides by the first dimension.
# Check it: is it 0 for equal models? Positive otherwise? Does it pull the right way?


# %%
from torch.nn import functional as F


def careless(student_logits, teacher_logits, T=2.0):
    log_q = F.log_softmax(student_logits / T, -1)
    p = F.softmax(teacher_logits / T, -1)
    return T**2 * F.kl_div(log_q, p, reduction="none").mean()


def gradient(loss, student_logits):
    leaf = student_logits.clone().requires_grad_()
    return torch.autograd.grad(loss(leaf), leaf)[0]


pulls = {
    f.__name__: gradient(lambda x, f=f: f(x, theirs), ours) for f in (careless, distillation_loss)
}
flattened = [g.flatten() for g in pulls.values()]
aligned = F.cosine_similarity(*flattened, dim=0).item()
print(f"equal models: {careless(theirs, theirs).item():.1e}, others: {careless(ours, theirs):.1e}")
print(f"cosine of its gradient with the right one: {aligned:.9f}")
assert abs(careless(theirs, theirs)) < 1e-12 and careless(ours, theirs) > 0 and aligned > 1 - 1e-9

# %% [markdown]
# It passes all three, and AdamW divides by the gradient's own size: alone, it still trains. So test a property that a divergence must have. Split every token into two halves of equal
# probability. The two models disagree exactly as much as before.


# %%
def halves(logits):
    """Every token as two of half its probability at T = 2: (..., V) -> (..., 2 V)."""
    return (logits - 2.0 * torch.tensor(2.0).log()).repeat_interleave(2, -1)


for f in (distillation_loss, careless):
    print(f"{f.__name__:18} {f(ours, theirs):.6f}   halves: {f(halves(ours), halves(theirs)):.6f}")
ratio = float(distillation_loss(ours, theirs) / careless(ours, theirs))
print(f"\nright / careless: {ratio:,.0f}; the vocabulary has {size:,} tokens")
assert abs(ratio / size - 1) < 1e-6

labels = held.ids[:, 1:].flatten()[:160]
hard = gradient(lambda x: F.cross_entropy(x, labels), ours).norm().item()
for name, pull_on in pulls.items():
    soft = pull_on.norm().item()
    print(
        f"{name:18} mixed half and half with labels: {soft / (soft + hard):.2%} of the pull is the teacher's"
    )

# %% [markdown]
# `.mean()` divides by every element, the vocabulary too. So does kl_div's own `reduction="mean"`, and torch
# warns of it. `"batchmean"` divides by the first dimension only: for logits (rows, time, V) it forgets
# the time. Count [the positions that are real](exercise:distillation.padding), sum over the vocabulary,
# and divide once. One more that runs: [a step whose student stays bad](exercise:distillation.step_repair).
#
# ## The choice before the first step
#
# All students above kept every third layer, as DistilBERT keeps every second one
# ([arXiv:1910.01108](https://arxiv.org/abs/1910.01108)). The same number of layers, chosen by other rules,
# and not one step of training:

# %% tags=["nbval-ignore-output"]
from slmlab.widgets.distillation_bench import cuts
from slmlab.widgets.distillation_curves import cut_bars

chosen = {
    rule: (layers, held.kl(student_from_layers(teacher, layers)))
    for rule, layers in cuts(teacher, len(keep), text[:8, :-1]).items()
}
cut_bars(chosen, ends[2])

# %% [markdown]
# This picture is a fact about tiny. It grew while it was trained: first two layers alone, then four more that
# began by changing nothing (its [model card](../slmlab/models/embedded/tiny/README.md),
# [growth.py](../slmlab/training/growth.py)). So its first layers carry almost everything, and a rule that
# does not look cuts through the middle. Other models differ. Two rules look: **block influence**
# asks how far a layer turns the hidden state (Men et al. 2024,
# [arXiv:2403.03853](https://arxiv.org/abs/2403.03853)), **loss** leaves each layer out in turn. Minitron
# prunes by such measures, then distils (Muralidharan et al. 2024,
# [arXiv:2407.14679](https://arxiv.org/abs/2407.14679), section 2).
# [Which layers stay?](exercise:distillation.keep_layers) Now train the best of these, each method at the rate
# that the study below chose for it on other runs: labels 1e-4, logits 3e-4.

# %% tags=["nbval-ignore-output"]
best_layers, before = min(chosen.values(), key=lambda c: c[1])
by_labels, labels_curve = learn(text, "hard", best_layers, 1e-4)
print(
    f"held-out perplexity before: {held.perplexity(student_from_layers(teacher, best_layers)):.2f}"
)
print(f"after text with its own labels: {held.perplexity(by_labels):.2f}")

# %% tags=["nbval-ignore-output"]
by_logits, logits_curve = learn(text, "logits", best_layers, 3e-4)
print(f"after text with the teacher's logits: {held.perplexity(by_logits):.2f}")
again = {"text, its own labels": labels_curve, "text, teacher's logits": logits_curve}
moved = [curve[-1][1] / before - 1 for curve in again.values()]
learning_curves(
    again,
    "From layers {}: labels {:+.0%} KL, logits {:+.0%}".format(best_layers, *moved),
    {"before": before},
)

# %% [markdown]
# The start is near its teacher already. A label says "this token, and nothing else", and a step towards that
# is not always a step towards the teacher. The rate matters: give labels 3e-4, the
# rate of the logits, and look again. Perplexity, what labels ask for, is printed above the plot: judge both. One
# short run of one seed proves little, though, and logits had a teacher to pay for.
#
# ## Equal tokens, equal time
#
# So it was run for you at length: five methods from one start, each at a rate chosen for it, five seeds, on
# documentation, code and grammar; once with equal tokens, once with equal CPU-time. **top-k** keeps some logits and the rest.
# **Teacher's text** are hard labels of what the teacher writes (Kim and Rush 2016,
# [arXiv:1606.07947](https://arxiv.org/abs/1606.07947)). **On-policy** lets the student write and the
# teacher judge it ([which predictions count](exercise:distillation.on_policy)). **Acceptance** is lesson
# 06's: guesses that hold if the student drafts for the teacher. The text is another one than above, so the
# same start has another perplexity. In the plot, points and bars are means and standard deviations, ticks
# are the seeds.

# %% tags=["nbval-ignore-output"]
from slmlab.widgets.distillation_study import (
    HOW_TO_MAKE_IT,
    load_study,
    study_text,
)
from slmlab.widgets.distillation_study_plot import study_plot

study = load_study()
print(study_text(study) if study else HOW_TO_MAKE_IT)

# %% tags=["nbval-ignore-output"]
study_plot(study) if study else print("no plot without the study")

# %% [markdown]
# A large published comparison: a Gemma 2 of 2 billion parameters, trained on 500 billion tokens, reached 60.3 on
# the average of three benchmarks from scratch and 67.7 distilled from a 7 billion teacher (Gemma Team 2024,
# [arXiv:2408.00118](https://arxiv.org/abs/2408.00118), table 6). Equal tokens, not equal time.
#
# Do you need a student at all? A practitioner with one domain would tune the model that is there, with
# **LoRA** (Hu et al. 2021, [arXiv:2106.09685](https://arxiv.org/abs/2106.09685)): small trained matrices
# beside frozen ones. Side by side on tool calls that tiny has never seen:

# %% tags=["nbval-ignore-output"]
from slmlab.widgets.distillation_lora import lora_text

print(lora_text() or "no results/lora_domain.json here: python -m authoring.prove lora_domain")

# %% [markdown]
# ## Play: where does the pull go?
#
# Above, T grew and the teacher's answer flattened. At T = 4, does the teacher still teach its favourites, or the thousands of tokens that nobody wants? A formula
# cannot say: it depends on both models and on the position. **Up to which temperature do the teacher's
# ten favourites get at least half of the upward pull, and does the divergence move that border?**
# Start from forward KL at T = 4, lower T until they do, then go to reverse KL. Watch the **net** pull of the
# ten as well: what goes up less what goes down.

# %% tags=["nbval-ignore-output"]
from slmlab.widgets.distillation import border, border_sentence, pull

pull(asked)

# %% tags=["nbval-ignore-output"]
from slmlab.widgets.distillation_view import PULLS

print(f"{'highest T with half of it or more':34}" + "".join(f"{name:>15}" for name in PULLS))
for prompt in asked.prompts:
    found = [border(asked, prompt, name) for name in PULLS]
    print(f"{prompt!r:34}" + "".join(f"{'none' if t is None else f'{t:g}':>15}" for t in found))
print("none: under half even at the lowest T offered")
print(border_sentence(asked))
_, warm_curve = learn(text, "logits", temperature=2.0)

# %% tags=["nbval-ignore-output"]
_, hot_curve = learn(text, "logits", temperature=4.0)
trained = {1: ends[2], 2: warm_curve[-1][1], 4: hot_curve[-1][1]}
nearest = min(trained, key=trained.__getitem__)
print("Trained at T by forward KL on the same text, judged at T = 1:")
print(", ".join(f"T = {t}: {kl:.2f} nats" for t, kl in trained.items()))
print(f"Nearest in this one run: T = {nearest}.")
print("The share of the pull does not predict the best T: measure it, with more than one seed.")

# %% [markdown]
# ## Explain
#
# Say it in two sentences: what does a teacher's answer hold that a label does not, and why is the loss
# multiplied by T²?
#
# <details><summary>A model answer</summary>
#
# A label names one token and calls all others equally wrong, while the teacher's distribution says for
# every token how likely it is, so each position teaches even where the text is noise. The gradient of the
# softened loss falls as 1 / T² for large T, and the factor keeps it from vanishing beside a hard-label loss. It
# does not keep it as long as at T = 1.
#
# </details>
#
# ## Three interview questions

# %% jupyter={"source_hidden": true} tags=["nbval-ignore-output"]
from slmlab.checking import Question, ask

corpus, vocabulary, k = 1e9, 49_152, 32
whole, few = corpus * vocabulary * 2, corpus * (k * (2 + 4) + 4)
ask(
    Question(
        "A loss is half hard labels and half KL at T = 4, and somebody forgets T squared. What happens, and which plot shows it?",
        f"The teacher's half of the gradient is 16 times too short. With the logits of this lesson it is then {bare[2]:.3f} of its length at T = 1; "
        f"with the factor {16 * bare[2]:.2f}. The factor keeps the gradient from vanishing; it does not give its length back. The student trains, on labels mostly, "
        "and its loss curve looks healthy. A plot of both parts' gradient lengths over T shows it.",
    ),
    Question(
        "Your teacher is asked once, over a billion tokens, with 49,152 tokens of vocabulary. What do all logits in 16 bits take, and what the 32 largest with their ids and the rest?",
        f"{corpus:.0e} * {vocabulary:,} * 2 bytes = {whole / 1e12:.0f} TB, against {corpus:.0e} * (32 * (2 + 4) + 4) = {few / 1e9:.0f} GB: "
        f"{whole / few:.0f} times less. Keep the rest's mass: scaling 32 probabilities up to 1 tells the student that no other token exists.",
    ),
    Question(
        "Forward or reverse KL, for a student too small to be the teacher's copy and sampled from?",
        f"For the two bumps above, forward KL leaves {outside['forward KL']:.0%} of the student's mass where the teacher has almost none, reverse KL "
        f"{outside['reverse KL']:.0%}: sampled, the one says odd things, the other leaves some out. Reverse KL on the student's own text "
        "is MiniLLM's choice (Gu et al. 2023, arXiv:2306.08543); GKD trains on the student's own text and leaves the divergence free "
        "(Agarwal et al. 2024, arXiv:2306.13649). Measure both.",
    ),
)

# %% [markdown]
# ## Your predictions so far

# %% tags=["nbval-ignore-output"]
from slmlab.checking import calibration_plot

calibration_plot()

# %% [markdown]
# **Where next:** lesson 08 fuses kernels. `distillation_loss` is a first one: it works on a few
# positions at a time and recomputes them backwards, so that no second copy of the logits is made.
#
# Sources: Hinton et al. 2015, [arXiv:1503.02531](https://arxiv.org/abs/1503.02531), sections 2 and 2.1.
# Agarwal et al. 2024, [arXiv:2306.13649](https://arxiv.org/abs/2306.13649), section 3. A real one:
# trl's `trl/experimental/gkd/gkd_trainer.py`, function `generalized_jsd_loss`. The code of this lesson:
# `slmlab/distill/losses.py`, `methods.py` and `distiller.py`.
