"""An import that the sandbox lacks does not end the handout's first cell."""

from __future__ import annotations

import pytest

from tests.grading.inside.host import Host, ends
from tests.grading.inside.test_worker import CASES, HONEST, answers_right, executions

LACKS = "{} is not there while answers are graded: what uses it fails."


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import nothere.plots as plt", "nothere"),
        ("from nothere.auto import bar, other", "nothere"),
        ("if True:\n    import nothere", "nothere"),
        ("from nothere import *", "nothere"),
        ("%matplotlib inline\nimport nothere", "nothere"),
        ("from slmlab.models import Transformer", "slmlab.models"),
        ("import slmlab.models.projection as p", "slmlab.models"),
        ("from slmlab.checking import exercise, hint, progress, predict", "slmlab.checking"),
    ],
)
def test_what_follows_an_absent_package_counts(host: Host, source: str, name: str) -> None:
    first = f"{source}\nimport torch\n"
    first += "" if "exercise" in source else "from slmlab import exercise\n"
    messages, status = host.run([first, HONEST], CASES)
    assert status == 0 and answers_right(executions(messages, "a.b"))
    assert [(end["state"], end["message"]) for end in ends(messages)] == [
        ("ran", LACKS.format(name)),
        ("ran", ""),
    ]


def test_who_reckons_with_its_absence_sees_it(host: Host) -> None:
    cells = [
        "try:\n    import nothere\nexcept ImportError:\n    print('caught')",
        "import importlib, importlib.util\nprint(importlib.util.find_spec('nothere'))",
        "def f():\n    import nothere\nf()",
        "import _nothere",
        "import nothere",
        "import sys\nprint('nothere' in sys.modules)",
        "open('tries.py', 'w').write('try:\\n import nothere\\nexcept ImportError: nothere = 7')",
        "import tries\nprint(tries.nothere)",
    ]
    found = ends(host.run(cells)[0])
    assert [end["printed"].strip() for end in found] == [
        *("caught", "None", "", "", "", "False", "", "7")
    ]
    assert [end["state"] for end in found] == ["ran"] * 2 + ["raised"] * 2 + ["ran"] * 4


def test_what_uses_it_does_nothing_or_says_what_it_is(host: Host) -> None:
    cells = [
        "import nothere.plots as plt\nfig, x = plt.figure(), plt.rc['a'].b\nfig.axes(1)[0].title = 3",
        "for x in plt.bar(range(3)): pass",
        "class Net(plt.Module):\n    def f(self): return 3\nprint(Net().f(), f'{plt.version}')",
        "from slmlab import measure\nt = measure.time()\nprint(f'{t:.3f}', t * 2 + 1 < 3, round(t, 2), abs(-t))",
    ]
    found = ends(host.run(cells)[0])
    assert [end["state"] for end in found] == ["ran", "raised", "ran", "ran"]
    assert "nothing to loop over: this is a placeholder for nothere" in found[1]["message"]
    assert found[2]["printed"].startswith("3 ")
