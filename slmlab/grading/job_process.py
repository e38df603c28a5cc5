"""A job process: one sandbox, one submission after another, JSON lines in and out.

``python -m slmlab.grading.job_process``. The first line in is the plan; the process answers that it
is ready, or why it cannot be. Each further line is a submission and is answered by its grade. The
process ends when its input does, so it never outlives the grader.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from contextlib import ExitStack
from typing import Any, BinaryIO

from slmlab.grading.sandbox.errors import SandboxUnavailable
from slmlab.grading.wire import line, submission_from_json


def main() -> int:
    """Serves until the input ends; the exit status."""
    answers = os.fdopen(os.dup(1), "wb")
    # What an exercise pack prints must not mix with the answers.
    os.dup2(2, 1)
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin.buffer, lines), daemon=True).start()
    with ExitStack() as stack:
        try:
            grader = _ready(json.loads(lines.get()), stack)
        except Exception as error:
            # A pack is anybody's code and may raise anything.
            _answer(answers, {"refused": str(error) or type(error).__name__})
            return 1
        _answer(answers, {"ready": dict(grader.sandbox.description)})
        while True:
            submission = submission_from_json(json.loads(lines.get()))
            try:
                answer = {"grade": grader.grade(submission).to_json()}
            except SandboxUnavailable as error:
                answer = {"refused": str(error)}
            _answer(answers, answer)


def _ready(content: Any, stack: ExitStack) -> Any:
    import torch

    from slmlab.grading.grader import Grader
    from slmlab.grading.plan import Plan
    from slmlab.grading.sandbox import open_sandbox

    # One thread a job: with more, OpenMP spins on cores that the other jobs need.
    torch.set_num_threads(1)
    plan = Plan.from_json(content)
    sandbox = stack.enter_context(open_sandbox(limits=plan.limits, unsafe=plan.unsafe))
    return Grader(plan, sandbox)


def _read(stream: BinaryIO, lines: queue.SimpleQueue[bytes]) -> None:
    for text in stream:
        lines.put(text)
    # The grader is gone: whatever runs here is for nobody. bubblewrap dies with this process.
    os._exit(0)


def _answer(stream: BinaryIO, content: dict[str, Any]) -> None:
    stream.write(line(content))
    stream.flush()


if __name__ == "__main__":
    sys.exit(main())
