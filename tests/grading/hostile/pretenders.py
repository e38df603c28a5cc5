"""Objects that pretend to be a right answer. Outputs come back as plain data, so none gains."""

from tests.grading.hostile.attack import (
    AFTER,
    BEFORE,
    HEAD,
    PACK,
    TARGET,
    code,
    hostile,
    solved,
    target,
)

NOTHING = (1, 0, 1)


@hostile(NOTHING)
def always_equal():
    """Equal to everything, close to everything, whatever is asked of it."""
    return target(
        "return Equal()",
        first="""
        class Equal:
            def __eq__(self, other): return True
            def __ne__(self, other): return False
            def __getattr__(self, name): return Equal()
            def __call__(self, *given, **named): return Equal()
            def __bool__(self): return True
            def __len__(self): return 1
            def __float__(self): return 0.0
            def __hash__(self): return 0
            def __array__(self, *given, **named): return __import__("numpy").zeros(1)
            __lt__ = __le__ = __gt__ = __ge__ = __and__ = __or__ = __sub__ = __eq__
        """,
    )


@hostile(NOTHING)
def subclassed_numbers():
    """float, int and str with comparisons of their own and a __float__ that lies."""
    return target(
        "return [Lying(1), Whole(1), Word('x')]",
        first="""
        lies = dict(__eq__=lambda a, b: True, __ne__=lambda a, b: False, __hash__=lambda a: 0,
                    __sub__=lambda a, b: 0.0, __rsub__=lambda a, b: 0.0, __float__=lambda a: 0.0)
        Lying, Whole, Word = (type(k.__name__, (k,), dict(lies)) for k in (float, int, str))
        """,
    )


@hostile(NOTHING)
def subclassed_tensor():
    """A tensor whose __torch_function__ answers every question with yes."""
    return target(
        "return torch.zeros(codes.shape, dtype=torch.uint8).as_subclass(Yes)",
        first="""
        class Yes(torch.Tensor):
            @classmethod
            def __torch_function__(cls, function, types, given=(), named=None):
                return torch.ones((), dtype=torch.bool)
            def __eq__(self, other): return True
        """,
    )


@hostile(NOTHING)
def subclassed_containers():
    """A list and a dict that show other items to each who looks."""
    return target(
        "return Many([0])",
        first="""
        class Many(list):
            def __iter__(self): return iter([torch.zeros(1)] * 3)
            def __len__(self): return 10**18
            def __getitem__(self, at): return self
            def __eq__(self, other): return True
        """,
    )


@hostile(NOTHING)
def tensor_with_attributes_of_its_own():
    """detach, to, numpy and shape of one tensor are replaced on the object."""
    return target("""
        answer = torch.zeros(1, dtype=torch.uint8)
        for name in ("detach", "to", "numpy", "to_dense", "contiguous", "tolist", "clone", "equal"):
            setattr(answer, name, lambda *given, **named: True)
        return answer
    """)


@hostile(NOTHING)
def claims_another_class():
    """__class__ says torch.Tensor; a metaclass says that it is an instance of everything."""
    return target(
        "return Claimed()",
        first="""
        class Meta(type):
            def __instancecheck__(cls, thing): return True
            def __subclasscheck__(cls, other): return True
            def __eq__(cls, other): return True
            __hash__ = type.__hash__
        class Claimed(metaclass=Meta):
            __class__ = property(lambda self: torch.Tensor)
            shape, dtype, layout = (1, 1), torch.uint8, torch.strided
            def __getattr__(self, name): return lambda *given, **named: self
        """,
    )


@hostile(NOTHING)
def object_array():
    """A numpy array of objects that are equal to everything."""
    return target("""
        import numpy
        class Equal:
            def __eq__(self, other): return True
        answer = numpy.empty(codes.shape, dtype=object)
        answer[:] = Equal()
        return answer
    """)


@hostile((0, 1, 1), says="")
def not_a_number():
    """NaN where numbers are meant: it is no right answer, in either sense of "close"."""
    nan = code(f"""
        @exercise("{BEFORE}")
        def absmax_int8(w):
            return torch.zeros(w.shape, dtype=torch.int8), torch.full((len(w),), math.nan)
    """)
    return [HEAD, nan, solved(TARGET), solved(AFTER)]


@hostile((0, 1, 1))
def infinity_and_empty():
    """Infinities, and tensors of no elements, for which "all are equal" is true."""
    empty = code(f"""
        @exercise("{BEFORE}")
        def absmax_int8(w):
            return torch.zeros(0, dtype=torch.int8), torch.full((len(w),), math.inf)
    """)
    return [HEAD, empty, solved(TARGET), solved(AFTER)]


@hostile(NOTHING)
def answer_that_changes_later():
    """The answer is shared with a thread that goes on writing right and wrong values to it."""
    return target(
        "answer = work(codes)\nthreading.Thread(target=spoil, args=(answer,), daemon=True).start()\nreturn answer * 0 - 1",
        first="import threading\ndef work(codes):\n"
        + "\n".join("    " + line for line in PACK.splitlines())
        + "\ndef spoil(answer):\n    for _ in range(1000): answer.random_()",
    )


@hostile(NOTHING)
def function_that_is_none():
    """What is registered is a class, an object with __call__, a number."""
    return code("""
        class Called:
            __signature__ = property(lambda self: 1 / 0)
            __name__ = property(lambda self: 1 / 0)
            def __call__(self, **given): return True
            def __getattr__(self, name): raise RuntimeError(name)
        exercise("quantization.pack_int4")(Called)
        exercise("quantization.pack_int4")(Called())
        exercise("quantization.pack_int4")(7)
        exercise(Called())(Called())
        exercise(None, 1, two=2)(None)
    """)


@hostile(NOTHING)
def ends_the_process_when_it_is_looked_at():
    """A dict whose every method ends the process: it is copied without asking any of them."""
    return target(
        "return Trap()",
        first="""
        import os
        class Trap(dict):
            def items(self): os._exit(0)
            keys = values = __iter__ = __len__ = __getattribute__ = items
        """,
    )
