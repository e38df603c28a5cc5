"""The date by which a handout is due."""

from __future__ import annotations

import re
from datetime import datetime

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)


def read_due(text: str) -> datetime:
    """ "2026-05-01" (the end of that day), "2026-05-01T18:00" or "2026-05-01T18:00+02:00".

    Raises ValueError for anything else (ISO 8601, extended format, is read and no other).
    """
    try:
        if not re.match(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}|$)", text):
            raise ValueError
        due = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"--due {text!r} is no date: write 2026-05-01, or 2026-05-01T18:00 with the time of day."
        ) from None
    return due.replace(hour=23, minute=59) if len(text) == 10 else due


def due_words(due: datetime) -> str:
    """ "Friday, 1 May 2026, 18:00 (UTC+02:00)", in English whatever the locale."""
    day = f"{_DAYS[due.weekday()]}, {due.day} {_MONTHS[due.month - 1]} {due.year}"
    zone = f" ({due.tzname()})" if due.tzinfo is not None else ""
    return f"{day}, {due:%H:%M}{zone}"
