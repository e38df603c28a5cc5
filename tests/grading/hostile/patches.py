"""Patches of what could be used to compare, to run or to report. Nothing is compared in there."""

from tests.grading.hostile.attack import code, honest, hostile, target

WRONG = "return torch.zeros(1, 1, dtype=torch.uint8)"


@hostile((1, 0, 1))
def patched_comparisons():
    """torch.allclose, torch.equal, numpy.isclose, math.isclose and builtins say yes to everything."""
    return target(
        WRONG,
        first="""
        import builtins, math, numpy, operator
        def yes(*given, **named): return True
        for module in (torch, torch.testing, numpy, numpy.testing, math, operator):
            for name in ("allclose", "equal", "isclose", "assert_close", "assert_allclose",
                         "array_equal", "assert_array_equal", "eq", "is_"):
                if hasattr(module, name): setattr(module, name, yes)
        builtins.all = builtins.any = yes
        builtins.abs = lambda value: 0
        """,
    )


@hostile((1, 0, 1))
def patched_torch():
    """torch.Tensor.__eq__, torch.save, detach, numpy and to_dense of all tensors lie. The learner's
    own later cells use none of these."""
    return target(
        WRONG,
        first="""
        true = torch.ones((), dtype=torch.bool)
        torch.Tensor.__eq__ = lambda self, other: true
        torch.Tensor.__ne__ = lambda self, other: ~true
        torch.Tensor.equal = torch.Tensor.allclose = lambda *given, **named: True
        torch.save = torch.load = lambda *given, **named: None
        """,
    )


@hostile((1, 0, 1))
def patched_builtins():
    """isinstance, type, len, print, open and __import__ are replaced; later cells get them back."""
    return target(
        WRONG,
        first="""
        import builtins
        for name in ("isinstance", "len", "print", "open", "getattr", "issubclass", "callable",
                     "compile", "exec", "sorted", "tuple", "repr", "super", "range", "zip"):
            setattr(builtins, name, lambda *given, **named: True)
        """,
    )


@hostile((1, 0, 1))
def patched_modules():
    """json, struct, os, signal, copy and inspect are emptied; later cells are answered all the same."""
    return target(
        WRONG,
        first="""
        import contextlib, copy, inspect, io, json, linecache, os, signal, struct, time
        def no(*given, **named): raise RuntimeError("patched")
        for module in (json, struct, os, signal, copy, inspect, io, contextlib, linecache, time):
            for name in list(vars(module)):
                if not name.startswith("__"): setattr(module, name, no)
        """,
    )


@hostile((1, 0, 1))
def patched_worker():
    """Every function of the worker's own modules, found through sys.modules: they are put back, and
    the later cells count."""
    return target(
        WRONG,
        first="""
        import sys
        def no(*given, **named): raise RuntimeError("patched")
        for name, module in list(sys.modules.items()):
            if name.split(".")[0] == "inside":
                for name, value in list(vars(module).items()):
                    if callable(value) and not isinstance(value, type): setattr(module, name, no)
        """,
    )


@hostile((1, 0, 1))
def patched_execution():
    """The class Execution says that every call was right, and plain() keeps what it is given."""
    return target(
        WRONG,
        first="""
        import sys
        for name, module in list(sys.modules.items()):
            if name.split(".")[0] == "inside":
                if hasattr(module, "plain"): module.plain = lambda value, *given: value
                if hasattr(module, "execute"): module.execute = lambda *given: ()
        """,
    )


@hostile((1, 0, 1))
def ast_hooks():
    """IPython's transformers of input and of syntax trees rewrite every later cell to nothing."""
    return target(
        WRONG,
        first="""
        import ast
        shell = get_ipython()
        class Nothing(ast.NodeTransformer):
            def visit_Assert(self, node): return None
            def visit_FunctionDef(self, node): return None
        shell.ast_transformers.append(Nothing())
        shell.input_transformers_cleanup.append(lambda lines: ["pass\\n"])
        shell.input_transformers_post.append(lambda lines: ["pass\\n"])
        shell.events.register("post_run_cell", lambda *given: 1 / 0)
        """,
    )


