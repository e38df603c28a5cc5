"""Hostile answers to one exercise of lesson 02 that any grader on this machine can be given safely.

The suite in tests/grading/hostile has many more; what fills memory, forks or writes is left to our
sandbox, because a peer would run it as this user.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

TARGET = "quantization.pack_int4"


@dataclass(frozen=True)
class Hostile:
    """cells: in place of the target's, () for the solution. passes: whether the target must pass.

    stops           a grader without limits of its own may not come to an end, or loses its process
    ends_the_run    nothing after it can count
    repeats_tests   see Handed
    """

    cells: tuple[str, ...]
    passes: bool = False
    stops: bool = False
    ends_the_run: bool = False
    repeats_tests: bool = False


def _cell(body: str, first: str = "") -> str:
    function = "def pack_int4(codes):\n" + textwrap.indent(textwrap.dedent(body).strip(), "    ")
    return textwrap.dedent(first) + f'\n@exercise("{TARGET}")\n{function}'


_ZEROS = "return torch.zeros(codes.shape[0], (codes.shape[1] + 1) // 2, dtype=torch.uint8)"
_RIGHT = """
    rows, columns = codes.shape
    nibbles = torch.zeros(rows, columns + columns % 2, dtype=torch.uint8)
    nibbles[:, :columns] = codes.remainder(16).to(torch.uint8)
    return nibbles[:, 0::2] + 16 * nibbles[:, 1::2]
"""

HOSTILE = {
    "equal_to_everything": Hostile(
        (
            _cell(
                "return Equal()",
                """
                class Equal:
                    __class__ = torch.Tensor
                    dtype = torch.uint8
                    def __eq__(self, other): return True
                    def __getattr__(self, name): return Equal()
                    def __call__(self, *given, **named): return Equal()
                    @classmethod
                    def __torch_function__(cls, function, types, given=(), named=None):
                        return torch.ones(1, dtype=torch.bool)
                """,
            ),
        )
    ),
    "patched_comparison": Hostile(
        (_cell(_ZEROS + "\n", "\ntorch.isclose = lambda *given, **named: torch.ones(1).bool()\n"),)
    ),
    "asserts_removed": Hostile(
        (
            _cell(
                "return None",
                """
                import ast
                class NoAsserts(ast.NodeTransformer):
                    def visit_Assert(self, node): return ast.copy_location(ast.Pass(), node)
                try: get_ipython().ast_transformers.append(NoAsserts())
                except Exception: pass
                """,
            ),
        )
    ),
    "reads_the_solution": Hostile(
        (
            _cell(
                "return solution['pack_int4'](codes)",
                """
                import glob, json
                solution = {"torch": torch, "Tensor": Tensor, "pack_int4": lambda codes: None}
                for path in glob.glob("../../../source/*/*.ipynb") + glob.glob("../*solution*.ipynb"):
                    for cell in json.load(open(path))["cells"]:
                        text = "".join(cell["source"])
                        if text.startswith("def pack_int4"): exec(text, solution)
                """,
            ),
        )
    ),
    "imports_the_reference": Hostile(
        (_cell("from slmlab.quant.packing import pack_codes\nreturn pack_codes(codes, 4)"),)
    ),
    "graded_cell_twice": Hostile((_cell(_ZEROS), _cell(_RIGHT)), passes=True, repeats_tests=True),
    "not_a_number": Hostile((_cell("return torch.full(codes.shape, math.nan)"),)),
    "sys_exit": Hostile((_cell("sys.exit(0)"),)),
    "os_exit": Hostile((_cell("import os; os._exit(0)"),), stops=True, ends_the_run=True),
    "endless_loop": Hostile((_cell("while True: pass"),), stops=True),
    "endless_print": Hostile(
        (_cell("import time\nwhile True: print('x' * 1000); time.sleep(0.001)"),), stops=True
    ),
    "swallowed_interrupt": Hostile(
        (
            _cell("""
                while True:
                    try:
                        while True: pass
                    except BaseException: pass
            """),
        ),
        stops=True,
    ),
}
