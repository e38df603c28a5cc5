"""Build hook: the wheel carries the lessons, so `slmlab lab` works without a checkout."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class WorkbookHook(BuildHookInterface):
    """Copies the learner's folders, and the results they quote, to slmlab/_workbook/ in a wheel.

    An editable install reads the checkout itself: a copy there would go stale. A folder that does
    not exist yet is left out instead of failing the build.
    """

    PATTERNS = ("notebooks/*.ipynb", "exercises/*.ipynb", "results/*.json")

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the folders to a standard wheel; `version` is "standard" or "editable"."""
        if version == "editable":
            return
        for pattern in self.PATTERNS:
            for file in sorted(Path(self.root).glob(pattern)):
                target = f"slmlab/_workbook/{file.parent.name}/{file.name}"
                build_data["force_include"][str(file)] = target
