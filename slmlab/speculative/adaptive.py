"""A draft length that follows the text: long where guesses hold, short where they do not."""

from __future__ import annotations

from slmlab.models.fields import check_whole
from slmlab.speculative.formulas import best_gamma, check_cost


class AdaptiveLength:
    """The best draft length for the acceptance rate of the last rounds.

    Keeps an exponentially forgetting count of accepted and of checked tokens, started with one
    accepted of two so that the first rounds decide little, and asks `best_gamma`. At least one
    token is always proposed: a text that turned hard may turn easy again, and only trying tells.

    Args:
        c: time of one draft step, in steps of the target (measured: ``stats.c``).
        most: longest draft.
        memory: checked tokens after which an observation counts for about a third.
    """

    def __init__(self, c: float, most: int = 8, memory: int = 32) -> None:
        self.c = check_cost("c", c)
        self.most = check_whole("most", most)
        self.memory = check_whole("memory", memory)
        self._accepted, self._checked = 1.0, 2.0

    @property
    def alpha(self) -> float:
        """The running acceptance rate."""
        return self._accepted / self._checked

    @property
    def length(self) -> int:
        """Tokens to propose in the next round, 1 .. ``most``."""
        return max(1, best_gamma(self.alpha, self.c, self.most))

    def observe(self, accepted: int, checked: int) -> None:
        """Count a round: tokens accepted, of those that were compared."""
        kept = (1 - 1 / self.memory) ** checked
        self._accepted = self._accepted * kept + accepted
        self._checked = self._checked * kept + checked
