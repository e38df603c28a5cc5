"""Notebooks that are hostile as files: metadata, cells, sources, links, archives."""

import io
import json
import zipfile

from tests.grading.class_of import notebook_text
from tests.grading.hostile.attack import (
    AFTER,
    BEFORE,
    HEAD,
    TARGET,
    Handed,
    Link,
    Pipe,
    around,
    code,
    honest,
    hostile,
    solved,
    target,
)

WRONG = target("return torch.zeros(1, 1, dtype=torch.uint8)")


def edited(cell: str, **changes: object) -> Handed:
    """A notebook around the cell, with fields of its middle cell replaced."""
    content = json.loads(notebook_text(around(cell)))
    content["cells"][2].update(changes)
    return {"homework.ipynb": json.dumps(content)}


def zipped(members: dict[str, str], links: dict[str, str] | None = None) -> bytes:
    """A zip with these names as they are, and symbolic links as Unix writes them."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
        for name, to in (links or {}).items():
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, 0o120777 << 16
            archive.writestr(info, to)
    return file.getvalue()


@hostile((1, 0, 1))
def altered_metadata():
    """The cell says that it is worth 1,000 points, is locked, and has been graded: nobody asks it."""
    nbgrader = {
        "points": 1000,
        "grade": True,
        "solution": False,
        "locked": True,
        "schema_version": 3,
    }
    mine = {"exercise": TARGET, "points": 1000, "outcome": "passed", "credit": 1.0}
    return edited(WRONG, metadata={"nbgrader": nbgrader | {"grade_id": TARGET}, "slmlab": mine})


@hostile((1, 1, 1))
def metadata_of_another_exercise():
    """The metadata name another exercise than the source: the source counts."""
    metadata = {
        "slmlab": {"exercise": BEFORE},
        "nbgrader": {"grade_id": "quantization-absmax_int8"},
    }
    return edited(honest(), metadata=metadata)


@hostile((1, 0, 1))
def submitted_outputs_and_grades():
    """The notebook brings the output of a check that passed, and its folder the tables of a run."""
    output = {"output_type": "stream", "name": "stdout", "text": "passed, 7 of 7 cases"}
    handed = edited(WRONG, outputs=[output], execution_count=1)
    assert isinstance(handed, dict)
    row = "submitted_outputs_and_grades,3,3,3,9,9,graded,\n"
    return handed | {"grades.csv": row, "grade.json": '{"total": 9, "status": "graded"}'}


@hostile((1, 1, 1))
def modules_beside_the_notebook():
    """Files named torch.py, slmlab.py and sitecustomize.py lie beside it: only cells are run."""
    evil = "raise SystemExit('mine')"
    handed = edited(honest())
    assert isinstance(handed, dict)
    names = ("torch.py", "slmlab.py", "sitecustomize.py", "conftest.py", "json.py")
    return handed | dict.fromkeys(names, evil)


@hostile((1, 1, 1), flags="duplicated")
def wrong_then_right():
    """The exercise stands twice: the better one counts, and it is flagged."""
    return [HEAD, solved(BEFORE), WRONG, honest(), solved(AFTER)]


@hostile((1, 1, 1), flags="duplicated")
def right_then_wrong():
    """The same in the other order, as when a learner goes on trying."""
    return [HEAD, solved(BEFORE), honest(), WRONG, solved(AFTER)]


@hostile((1, 1, 1))
def many_definitions():
    """A thousand definitions in one cell do not cost a thousand runs of the cases."""
    return honest(first="for _ in range(1000): exercise('quantization.pack_int4')(lambda codes: 0)")


@hostile((1, 1, 1), flags="duplicated")
def renamed_function():
    """The function has another name, and then that of another exercise: the id counts."""
    renamed = honest().replace("def pack_int4", "def mine")
    return [
        HEAD,
        solved(BEFORE),
        renamed,
        WRONG.replace("pack_int4(codes)", "absmax_int8(codes)"),
        solved(AFTER),
    ]


@hostile((1, 0, 1))
def renamed_exercise():
    """The id is changed by one letter, or is not an id: there is no such exercise."""
    return honest().replace(TARGET, TARGET + "​")


@hostile((1, 1, 1))
def id_made_at_run_time():
    """The id stands nowhere in the source: what the cell defines when it runs counts."""
    return honest().replace(f'"{TARGET}"', '"quantization." + "4tni_kcap"[::-1]')


@hostile((1, 0, 1), cell="raised", says="SyntaxError")
def cell_that_does_not_parse():
    """One cell is no Python: it is an error of its own, and the others run."""
    return honest() + "\n) ] }"


@hostile((1, 0, 1), cell="raised")
def deep_parentheses():
    """Parentheses a hundred thousand deep: the parser refuses them."""
    return "x = " + "(" * 100_000 + ")" * 100_000 + "\n" + honest()


@hostile((1, 0, 1), cell="raised")
def deep_operators():
    """A chain of operators that the compiler walks down recursively."""
    return "x = " + "-" * 200_000 + "1\n" + honest()


@hostile((1, 0, 1), cell="raised")
def null_bytes():
    """A source with null bytes is refused by the compiler."""
    return "x = 1\0\n" + honest()


@hostile((1, 1, 1))
def surrogates():
    """Half a pair of UTF-16 in the source, which has no bytes in UTF-8: it reads as another sign."""
    return "name = '\ud800'\n" + honest()


@hostile((1, 1, 1))
def surrogates_that_are_made():
    """The same made at run time, printed and raised."""
    return honest(last=r"print('\ud800\x00\x1b[2J'); raise ValueError('\udfff')")


@hostile((1, 1, 1))
def hundred_thousand_lines():
    """A cell of 100,000 lines, which takes the compiler a while."""
    return honest(last="pass\n" * 100_000)


@hostile((0, 0, 0), status="unreadable", reason="code")
def megabytes_of_code():
    """A notebook of three megabytes of code: too large to be homework."""
    return around("x = 0  # " + "x" * (3 << 20))


@hostile((1, 1, 1))
def huge_outputs():
    """Thirty megabytes of stored outputs: they are dropped while the file is read."""
    big = {"output_type": "stream", "name": "stdout", "text": "x" * (30 << 20)}
    return edited(honest(), outputs=[big])


@hostile((0, 0, 0), status="unreadable", reason="nested too deeply")
def json_that_is_too_deep():
    """A file of brackets, which a recursive reader would not survive."""
    return {"homework.ipynb": '{"cells": ' + "[" * 200_000 + "]" * 200_000 + "}"}


@hostile((1, 1, 1))
def markup_in_what_is_shown():
    """HTML and a script in what is printed, raised and returned: the pages show them as text."""
    return honest(
        last="""
        print("<script>alert(1)</script><img src=x onerror=alert(2)>")
        raise ValueError("</td></table><script>alert(3)</script>")
        """
    )


@hostile((0, 0, 0), status="unreadable", reason="link")
def link_to_another_student():
    """The notebook is a symbolic link to another student's: links are not followed."""
    return {"homework.ipynb": Link("../victim/homework.ipynb")}


