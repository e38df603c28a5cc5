"""What the sandbox raises."""

from __future__ import annotations


class SandboxUnavailable(ValueError):
    """No usable sandbox here; the message says why, and the mend."""


class ServerLost(RuntimeError):
    """The fork server does not answer any more; the session starts another."""
