"""Interview questions at the end of a lesson, with computed answers folded away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from slmlab.checking.render import Panel, Shown, card, prose, visible


@dataclass(frozen=True)
class Question:
    """`answer` is text, or a function without parameters that computes the text when shown.

    Raises TypeError for any other answer, ValueError for empty text.
    """

    text: str
    answer: Callable[[], str] | str

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise TypeError(f"Question(text) must be text, not {type(self.text).__name__}.")
        if not self.text.strip():
            raise ValueError("Question(text) is empty: write the question.")
        if isinstance(self.answer, str):
            if not self.answer.strip():
                raise ValueError("Question(answer) is empty: write the answer or a function.")
        elif not callable(self.answer):
            raise TypeError("Question(answer) must be text or a function that returns text.")

    def answered(self) -> str:
        """The answer's text, computed now.

        Raises TypeError where the function returns anything but text.
        """
        answer = self.answer if isinstance(self.answer, str) else self.answer()
        if not isinstance(answer, str):
            raise TypeError(
                f"the answer to {self.text!r} must be text, not {type(answer).__name__}."
            )
        return answer


def ask(*questions: Question) -> Shown:
    """Shows the questions, each answer folded away in HTML and after all questions in a terminal.

    Raises ValueError without a question, TypeError for anything but a Question.
    """
    if not questions:
        raise ValueError("ask(): pass at least one Question.")
    for question in questions:
        if not isinstance(question, Question):
            raise TypeError(f"ask(): pass Question(...), not {type(question).__name__}.")
    answers = [question.answered() for question in questions]
    pairs = list(zip(questions, answers, strict=True))
    body = "".join(
        f'<details style="margin:0.3em 0"><summary style="cursor:pointer">{prose(question.text)}'
        f'</summary><div style="white-space:pre-wrap;margin-left:1.2em">{prose(answer)}</div>'
        "</details>"
        for question, answer in pairs
    )
    lines = [f"Question {i}. {question.text}" for i, question in enumerate(questions, 1)]
    lines += ["", "Answers (say yours aloud first):"]
    lines += [f"{i}. {answer}" for i, answer in enumerate(answers, 1)]
    panel = Panel(card(body), visible("\n".join(lines)))
    panel.show()
    return panel.quiet()
