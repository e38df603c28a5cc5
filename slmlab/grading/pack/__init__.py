"""An instructor's own exercises: handouts, packs, and the check of a pack."""

from slmlab.grading.pack.checks import check_pack
from slmlab.grading.pack.due import read_due
from slmlab.grading.pack.found import Pack, open_pack
from slmlab.grading.pack.new import new_pack
from slmlab.grading.pack.release import Release, release

__all__ = ["Pack", "Release", "check_pack", "new_pack", "open_pack", "read_due", "release"]
