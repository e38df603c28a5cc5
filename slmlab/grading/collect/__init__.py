"""What students handed in, read without running any of it: ``collect`` and ``flags_of``."""

from slmlab.grading.collect.gather import collect
from slmlab.grading.collect.named import flags_of

__all__ = ["collect", "flags_of"]
