"""What the distillation study chose beforehand, and the trials that chose it.

All trials ran with seed 99, which is none of the study's, for 40 steps of 8 rows.
"""

from __future__ import annotations

from benchmarks._distillation_runs import Recipe

# Leaving one layer out costs 4.0, 5.6, 0.03, 0.01, 0.01, 0.01 nats a token: the last four of tiny
# do little. Held-out KL before training is 0.09 for layers 0 and 1, 6.6 for the evenly spaced 0 and
# 3, 3.9 and more for any other pair; 48 steps on logits bring 1 and 5 to 1.3, no tool call right.
LAYERS = (0, 1)

# Chosen by KL on training rows that the trial did not see; the start has 0.0862 there.
#   learning rate      3e-5     1e-4     3e-4     1e-3
#   hard             0.0778   0.0763   0.0807
#   logits                    0.0664   0.0621   0.0670    temperature 2, 3e-4: 0.0633
#   topk                               0.0640
#   sequence                  0.0749   0.0762             greedy teacher text, 1e-4: 0.2057
#   on_policy                          0.0623   0.0675
RECIPES = {
    "hard": Recipe("hard", 1e-4),
    "logits": Recipe("logits", 3e-4),
    "topk": Recipe("topk", 3e-4),
    "sequence": Recipe("sequence", 1e-4),
    "on_policy": Recipe("on_policy", 3e-4),
}

# Text of the draft: three rows of four are tiny's greedy answers, as acceptance is judged on those.
# Acceptance of documentation, code and tool calls in percent, and held-out KL; 85.6, 87.3, 97.9 and
# 0.543 before. 60 steps on given text, or one half, or all of it, written by tiny:
#   logits 1e-3, given text           85.4  86.4  97.5  0.549
#   logits 1e-3, half at 0.7          85.8  87.3  97.7  0.551
#   logits 1e-3, half greedy          86.4  87.6  97.7  0.567    3e-3: 85.4  86.7  97.1  0.641
#   logits 3e-4, half greedy          86.2  87.8  97.7  0.549
#   logits 1e-4, half greedy          86.0  87.7  97.9  0.524    all greedy: 86.1  88.1  97.9  0.533
#   logits 1e-3, half greedy, T 0.5   86.5  87.1  97.4  0.714
#   hard 1e-4, half greedy            86.5  88.5  97.9  0.570    3e-4: 86.7  88.8  97.8  0.589
# 120 steps, all greedy:
#   logits 2e-4                       86.7  88.5  97.9  0.541
#   hard 1e-4                         86.7  89.0  97.9  0.676
DRAFT_WRITTEN_SHARE = 0.75
DRAFT_PROMPT_TOKENS = 32
DRAFT_TEXT_TEMPERATURE = 0.0
DRAFT_RECIPES = {
    "logits": Recipe("logits", 2e-4),
    "hard": Recipe("hard", 1e-4),
}
