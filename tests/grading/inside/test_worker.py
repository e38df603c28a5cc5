"""Cells run and cases are answered in the sandbox's Python as they are in the notebook."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from slmlab.checking import Case, all_exercises, check, execute, judge, make_cases
from slmlab.checking.spec import Exercise
from slmlab.checking.values import Opaque
from tests.grading.inside.host import Host, ends, executions

CASES = {"a.b": (Case({"x": torch.tensor([1.0, 2.0])}), Case({"x": np.arange(3)}))}
HONEST = "@exercise('a.b')\ndef double(x):\n    return x + x\n"
IMPORTS = "import torch\nfrom slmlab import exercise, hint, progress\n"
STARTED = {"cell": 0, "state": "start"}


def told(host: Host, *cells: str, **more: Any) -> tuple[list[dict[str, Any]], list[Any]]:
    """(the ends of the cells, the executions of a.b) of the cells after the imports."""
    messages, status = host.run([IMPORTS, *cells], more.pop("cases", CASES), **more)
    assert status == 0
    return ends(messages)[1:], executions(messages, "a.b")


def answers_right(found: list[Any], times: int = 1) -> bool:
    wanted = ([2.0, 4.0], [0, 2, 4]) * times
    return [item.output is not None and item.output.tolist() for item in found] == list(wanted)


def test_messages_in_order(host: Host) -> None:
    messages, status = host.run([IMPORTS, HONEST + "print('hi')"], CASES)
    shapes = [(m["cell"], m.get("state", m.get("case"))) for m in messages]
    assert shapes == [(0, "start"), (0, "ran"), (1, "start"), (1, 0), (1, 1), (1, "ran")]
    assert messages[-1]["printed"] == "hi\n" and status == 0


def test_a_cell_that_raises_is_told_and_later_ones_run(host: Host) -> None:
    cells, found = told(
        host,
        "def f():\n    return 1 / 0",
        "y = 2\nf()",
        "def broken(:",
        "import torch.nothere",
        HONEST,
    )
    assert [cell["state"] for cell in cells] == ["ran", "raised", "raised", "raised", "ran"]
    place = "(cell 2, line 2: `return 1 / 0`)"
    assert cells[1]["message"] == f"ZeroDivisionError: division by zero {place}"
    assert cells[2]["message"] == "SyntaxError: invalid syntax (cell 4, line 1)"
    assert "No module named 'torch.nothere'" in cells[3]["message"]
    assert answers_right(found)


@pytest.mark.parametrize(
    "ending",
    [
        "import sys; sys.exit(3)",
        "exit_now()",
        "raise KeyboardInterrupt",
        "raise GeneratorExit",
        "raise BaseException",
        "class E(Exception):\n  def __str__(s): 1/0\nraise E",
    ],
)
def test_what_ends_a_cell_does_not_end_the_run(host: Host, ending: str) -> None:
    exits = "def exit_now():\n    raise SystemExit"
    cells, found = told(host, exits, ending, HONEST)
    assert cells[1]["state"] == "raised" and answers_right(found)


def test_a_cell_that_raises_further_down_has_still_defined_its_function(host: Host) -> None:
    cells, found = told(host, HONEST + "assert False, 'mine'")
    assert cells[0]["state"] == "raised" and "mine" in cells[0]["message"]
    assert answers_right(found)


def test_a_blank_is_unattempted_and_a_kernel_that_torch_lacks_is_not(host: Host) -> None:
    cases = {"a.b": CASES["a.b"][:1]}
    blank = "@exercise('a.b')\ndef f(x):\n    raise NotImplementedError"
    lacking = "@exercise('a.b')\ndef f(x):\n    return torch.linalg.inv(torch.ones(2, 2).half())"
    _, (first, second) = told(host, blank, lacking, cases=cases)
    assert first.unattempted and not second.unattempted
    assert second.failure.line == 3 and second.failure.code.startswith("return torch")


@pytest.mark.parametrize(
    "body",
    [
        "return torch.nn.functional.softmax(x, dim=7)",  # raises in a Python file of torch
        "return np.broadcast_to(x, (7, 7))",  # and in one of numpy
        "return json.loads('{')",  # and in the standard library
    ],
)
def test_a_failure_shows_the_learners_line_and_no_packages(host: Host, body: str) -> None:
    define = "import json, numpy as np\n"
    _, found = told(host, define + f"@exercise('a.b')\ndef f(x):\n    {body}")
    assert (found[0].failure.function, found[0].failure.line) == ("f", 4)
    assert found[0].failure.code == body


def test_printed_text_edits_and_signatures_are_told_as_in_the_notebook(host: Host) -> None:
    source = (
        "@exercise('a.b')\ndef f(x):\n    print('x' * 5000)\n    x += 1\n    return x\n",
        "@exercise('a.b')\ndef f(y):\n    return y\n",
    )
    _, (first, _, wrong, _) = told(host, *source)
    assert first.printed == "x" * 2000 and first.changed == ("x",)
    assert wrong.failure.type_name == "signature" and "f(x=...)" in wrong.failure.message


def test_each_case_gets_its_own_copy(host: Host) -> None:
    source = "@exercise('a.b')\ndef f(x):\n    x *= 2\n    return x"
    _, found = told(host, source, source)
    assert answers_right(found, times=2)


def test_the_time_of_a_cell_ends_it_and_names_its_line(host: Host) -> None:
    spin = "def spin():\n    while True:\n        pass\n"
    cells, found = told(host, spin + "spin()", HONEST, seconds=0.5)
    assert cells[0]["state"] == "timeout" and answers_right(found)
    start = "The cell did not end within 0.5 s (it was at cell 2, line "
    assert cells[0]["message"].startswith(start)


def test_a_case_that_does_not_end_keeps_what_came_before(host: Host) -> None:
    source = "@exercise('a.b')\ndef f(x):\n    while len(x) == 3:\n        pass\n    return x + x"
    cells, found = told(host, source, "1 + 1", seconds=0.5)
    assert [cell["state"] for cell in cells] == ["timeout", "ran"]
    assert [item.output.tolist() for item in found] == [[2.0, 4.0]]
    assert " of f: `" in cells[0]["message"]


def test_swallowing_the_alarm_gains_little(host: Host) -> None:
    stubborn = (
        "import time\nfor _ in range(2):\n    try:\n        time.sleep(30)\n"
        "    except BaseException:\n        pass\n"
    )
    cells, found = told(host, stubborn + HONEST, HONEST, seconds=0.5)
    assert cells[0]["state"] == "timeout" and answers_right(found)
    assert 1.4 < cells[0]["seconds"] < 20


def test_signals_of_the_learners_own_do_not_reach_later_cells(host: Host) -> None:
    games = (
        "import signal\nsignal.signal(signal.SIGALRM, signal.SIG_IGN)\n",
        "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\n",
        "signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)\n",
    )
    cells, found = told(host, *games, "while True: pass", HONEST, seconds=0.5)
    assert [cell["state"] for cell in cells] == ["ran", "ran", "ran", "timeout", "ran"]
    assert answers_right(found)


@pytest.mark.parametrize(
    "sabotage",
    [
        "import builtins\nfor n in ('len', 'isinstance', 'type', 'tuple', 'print', 'callable'):\n"
        "    setattr(builtins, n, None)",
        "import builtins\ndel builtins.range, builtins.enumerate, builtins.getattr",
        "import os, json, struct, json.encoder, io, copy, inspect, contextlib\n"
        "os.write = os.getpid = json.dumps = json.JSONEncoder = struct.pack = None\n"
        "json.encoder.encode_basestring_ascii = io.StringIO = copy.deepcopy = None\n"
        "inspect.signature = contextlib.redirect_stdout = None",
        "import sys\nsys.settrace(lambda *a: 1 / 0)\nsys.setrecursionlimit(60)",
        "import sys\nsys.setprofile(lambda f, event, a: event == 'c_call' and 1 / 0)",
        "import sys\nsys.stdout = sys.stderr = None\nsys.modules['__main__'] = None",
        "import numpy\nnumpy.frombuffer = numpy.ascontiguousarray = numpy.uint8 = None",
        "import time, signal\ntime.monotonic = signal.setitimer = signal.signal = None",
        "import safetensors.numpy as s, safetensors\ns.save = safetensors.serialize = None",
        "import linecache, dis\nlinecache.getline = dis.get_instructions = None",
        "import compileall, ast\nast.parse = compile = exec = None",
        "import os\nos.fork() or None",
        "import threading\nthreading.Thread(target=lambda: [0 for _ in iter(int, 1)], daemon=True)"
        ".start()",
        "import atexit\natexit.register(lambda: [0 for _ in iter(int, 1)])",
    ],
)
def test_sabotage_does_not_reach_later_cells(host: Host, sabotage: str) -> None:
    cells, found = told(host, sabotage, HONEST)
    assert cells[1]["state"] == "ran" and answers_right(found)


def test_patches_of_torch_last_as_in_a_notebook(host: Host) -> None:
    _, found = told(host, "torch.add = lambda a, b: 7", HONEST.replace("x + x", "torch.add(x, x)"))
    assert [item.output for item in found] == [7, 7]


def test_definitions(host: Host) -> None:
    cells, found = told(
        host,
        HONEST + HONEST,
        "@exercise('a.b')\n@exercise('no.such')\n@exercise('a.b')\ndef f(x): return x + x",
        "exercise('a.b')(lambda x: x + x)",
        "class C:\n    @exercise('a.b')\n    def m(x): return x + x",
        "@exercise('a.b')\nclass D: pass",
        "@exercise\ndef bare(x): return x\n@exercise(3)\ndef number(x): return x\n"
        "@exercise()\ndef none(x): return x\nexercise('a.b')(3); exercise('a.b')()",
        "assert bare(1) == number(1) == none(1) == 1 and D() and C.m(1) == 2",
    )
    assert {cell["state"] for cell in cells} == {"ran"}
    assert answers_right(found, times=6)


def test_definitions_without_end_are_bounded(host: Host) -> None:
    cells, found = told(host, "for _ in range(1000): exercise('a.b')(lambda x: x + x)")
    assert cells[0]["state"] == "ran" and answers_right(found, times=20)


def test_a_giant_output_leaves_room_for_others(host: Host) -> None:
    giant = "@exercise('a.b')\ndef f(x):\n    return torch.zeros(1_000_000)"
    _, found = told(host, giant, giant, HONEST, output_mb=4)
    assert [item.output for item in found[:4]] == [Opaque("Tensor that is too large")] * 4
    assert answers_right(found[4:])


def test_the_process_that_ends_itself_has_sent_what_it_had(host: Host) -> None:
    messages, status = host.run([IMPORTS, HONEST, "import os; os._exit(5)", HONEST], CASES)
    assert status == 5 and answers_right(executions(messages, "a.b"))
    assert messages[-1] == {"cell": 2, "state": "start"}


def test_cells_to_leave_out(host: Host) -> None:
    messages, _ = host.run([IMPORTS, "while True: pass", HONEST], CASES, skip=[1])
    assert [item["cell"] for item in ends(messages)] == [0, 2]
    assert answers_right(executions(messages, "a.b"))


def test_the_same_seed_gives_the_same_numbers(host: Host) -> None:
    source = (
        "import random, numpy\n@exercise('a.b')\n"
        "def f(x): return [random.random(), numpy.random.rand(2), torch.rand(2)]"
    )
    first, again, other = (told(host, source, seed=seed)[1] for seed in (2**80, 2**80, 3))
    assert str(first) == str(again) != str(other)


def test_no_room_of_slmlab_is_there(host: Host) -> None:
    source = (
        "import sys, os, importlib.util\nfound = [n for n in sys.modules if 'lessons' in n]\n"
        "print(found, importlib.util.find_spec('IPython') is not None)"
    )
    cells, _ = told(host, source)
    assert cells[0]["printed"] == "[] True\n"


@pytest.mark.parametrize("exercise", all_exercises()[:6], ids=lambda item: item.id)
def test_a_wrong_answer_gets_the_outcome_of_the_notebook(host: Host, exercise: Exercise) -> None:
    """What does not depend on the source of the mistake: the outputs of a cell that returns None."""
    cases = make_cases(exercise, 3)
    names = ", ".join(cases[0].arguments)
    source = f"@exercise({exercise.id!r})\ndef f({names}):\n    print('here')\n"
    namespace: dict[str, Any] = {}
    exec(source.split("\n", 1)[1], namespace)
    messages, _ = host.run([IMPORTS, source], {exercise.id: cases})
    there = judge(exercise, cases, executions(messages, exercise.id))
    here = judge(exercise, cases, execute(namespace["f"], cases))
    assert there.outcome == here.outcome == check(exercise, namespace["f"], 3).outcome
    assert [r.problem for r in there.results] == [r.problem for r in here.results]
    assert [r.execution for r in there.results] == [r.execution for r in here.results]
