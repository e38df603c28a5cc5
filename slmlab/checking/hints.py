"""The hint ladder: the invariant, a worked example with three elements, pseudocode."""

from __future__ import annotations

from slmlab.checking import registry
from slmlab.checking.lesson_progress import LessonProgress
from slmlab.checking.render import Panel, Shown, card, escaped, prose, visible

RUNGS = ("what must hold", "a worked example", "pseudocode")


def hint(id: str, rung: int | None = None) -> Shown:
    """Shows the next hint of an exercise and records that it was shown; returns what it showed.

    `rung` (1, 2 or 3) shows that one instead. After the last rung it repeats the last and says so.
    Raises ValueError for an unknown id or rung, TypeError for a wrong type.
    """
    spec = registry.get(id)
    if rung is not None:
        if type(rung) is not int:
            raise TypeError(f"rung must be 1, 2 or 3, not {type(rung).__name__}.")
        if not 1 <= rung <= 3:
            raise ValueError(f"rung={rung} must be 1, 2 or 3.")
    # A hint must not be lost because a file cannot be written.
    store = LessonProgress()
    shown = store.read().exercise(spec.id).hint_rung
    again = rung is None and shown >= 3
    rung = rung or min(shown + 1, 3)
    store.record_hint(spec.id, rung)
    panel = _panel(spec.id, rung, spec.hints[rung - 1], again, store.trouble)
    panel.show()
    return panel.quiet()


def _panel(id: str, rung: int, text: str, again: bool, trouble: str) -> Panel:
    head = f"Hint {rung} of 3 for {id}, {RUNGS[rung - 1]}"
    tail = (
        f"That was the last hint and you have seen it before. hint({id!r}, rung=1) shows the first."
        if again
        else ""
    )
    body = f"<div><strong>{escaped(head)}</strong></div>"
    body += f'<div style="white-space:pre-wrap">{prose(text)}</div>'
    body += "".join(f"<div>{prose(extra)}</div>" for extra in (tail, trouble) if extra)
    lines = [head, *(f"    {line}" for line in text.splitlines()), *filter(None, (tail, trouble))]
    return Panel(card(body), visible("\n".join(lines)))