@hostile((1, 0, 1))
def trace_functions():
    """sys.settrace and sys.setprofile with functions that raise, or that loop, at every call."""
    return target(
        WRONG,
        first="""
        import sys, threading
        def trace(frame, event, given):
            if "/grader/" in frame.f_code.co_filename: raise RuntimeError("traced")
            return trace
        threading.settrace(trace); threading.setprofile(trace)
        """,
        last="sys.settrace(trace); sys.setprofile(trace)",
    )


@hostile((1, 0, 1))
def import_hooks():
    """A finder and an __import__ of its own that raise: the worker imports nothing after a cell."""
    return target(
        WRONG,
        first="""
        import builtins, sys
        def no(*given, **named): raise RuntimeError("imported")
        class Finder:
            find_spec = no
        sys.meta_path.insert(0, Finder())
        sys.path_hooks.insert(0, no)
        sys.modules.pop("inside.frames", None)
        builtins.__import__ = no
        """,
    )


@hostile((1, 0, 0))
def emptied_modules():
    """sys.modules holds empty modules in place of torch, numpy and json: the learner's own later
    answers are no tensors any more, and nothing is won."""
    return target(
        WRONG,
        first="""
        import sys, types
        for name in ("json", "struct", "numpy", "torch", "safetensors", "safetensors.numpy", "slmlab"):
            sys.modules[name] = types.ModuleType(name)
        """,
    )


@hostile((1, 1, 1))
def atexit_and_exit_hooks():
    """Functions for the end of the process write to every descriptor: it ends without asking them."""
    return honest(
        last="""
        import atexit, os, sys, threading
        def forge(*given):
            for descriptor in range(3, 64):
                try: os.write(descriptor, b"all passed")
                except OSError: pass
        atexit.register(forge)
        threading._register_atexit(forge)
        os.register_at_fork(before=forge)
        sys.exitfunc = sys.excepthook = sys.unraisablehook = forge
        """
    )


@hostile((1, 1, 1))
def interpreter_settings():
    """A recursion limit of 60, a switch interval of an hour, collector callbacks that raise."""
    return honest(
        last="""
        import gc, sys
        sys.setswitchinterval(3600)
        gc.callbacks.append(lambda *given: 1 / 0)
        gc.set_threshold(1)
        sys.setrecursionlimit(60)
        """
    )


@hostile((1, 1, 1))
def broken_output():
    """sys.stdout and sys.stderr are closed, replaced and deleted."""
    return honest(
        last="""
        import sys
        sys.stdout.close(); sys.stderr.close()
        class No:
            def __getattr__(self, name): raise RuntimeError(name)
        sys.stdout = sys.stderr = No()
        del sys.stdout
        """
    )


@hostile((1, 1, 1), flags="duplicated")
def spoils_other_exercises():
    """Registers wrong functions for the exercises around it: of several definitions the best one
    counts, and that there are several is flagged."""
    return honest(
        last="""
        import slmlab
        for name in ("quantization.absmax_int8", "quantization.unpack_repair"):
            exercise(name)(lambda **given: 0)
            slmlab.register(name, lambda **given: 0)
        """
    )


@hostile((1, 0, 0), cell="ran")
def disarms_the_stub():
    """The learner's own `exercise` is thrown away: cells after it register nothing, by their own
    doing, and nothing else happens."""
    return code("""
        import slmlab
        slmlab.register = slmlab.exercise = None
        exercise = lambda name: lambda function: function
    """)


@hostile((1, 1, 1))
def edits_what_it_is_given():
    """Changes its inputs in place: each call has a copy of its own."""
    return honest().replace("return nibbles[", "codes.zero_(); return nibbles[")


@hostile((1, 0, 1))
def keeps_the_inputs_for_later():
    """Collects all inputs and answers from what it saw before: a call at a time, each once."""
    return target("seen.append(codes)\nreturn seen[0]", first="seen = []")
