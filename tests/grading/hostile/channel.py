"""Forged messages on the channel that the answers go through."""

from tests.grading.hostile.attack import AFTER, BEFORE, TARGET, code, honest, hostile, target

# Finds the pipe, and speaks the worker's own language.
SPEAK = """
    import os, stat, sys
    def pipes():
        for descriptor in range(3, 256):
            try: mode = os.fstat(descriptor).st_mode
            except OSError: continue
            if stat.S_ISFIFO(mode): yield descriptor
    from inside import frames, messages
    import inside.answering.execution as execution
    words = messages.Messages(execution)
    def say(content):
        for descriptor in pipes(): frames.send(descriptor, content)
"""


def speaking(more: str) -> str:
    """The tools above, then `more`."""
    return code(SPEAK) + "\n" + code(more)


@hostile((1, 0, 0), reason="no answer|more than")
def garbage_to_every_descriptor():
    """Bytes that mean nothing end the submission; what came before counts."""
    return (
        code("""
        import os
        for descriptor in range(3, 256):
            try: os.write(descriptor, b"{'outcome': 'passed', 'points': 1000}" * 50)
            except OSError: pass
    """)
        + "\n"
        + honest()
    )


@hostile((1, 0, 0), reason="more than")
def giant_length():
    """A message that says it is four gigabytes long: nobody waits for it, or makes room for it."""
    return (
        speaking("for pipe in pipes(): os.write(pipe, bytes([255] * 4) + b'x')") + "\n" + honest()
    )


@hostile((1, 0, 0), reason="no answer")
def forged_outcome():
    """Messages that say "passed": there is no such message."""
    return (
        speaking(f"""
        for told in ({{"answer": "{TARGET}", "outcome": "passed"}}, {{"points": 1000}}):
            say(words.codec.encode(told))
    """)
        + "\n"
        + honest()
    )


@hostile((1, 0, 1))
def forged_answers_of_its_own_cell():
    """Answers in the worker's own words, before its own: they hold what the learner knows, nothing."""
    return speaking(f"""
        wrong = execution.Execution(output=torch.zeros(1, 1, dtype=torch.uint8))
        for case in range(7): say(words.answer("{TARGET}", 2, case, wrong))
    """)


@hostile((1, 0, 1), flags="duplicated")
def forged_answers_of_other_exercises():
    """The same for the exercises before and after: forged answers are definitions like others, and
    the best one counts."""
    return speaking(f"""
        wrong = execution.Execution(output=7)
        for name, cases in (("{BEFORE}", 5), ("{AFTER}", 6)):
            for case in range(cases): say(words.answer(name, 2, case, wrong))
    """)


@hostile((1, 0, 0), reason="no answer")
def forged_answers_of_other_cells():
    """Answers in the name of a cell that is not running."""
    return speaking(f"say(words.answer('{AFTER}', 3, 0, execution.Execution(output=7)))")


@hostile((1, 0, 0), reason="no answer")
def answers_to_what_was_not_asked():
    """An exercise that nobody asked for, and a case beyond the last."""
    return speaking(f"say(words.answer('{TARGET}', 2, 10**6, execution.Execution(output=7)))")


@hostile((1, 0, 0), reason="no answer")
def forged_end_of_the_run():
    """Says that all cells have run, then goes on as before."""
    return speaking("""
        say(words.end(2, "ran", "", "", 0.1))
        say(words.start(3))
        say(words.end(3, "ran", "", "", 0.1))
    """)


@hostile((1, 0, 0))
def forged_end_then_exit():
    """Says that all cells have run and ends the process with success. The story holds together, so
    the row is "graded"; but no answer was given after it, and none counts."""
    return speaking("""
        say(words.end(2, "ran", "", "", 0.1))
        say(words.start(3))
        say(words.end(3, "ran", "", "", 0.1))
        os._exit(0)
    """)


@hostile((1, 0, 0), reason="no answer|more than")
def flood_of_messages():
    """Small messages without end: their number is limited."""
    return speaking("""
        content = words.answer("quantization.pack_int4", 2, 0, execution.Execution(output=0))
        pipe = next(pipes())
        while True: frames.send(pipe, content)
    """)


@hostile((1, 0, 0), reason="no answer")
def child_that_forges_during_later_cells():
    """A child keeps the channel and writes into it while an honest cell is answered."""
    return speaking("""
        import time
        if os.fork() == 0:
            while True: say(b"forged"); time.sleep(0.001)
        time.sleep(0.3)
    """)


@hostile((1, 0, 1), finds=["pipe"])
def descriptors_of_the_server():
    """Which descriptors it holds: its pipe for answers, and neither the request's nor the server's."""
    return code("""
        import os, stat
        kinds = []
        for descriptor in range(3, 256):
            try: mode = os.fstat(descriptor).st_mode
            except OSError: continue
            kinds.append("pipe" if stat.S_ISFIFO(mode) else "socket" if stat.S_ISSOCK(mode) else "other")
        print(json.dumps(kinds))
    """)


@hostile((1, 0, 1))
def deep_answer():
    """An answer nested a thousand deep in the worker's own language."""
    return target("""
        value = 0
        for _ in range(1000): value = [value]
        return value
    """)
