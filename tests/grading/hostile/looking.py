"""Looks for expected values, references, other submissions and secrets.

Each of these knows where everything is: KNOWN holds the paths, ports and names of the host. What a
cell found it prints as JSON, and the right thing to find is nothing.
"""

from slmlab.checking import make_cases, registry
from slmlab.checking.runner import expected
from tests.grading.hostile.attack import CASES, PACK, TARGET, code, honest, hostile, target


@hostile((1, 1, 1), finds=["/grader/inside/stub/slmlab"])
def walks_the_file_system():
    """Every file whose name or text could be the package, a notebook or a reference: only the stub."""
    return honest(
        last="""
        import os
        found = []
        for folder, folders, files in os.walk("/"):
            if folder == "/":
                folders[:] = [name for name in folders if name not in ("proc", "usr")]
            found += [os.path.join(folder, name) for name in folders + files
                      if "slmlab" in name.lower() or name.endswith(".ipynb") or name.startswith("quantization")
                      and not folder.startswith("/site/torch")]
        print(json.dumps(found))
        """
    )


@hostile((1, 1, 1), finds=[])
def imports_the_package():
    """Imports the references by every name and path: there is only the stub, which holds nothing."""
    return honest(
        last="""
        import importlib, importlib.util, os, sys
        found = []
        sys.path[:0] = [KNOWN["repository"], KNOWN["repository"] + "/slmlab", "/work", "/root"]
        for name in ("slmlab.lessons.quantization", "slmlab.lessons", "slmlab.checking.registry",
                     "slmlab.quant.grid", "slmlab.quant", "slmlab.grading.judging", "lessons", "quant"):
            try: importlib.import_module(name); found.append(name)
            except ImportError: pass
        for name in ("slmlab/lessons/quantization/pack_int4.py", "solutions/02_quantization.ipynb"):
            if os.path.exists(KNOWN["repository"] + "/" + name): found.append(name)
        import slmlab
        found += [name for name in ("quant", "lessons", "checking") if getattr(slmlab, name)]
        print(json.dumps(found))
        """
    )


@hostile((1, 1, 1), finds=[0, 18])
def walks_over_the_objects():
    """Goes up the frames to the worker's request and over every object that Python knows, for
    references, exercises and tensors that equal a right answer. It finds the 18 inputs, which it is
    given anyway, and no answer that it did not compute itself."""
    return (
        code("""
        import gc, sys
        inputs = []
        def look(frame):
            while frame is not None:
                for value in list(frame.f_locals.values()):
                    cases = getattr(getattr(value, "work", None), "cases", None)
                    if isinstance(cases, dict) and not inputs:
                        inputs.extend(case for items in cases.values() for case in items)
                        mine.extend(right(case.arguments["codes"]) for case in cases[NAME])
                frame = frame.f_back
        NAME, mine, found = "quantization.pack_int4", [], []
        def right(codes):
    """)
        + "\n"
        + "\n".join("    " + line for line in PACK.splitlines())
        + code("""

        look(sys._getframe())
        gc.unfreeze()
        for thing in gc.get_objects():
            kind = type(thing)
            if kind is torch.Tensor:
                same = any(thing is not own and thing.shape == own.shape and torch.equal(thing, own)
                           for own in mine if thing.dtype == own.dtype)
                found += ["a tensor"] * same
            elif kind.__name__ in ("Exercise", "Mistake", "CaseResult", "Diagnosis"):
                found.append(kind.__name__)
            elif kind is type(right) and thing.__name__ == "reference":
                found.append(thing.__module__)
        print(json.dumps([len(found), len(inputs)]))
    """).join(["\n", "\n"])
        + honest()
    )


SEARCH = """
    masked = bytes(KNOWN["masked"])  # the right answer to one case, each byte xor 85
    {plant}
    def holds(data):
        start, at = bytes(byte ^ 85 for byte in masked[:6]), -1
        while (at := data.find(start, at + 1)) >= 0:
            if all(byte ^ 85 == hidden for byte, hidden in zip(data[at:at + len(masked)], masked)):
                return True
        return False
    found = 0
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
        for line in maps:
            span, rights, _, _, inode = line.split()[:5]
            low, high = (int(part, 16) for part in span.split("-"))
            if rights[:2] != "rw" or inode != "0" or high - low > 1 << 28: continue
            try:
                for place in range(low, high, 1 << 24):
                    memory.seek(place)
                    found += holds(memory.read(min((1 << 24) + len(masked), high - place)))
            except (OSError, ValueError, OverflowError): pass
    print(json.dumps(found > 0))
"""


