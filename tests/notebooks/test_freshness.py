"""The committed notebooks are what authoring/ builds, and show what their source computes."""

from authoring.build import check, find_targets
from tests.notebooks.repository import ROOT


def test_every_notebook_is_what_its_source_builds() -> None:
    assert find_targets(ROOT), "authoring/ has no lesson: this test would pass on nothing"
    stale = check(ROOT)
    assert not stale, "\n".join(stale)
