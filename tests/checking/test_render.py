"""What is shown: escaped, readable in both themes, and never by colour alone."""

import io
import re
import sys
from html.parser import HTMLParser
from typing import Any

import pytest

from slmlab.checking import check
from slmlab.checking.render import LOOKS, PLAIN_COLOUR, Panel, message, report_panel, visible
from tests.checking.fake_topic import EXERCISES, absmax_int8, make_exercise

VOID = {"br", "hr", "img"}


class Balanced(HTMLParser):
    """Fails on a tag that is not closed in order; collects the tags' names."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.add(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def tags(html: str) -> set[str]:
    parser = Balanced()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return parser.seen


EVIL = "<script>alert(1)</script>\x1b[31m"


def prints_evil(x: float) -> float:
    print(EVIL)
    return 0.0


def raises_evil(x: float) -> float:
    raise type("<b>E", (Exception,), {})(EVIL)


def returns_evil(x: float) -> Any:
    return EVIL


ON_PAPER = make_exercise(lambda: 10.0, [{}])
SIMPLE = make_exercise(lambda x: x, [{"x": 1.0}, {"x": 2.0}])


@pytest.mark.parametrize("function", [prints_evil, raises_evil, returns_evil])
def test_the_learners_text_is_escaped(function: Any) -> None:
    panel = report_panel(check(SIMPLE, function))
    found = tags(panel.html)
    assert "script" not in found and "b" not in found
    assert "&lt;script&gt;" in panel.html
    assert "\x1b" not in panel.html and "\x1b" not in panel.text
    assert "<script>" in panel.text


@pytest.mark.parametrize(
    ("function", "word"),
    [
        (lambda x: x, "passed"),
        (lambda x: -x, "wrong"),
        (lambda x: 1 / 0, "error"),
        (lambda x: None, "wrong"),
    ],
)
def test_every_outcome_has_a_word_and_a_symbol(function: Any, word: str) -> None:
    report = check(SIMPLE, function)
    panel, look = report_panel(report), LOOKS[report.outcome]
    assert f"<strong>{word}</strong>" in panel.html and f">{look.symbol}</span>" in panel.html
    assert panel.text.startswith(f"{look.ascii} {word}: ")


def test_symbols_and_words_differ() -> None:
    for field in ("symbol", "ascii", "word", "colour"):
        assert len({getattr(look, field) for look in LOOKS.values()}) == len(LOOKS)


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_colours_stand_out_on_light_and_dark(look: Any) -> None:
    assert contrast(look.colour, "#FFFFFF") >= 3 and contrast(look.colour, "#111111") >= 3
    assert contrast(look.colour, look.ink) >= 4.5


def test_text_and_ground_are_the_pages_own() -> None:
    html = report_panel(check(SIMPLE, lambda x: -x)).html
    colours = set(re.findall(r"(?<![-\w])color:([^;\"]+)", html))
    assert colours == {"inherit", LOOKS["wrong"].ink}
    grounds = set(re.findall(r"background:([^;\"]+)", html))
    assert grounds == {"transparent", LOOKS["wrong"].colour}
    assert PLAIN_COLOUR in message("a").html


def test_html_and_text_say_the_same() -> None:
    panel = report_panel(check(EXERCISES[0], lambda w: -absmax_int8(w)))
    for part in ("right but for the sign", "[[-127, -64], [-127, -64]]", "0 of 3 cases"):
        assert part in panel.html and part in panel.text
    tags(panel.html)


def test_an_answer_on_paper_is_no_smallest_case() -> None:
    panel = report_panel(check(ON_PAPER, lambda: 12.0))
    assert "Smallest case" not in panel.html + panel.text
    assert "your answer" in panel.html and "Your answer: 12.0; wanted: 10.0." in panel.text
    tags(panel.html)
    raised = report_panel(check(ON_PAPER, lambda: 1 / 0))
    assert "<table" not in raised.html and not raised.text.endswith((" ", "\n"))
    assert "Smallest case" in report_panel(check(SIMPLE, lambda x: -x)).html


def test_a_console_that_knows_no_unicode_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    Panel("", "an \u00e9 and a \u03bb").show()
    sys.stdout.flush()
    assert raw.getvalue().splitlines() == [b"an ? and a ?"]


def test_control_characters_become_visible() -> None:
    assert visible("a\x1b[2Jb\r\n\tc\u202e") == "a\\x1b[2Jb\\x0d\n\tc\\x202e"


def test_backticks_become_code_after_escaping() -> None:
    assert "<code>a &lt; b</code>" in message("see `a < b`").html
