"""Code that does not end by itself."""

from tests.grading.hostile.attack import (
    AFTER,
    BEFORE,
    CASES,
    HEAD,
    code,
    honest,
    hostile,
    solved,
    target,
)

KEEPS_AROUND = (1, 0, 1)


@hostile(KEEPS_AROUND, cell="timeout", says="did not end within", hurried=True)
def loop_without_end():
    """The function never returns. Its cell is skipped at its time; the others keep their points."""
    return target("while True: pass")


@hostile(KEEPS_AROUND, cell="timeout", hurried=True)
def loop_outside_of_any_function():
    """The cell loops before it defines anything, so the exercise has no answer."""
    return "while True: pass\n" + honest()


@hostile(KEEPS_AROUND, cell="timeout", hurried=True)
def loop_in_c():
    """max() over an endless iterator never comes back to Python, so no signal is seen: the process
    is killed and the submission is run again without the cell."""
    return target("import itertools\nreturn max(itertools.repeat(0))")


@hostile(KEEPS_AROUND, cell="timeout", hurried=True)
def blocked_signals():
    """Every signal is blocked, then it loops: only a kill from outside ends it."""
    return code("""
        import signal
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
        while True: pass
    """)


@hostile(KEEPS_AROUND, cell="timeout", hurried=True)
def swallowed_timeout():
    """Catches whatever is raised to end it, again and again."""
    return target("""
        while True:
            try:
                while True: pass
            except BaseException:
                pass
    """)


@hostile(KEEPS_AROUND, cell="timeout", hurried=True)
def ignored_alarm():
    """The alarm's signal is ignored."""
    return target("import signal\nsignal.signal(signal.SIGALRM, signal.SIG_IGN)\nwhile True: pass")


@hostile(KEEPS_AROUND, cell="timeout", hurried=True)
def cancelled_timer():
    """The timer behind the alarm is cancelled, then it sleeps."""
    return target("import signal, time\nsignal.setitimer(signal.ITIMER_REAL, 0)\ntime.sleep(999)")


@hostile((1, 0, 0), reason="for more than", hurried=True)
def stubborn_cells():
    """Many cells that have to be killed: the time of the whole submission ends it. What was
    answered before counts, what would come after was never reached."""
    stubborn = "import itertools\nmax(itertools.repeat(0))"
    return [HEAD, solved(BEFORE), *[stubborn] * 30, honest(), solved(AFTER)]


@hostile((1, 2 / CASES, 1), cell="timeout", says="2 of 7", hurried=True)
def answers_twice_then_sleeps():
    """Two cases are answered, the third never: the two count."""
    return target(
        "calls.append(0)\nif len(calls) > 2:\n    import time; time.sleep(999)\n"
        + honest().partition("codes):\n")[2].replace("\n    ", "\n").removeprefix("    "),
        first="calls = []",
    )


@hostile(KEEPS_AROUND, says="RecursionError")
def recursion():
    """Calls itself without end: an exception like any other."""
    return target("return pack_int4(codes)")


@hostile(KEEPS_AROUND)
def generator_without_end():
    """Returns a generator that never ends; it is no answer, and nobody asks it for items."""
    return target("def forever():\n    while True: yield codes\nreturn forever()")


@hostile((1, 1, 1))
def hangs_on_exit():
    """An atexit function, a __del__ and a thread that sleep when the process ends: nobody waits."""
    return honest(
        first="""
        import atexit, threading, time
        atexit.register(time.sleep, 999)
        class Sleeper:
            def __del__(self): time.sleep(999)
        sleeper = Sleeper()
        threading.Thread(target=time.sleep, args=(999,), daemon=False).start()
        """
    )


@hostile(KEEPS_AROUND, says="raised an exception", hurried=True)
def exception_that_hangs_when_it_is_shown():
    """The exception's __str__ sleeps, and so does its __repr__: the clock of the cell is still on."""
    return (
        code("""
        import time
        class Slow(Exception):
            def __str__(self): time.sleep(999)
            __repr__ = __str__
        raise Slow
    """)
        + "\n"
        + honest()
    )
