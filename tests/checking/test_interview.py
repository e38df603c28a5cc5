"""Answers are computed when shown, and folded away in HTML."""

import pytest

from slmlab.checking import Question, ask


def test_answers_are_computed_late_and_folded(capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[int] = []

    def answer() -> str:
        calls.append(1)
        return f"It is {6 * 7} < 43."

    question = Question("How many & why?", answer)
    assert calls == []
    panel = ask(question, Question("And then?", "Text."))
    assert len(calls) == 1
    assert panel.html.count("<details") == 2 and "open" not in panel.html
    assert "How many &amp; why?</summary>" in panel.html and "It is 42 &lt; 43." in panel.html
    said = capsys.readouterr().out
    assert said.index("And then?") < said.index("Answers") < said.index("It is 42 < 43.")


def test_bad_questions() -> None:
    with pytest.raises(TypeError, match="text"):
        Question(3, "a")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="text"):
        Question("", "a")
    with pytest.raises(TypeError, match="answer"):
        Question("q", 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="answer"):
        Question("q", "")
    with pytest.raises(TypeError, match="must be text, not int"):
        ask(Question("q", lambda: 3))  # type: ignore[arg-type, return-value]
    with pytest.raises(ValueError, match="at least one"):
        ask()
    with pytest.raises(TypeError, match="not str"):
        ask("q")  # type: ignore[arg-type]
