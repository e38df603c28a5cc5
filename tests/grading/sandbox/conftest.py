"""Sandboxes that the tests share: torch is left out of them, so that one starts in half a second."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from slmlab.grading.records import Limits
from slmlab.grading.sandbox import Sandbox, SandboxUnavailable, open_sandbox

LIMITS = Limits(
    cell_seconds=5,
    submission_seconds=20,
    cpu_seconds=10,
    memory_mb=256,
    processes=8,
    open_files=64,
    tmp_mb=4,
    output_mb=2,
)


def opened(**options: object) -> Sandbox:
    """A sandbox, or a skip with the reason."""
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    try:
        return open_sandbox(LIMITS, preload=False, **options)  # type: ignore[arg-type]
    except SandboxUnavailable as error:
        pytest.skip(f"no sandbox on this machine: {error}")


@pytest.fixture(scope="module", params=["user namespace", "root"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """Both kinds: with a user namespace, as an ordinary user has it, and root's without."""
    if request.param == "root" and os.geteuid() != 0:
        pytest.skip("only root can do without a user namespace")
    with opened(user_namespace=request.param != "root") as made:
        yield made


@pytest.fixture(scope="module")
def usual() -> Iterator[Sandbox]:
    """The kind that this user gets."""
    with opened() as made:
        yield made
