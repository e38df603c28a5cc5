"""The Chromium of this machine, headless, without a road to anything but the lab."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Route

_NAMES = ("google-chrome", "google-chrome-stable", "chromium", "chromium-browser")
_ARGUMENTS = (
    "--no-sandbox",  # root, as in containers, has no user namespace for it
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def missing() -> str:
    """Why no browser test can run here, "" where one can."""
    if os.name != "posix":
        return "the server is ended as a POSIX process group, which this system does not have"
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed: pip install -e '.[dev]'"
    if _executable() is None:
        return f"no browser on PATH ({', '.join(_NAMES)}); on Debian: apt install chromium"
    return ""


def _executable() -> str | None:
    return next(filter(None, map(shutil.which, _NAMES)), None)


@dataclass
class Browser:
    """A window's pages, and the addresses beyond the lab that they asked for in vain."""

    context: BrowserContext
    refused: list[str] = field(default_factory=list)


@contextmanager
def browser(lab_url: str, timeout_seconds: float) -> Iterator[Browser]:
    """A fresh profile with the window of a small laptop, but higher: outputs fit into one view."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=_executable(), headless=True, args=list(_ARGUMENTS)
        )
        try:
            opened = Browser(chromium.new_context(viewport={"width": 1366, "height": 1400}))
            opened.context.set_default_timeout(1000 * timeout_seconds)

            def only_the_lab(route: Route) -> Any:
                if route.request.url.startswith(f"{lab_url}/"):
                    return route.continue_()
                opened.refused.append(route.request.url)
                return route.abort()

            opened.context.route("**/*", only_the_lab)
            yield opened
        finally:
            chromium.close()