@hostile((0, 0, 0), status="unreadable", reason="link")
def link_to_the_host():
    """A folder that is a symbolic link to the host's root."""
    return {"work": Link("/")}


@hostile((0, 0, 0), status="unreadable", reason="regular file")
def pipe_in_place_of_a_notebook():
    """Opening it would wait for ever."""
    return {"homework.ipynb": Pipe()}


@hostile((1, 0, 1), flags="link")
def link_in_a_zip():
    """A zip with a symbolic link to another student's notebook beside an own one."""
    own = notebook_text(around(WRONG))
    links = {"better.ipynb": "../victim/homework.ipynb", "all": "/"}
    return {"homework.zip": zipped({"homework.ipynb": own}, links)}


@hostile((1, 0, 1), flags="evil")
def zip_slip():
    """Names that lead out of the archive: nothing is unpacked, and such a member is left out."""
    own, evil = notebook_text(around(WRONG)), notebook_text(around(honest()))
    slips = ("../../evil.ipynb", "/tmp/evil.ipynb", "..\\..\\evil.ipynb", "../victim/evil.ipynb")
    return {"homework.zip": zipped({"homework.ipynb": own} | dict.fromkeys(slips, evil))}


@hostile((0, 0, 0), status="unreadable", reason="large|ratio|MB")
def zip_bomb():
    """Three hundred kilobytes that unpack to three hundred megabytes."""
    return {
        "homework.zip": zipped(
            {"homework.ipynb": '{"cells": [], "x": "' + "0" * (300 << 20) + '"}'}
        )
    }


@hostile((1, 0, 1), cell="timeout", hurried=True)
def magics_of_the_shell():
    """A cell for IPython with a shell command that never ends."""
    return code("""
        %matplotlib inline
        !sleep 999
    """)
