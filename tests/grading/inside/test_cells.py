"""The namespace of the cells is a notebook's; `import slmlab` finds the stub."""

from __future__ import annotations

import pytest

import slmlab
from tests.grading.inside.host import Host, ends


def printed(host: Host, *cells: str) -> list[str]:
    """What each cell printed, or how it ended where it did not run through."""
    messages, status = host.run(list(cells))
    assert status == 0
    return [
        item["printed"].replace("\r", "") if item["state"] == "ran" else item["message"]
        for item in ends(messages)
    ]


def test_names_last_and_the_module_is_main(host: Host) -> None:
    first = "x = 1\ndef f(): return x\nif __name__ == '__main__': print(f.__module__)"
    assert printed(host, first, "x = 5\nprint(f())") == ["__main__\n", "5\n"]


def test_source_pickle_and_dataclasses(host: Host) -> None:
    define = (
        "import inspect, pickle, copy, dataclasses, enum, typing\n"
        "def f(a):\n    return a  # the source\n\n"
        "@dataclasses.dataclass\nclass Point:\n    x: 'int' = 1\n"
        "class Kind(enum.Enum):\n    A = 1\n"
    )
    use = (
        "print(inspect.getsource(f), end='')\n"
        "print(pickle.loads(pickle.dumps((f, Point(3), Kind.A))) == (f, Point(3), Kind.A))\n"
        "print(typing.get_type_hints(Point))\n"
    )
    wanted = "def f(a):\n    return a  # the source\nTrue\n{'x': <class 'int'>}\n"
    assert printed(host, define, use) == ["", wanted]


def test_a_traceback_names_the_cell(host: Host) -> None:
    define = "def f():\n    return {}['k']"
    show = "import traceback\ntry:\n    f()\nexcept KeyError:\n    traceback.print_exc()"
    text = printed(host, define, show)[1]
    assert "File \"cell 1\", line 2, in f\n    return {}['k']" in text
    assert 'File "cell 2", line 3, in <module>' in text


def test_futures_last_and_await_works(host: Host) -> None:
    assert printed(
        host,
        "from __future__ import annotations",
        "def f(x: NotThere): ...\nprint(f.__annotations__)",
        "import asyncio\nasync def g(): return 4\nprint(await g())",
    )[1:] == ["{'x': 'NotThere'}\n", "4\n"]


def test_magics_run_on_the_same_namespace_and_ipython_only_then(host: Host) -> None:
    loaded = "import sys; print('IPython' in sys.modules)"
    found = printed(
        host,
        "x = 3",
        loaded,
        "%load_ext no_such_extension\n%time y = x + 1\nz = !echo shell\nprint(y, z)",
        "%%capture out\nprint('hidden')",
        "print(out.stdout, end='')",
        ">>> print(x)",
        "    print('indented')",
        loaded,
        "from IPython import get_ipython\nget_ipython().run_line_magic('pwd', '')",
        "x = = 2",
    )
    assert found[1] == "False\n" and found[2].endswith("4 ['shell']\n")
    assert found[3:8] == ["", "hidden\n", "3\n", "indented\n", "True\n"]
    assert (
        "SyntaxError" not in found[8]
        and found[9] == "SyntaxError: invalid syntax (cell 10, line 1)"
    )


def test_a_notebook_names_without_a_screen(host: Host) -> None:
    assert printed(host, "display([1], 'a')") == ["[1]\n'a'\n"]
    text = printed(host, "get_ipython().run_line_magic('lsmagic', '')\nprint(x)")[0]
    assert text == "NameError: name 'x' is not defined (cell 1, line 2: `print(x)`)"


def test_modules_in_the_working_folder_are_found(host: Host) -> None:
    write = "open('helper_of_mine.py', 'w').write('def f(): return 1 / 0')"
    text = printed(host, write, "import helper_of_mine\nhelper_of_mine.f()")[1]
    assert text == "ZeroDivisionError: division by zero (cell 2, line 2: `helper_of_mine.f()`)"


def test_every_public_name_of_slmlab_is_there_and_does_nothing(host: Host) -> None:
    names = ", ".join(slmlab.__all__)
    use = (
        "print(hint('a.b'), predict('x', 3), predict('x', 3, unit='s'), measured('x', 2), progress())"
        "\nlm = load('tiny', dtype=None)\nprint(bool(lm.model(lm['x']).config), list(lm.generate('a')))"
        "\nwith kv.PagedCache(3) as c: pass"
    )
    wanted = "None None None None None\nFalse []\n"
    assert printed(host, f"from slmlab import {names}", use) == ["", wanted]


@pytest.mark.parametrize("name", ["slmlab.lessons", "slmlab.lessons.quantization", "slmlab.quant"])
def test_a_room_of_slmlab_is_refused_with_a_sentence(host: Host, name: str) -> None:
    """To all but an import statement of the cell itself, for which see test_absent.py."""
    sentence = (
        "is not there while answers are graded: answers use torch, numpy and the standard library"
    )
    function = f"def f():\n    from {name} import x\nf()"
    for source in (function, f"import importlib\nimportlib.import_module({name!r})"):
        (text,) = printed(host, source)
        assert text.startswith("ModuleNotFoundError: slmlab.") and sentence in text
    (text,) = printed(host, "from slmlab import nothing")
    assert "cannot import name 'nothing'" in text
    (text,) = printed(host, "import slmlab.nothing")
    assert text.startswith("ModuleNotFoundError: slmlab.nothing")
