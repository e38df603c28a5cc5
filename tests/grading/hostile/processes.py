"""Ends of processes, and new ones."""

from tests.grading.hostile.attack import (
    AFTER,
    BEFORE,
    CASES,
    HEAD,
    PACK,
    code,
    honest,
    hostile,
    solved,
    target,
)


@hostile((1, 0, 1), says="SystemExit")
def sys_exit_in_the_function():
    """sys.exit() is an exception of this call; later cells run."""
    return target("import sys\nsys.exit(0)")


@hostile((1, 1, 1), cell="raised")
def sys_exit_in_the_cell():
    """sys.exit() after the definition: the cell is over, and what it defined is still asked."""
    return honest(last="import sys\nsys.exit('done')")


@hostile((1, 2 / CASES, 0), reason="ended itself")
def os_exit_after_two_answers():
    """os._exit() in the third call: two answers were returned and count, nothing after them."""
    return target(
        f"calls.append(0)\nif len(calls) > 2:\n    import os; os._exit(0)\n{PACK}",
        first="calls = []",
    )


@hostile((1, 0, 0), reason="ended itself")
def os_exit_with_status_zero():
    """A process that ends with success before its last cell has not passed anything."""
    return "import os\nos._exit(0)"


@hostile((1, 1, 1))
def kills_itself_and_everybody():
    """It is the first process of its own namespace, which its own signals do not end."""
    return honest(
        first="""
        import os, signal
        for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP):
            for who in (os.getpid(), 0, -1, 1):
                try: os.kill(who, number)
                except OSError: pass
        """
    )


@hostile((1, 0, 0), reason="SIGSEGV")
def segfault():
    """Reads address 0: the process dies, and what it had returned counts."""
    return target("import ctypes\nctypes.string_at(0)")


@hostile((1, 0, 0), reason="ended")
def abort():
    """os.abort(): the process dies, and what it had returned counts."""
    return target("import os\nos.abort()")


@hostile((1, 0, 0), reason="ended itself")
def becomes_another_program():
    """exec() of a program that ends with success in the worker's place."""
    return code("""
        import os
        os.execv("/bin/true", ["true"])
    """)


@hostile((1, 0, 1), cell="timeout", hurried=True)
def becomes_a_program_that_sleeps():
    """exec() of sleep: it answers nothing, so it is killed and its cell left out."""
    return code("""
        import os
        os.execv("/bin/sleep", ["sleep", "999"])
    """)


@hostile((1, 0, 1), cell="timeout", hurried=True)
def fork_bomb():
    """Every process forks without end: their number is limited, the rest of the class waits for
    none of them, and the cells after it still run."""
    return code("""
        import os, time
        while True:
            try: os.fork()
            except OSError: time.sleep(0.01)
    """)


@hostile((1, 0, 1))
def thread_bomb():
    """Threads without end: they count as processes, and the limit is an exception."""
    return target("""
        import threading, time
        while True:
            threading.Thread(target=time.sleep, args=(999,), daemon=True).start()
    """)


@hostile((1, 0, 0), reason="CPU|in all", hurried=True)
def children_that_burn_time():
    """Children that compute for ever, while their parent waits in one slow cell after the other."""
    burn = code("""
        import os, time
        try:
            for _ in range(8):
                if os.fork() == 0:
                    while True: pass
        except OSError: pass  # there are as many as there may be
        time.sleep(999)
    """)
    return [HEAD, solved(BEFORE), *[burn] * 30, honest(), solved(AFTER)]


DAEMON = """
    import ctypes, os, time
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            ctypes.CDLL(None).prctl(15, KNOWN["marker"].encode(), 0, 0, 0)  # its name in `ps`
            {more}
            end = time.time() + 600
            while time.time() < end:
                for folder in (KNOWN["outside"], KNOWN["out"], "/tmp", "/var/tmp", "/dev/shm"):
                    try: open(folder + "/" + KNOWN["marker"], "a").write("late")
                    except OSError: pass
                time.sleep(0.02)
        os._exit(0)
    os.wait()
"""


@hostile((1, 1, 1))
def daemon():
    """A child of a child in a session of its own, which means to outlive the grading and to write
    later: it dies with its submission."""
    return honest(first=code(DAEMON.format(more="os.closerange(0, 64)")))


@hostile((1, 1, 1))
def daemon_that_holds_the_channel():
    """The same with every descriptor kept open: the end of the answers does not wait for it."""
    return honest(first=code(DAEMON.format(more="")))


@hostile((1, 1, 1))
def forked_copy_goes_on_grading():
    """A child returns from the cell as if it were the worker: it answers nothing."""
    return honest(first="import os\nos.fork()\nos.fork()")


@hostile((1, 0, 1))
def fork_in_the_function():
    """The call returns in two processes, with a right answer in the child only."""
    return target(f"import os\nif os.fork():\n    os.wait(); return None\n{PACK}")