@hostile((1, 0, 1), finds=False)
def reads_its_whole_memory():
    """Searches all of the process's memory for the bytes of an expected value: they are not there."""
    return code(SEARCH.format(plant=""))


@hostile((1, 0, 1), finds=True)
def reads_its_whole_memory_where_it_is_planted():
    """The same with the bytes put there first: the search is able to find them."""
    return code(SEARCH.format(plant="planted = bytes(byte ^ 85 for byte in masked)"))


@hostile((1, 1, 1), finds=["1"])
def other_processes():
    """Who else is in /proc: nobody but the worker itself."""
    return honest(
        last="import os\nprint(json.dumps([name for name in os.listdir('/proc') if name.isdigit()]))"
    )


@hostile((1, 1, 1), finds=[])
def reads_the_memory_of_others():
    """ptrace, process_vm_readv and /proc/PID/mem of every process number."""
    return honest(
        last="""
        import ctypes, os
        libc, found = ctypes.CDLL(None, use_errno=True), []
        for pid in (0, 2, 3, os.getppid(), KNOWN["grader"]):
            if libc.ptrace(16, pid, 0, 0) == 0: found.append(f"attached to {pid}")
            buffer = ctypes.create_string_buffer(64)
            if libc.process_vm_readv(pid, buffer, 1, buffer, 1, 0) > 0: found.append(f"read {pid}")
            for name in ("mem", "environ", "root/etc/hostname", "cwd/.", "maps"):
                try: open(f"/proc/{pid}/{name}", "rb").read(1); found.append(f"{pid}/{name}")
                except OSError: pass
        print(json.dumps(found))
        """
    )


@hostile((1, 1, 1), finds=[])
def environment_variables():
    """The environment, of Python and as the kernel keeps it: nothing of the grader's is in it."""
    return honest(
        last="""
        import ctypes, os
        libc = ctypes.CDLL(None)
        libc.getenv.restype = ctypes.c_char_p
        usual = {"HOME", "PATH", "LANG", "USER", "PYTHONHASHSEED", "PWD", "OMP_NUM_THREADS",
                 "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LC_CTYPE"}
        names = set(os.environ)
        for name in ("/proc/self/environ", "/proc/1/environ"):
            pairs = open(name, "rb").read().split(bytes(1))
            names |= {pair.partition(b"=")[0].decode() for pair in pairs}
        found = [name for name in names - usual if name and not name.startswith(("TORCH", "KMP_"))]
        if libc.getenv(KNOWN["variable"].encode()): found.append("getenv")
        print(json.dumps(sorted(found)))
        """
    )


@hostile((1, 1, 1), finds=[])
def other_submissions():
    """The other students' notebooks, the results, the repository: by path, by way of /proc, by
    inherited descriptors of folders."""
    return honest(
        last="""
        import os
        found = []
        for path in (KNOWN["victim"], KNOWN["submissions"], KNOWN["out"], KNOWN["canary"],
                     KNOWN["repository"], "/root/.bashrc", "/home", "/etc/passwd", "/etc/shadow", "/var"):
            for start in ("", "/proc/self/root", "/proc/1/root", "/proc/self/cwd/../../../..",
                          "/proc/1/cwd/../..", "/oldroot", "/newroot", "/tmp/../../../.."):
                if os.path.exists(start + path): found.append(start + path)
        for descriptor in os.listdir("/proc/self/fd"):
            try: where = os.readlink(f"/proc/self/fd/{descriptor}")
            except OSError: continue
            if not where.startswith(("pipe:", "/dev/null", "/proc/")): found.append(where)
        print(json.dumps(found))
        """
    )


@hostile("guessed")
def answers_to_guessed_inputs():
    """The right answers to the public inputs, those of seed 0, and nothing else. The graded inputs
    come from another seed: only a case that both happen to hold is right."""
    exercise = registry.get(TARGET)
    cases = make_cases(exercise, 0)
    assert len(cases) == CASES
    table = {
        str(case.arguments["codes"].tolist()): answer.tolist()
        for case, answer in zip(cases, expected(exercise, cases), strict=True)
    }
    return target(
        f"return torch.tensor({table!r}.get(str(codes.tolist()), [[0]]), dtype=torch.uint8)"
    )
