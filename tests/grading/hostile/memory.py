"""Memory, disk, descriptors, output: without limit."""

from tests.grading.hostile.attack import code, honest, hostile, target


@hostile((1, 0, 1), says="MemoryError")
def memory_bomb():
    """One process takes memory without end: an exception, and later cells run."""
    return target("""
        held = []
        while True:
            held.append(bytearray(b"1") * (64 << 20))
    """)


@hostile((1, 0, 1), says="MemoryError")
def memory_bomb_that_holds_on():
    """The exception holds what was taken, in a cycle: it is collected before later cells run."""
    return target("""
        held = []
        try:
            while True:
                held.append(bytearray(b"1") * (64 << 20))
        except MemoryError as error:
            held.append(error)
            kept = error
            raise
    """)


@hostile((1, 0, 0), reason="memory")
def memory_bomb_of_many_processes():
    """Each child stays below the limit of one process; together they do not."""
    return code("""
        import os, time
        for _ in range(16):
            if os.fork() == 0:
                held = bytearray(b"1") * (KNOWN["memory_mb"] * 2**20 // 4)
                time.sleep(999)
        time.sleep(999)
    """)


@hostile((1, 0, 1), says="OSError")
def fills_tmp():
    """Writes to /tmp without end: it is capped, and gone with its submission."""
    return target("""
        number = 0
        while True:
            number += 1
            open(f"/tmp/{number}", "wb").write(bytes(1 << 20))
    """)


@hostile((1, 1, 1), finds=[])
def fills_every_disk():
    """Looks for any other folder that takes a file: there is none."""
    return honest(
        last="""
        import os
        took = []
        for folder, folders, files in os.walk("/"):
            if folder == "/":
                folders[:] = [name for name in folders if name not in ("proc", "tmp", "usr", "site")]
            for name in ("mine", ".mine"):
                try:
                    open(os.path.join(folder, name), "wb").write(bytes(100))
                    took.append(folder)
                except OSError: pass
        print(json.dumps(took))
        """
    )


@hostile((1, 1, 1), finds=[])
def shared_memory():
    """Memory that belongs to no process: /dev/shm, System V, memfd, POSIX queues."""
    return honest(
        last="""
        import ctypes, os
        libc, took = ctypes.CDLL(None, use_errno=True), []
        for name in ("shm", "shm/x", "mqueue/x"):
            try: open(f"/dev/{name}", "wb").close(); took.append(name)
            except OSError: pass
        if libc.shmget(0, 1 << 20, 0o1600) >= 0: took.append("shmget")
        if libc.msgget(0, 0o1600) >= 0: took.append("msgget")
        if libc.shm_open(b"/x", 0o102, 0o600) >= 0: took.append("shm_open")
        try: os.memfd_create("x"); took.append("memfd")
        except OSError: pass
        print(json.dumps(took))
        """
    )


@hostile((1, 0, 1), says="OSError")
def sparse_file():
    """A file of a terabyte that holds nothing."""
    return target("open('/tmp/big', 'wb').truncate(1 << 40)")


@hostile((1, 0, 1), says="Too many open files")
def exhausts_descriptors():
    """Opens files and keeps them: the limit is an exception, and later cells need none."""
    return target("while True: held.append(open('/dev/null'))", first="held = []")


@hostile((1, 0, 0), reason="ended")
def closes_every_descriptor():
    """Also the one that its answers go through: then there are none."""
    return "import os\nos.closerange(0, 1024)"


@hostile((1, 0, 1), cell="timeout", hurried=True)
def endless_print():
    """Prints without end: the first characters are kept, and the clock ends it."""
    return target("while True: print('x' * 10_000)")


@hostile((1, 1, 1))
def giant_print():
    """One print of 50 million characters: the first are kept."""
    return honest(last="print('y' * 50_000_000)")


@hostile((1, 1, 1))
def raw_output():
    """Megabytes to the standard output and error past Python: they go nowhere."""
    return honest(
        last="""
        import os
        for descriptor in (0, 1, 2):
            for _ in range(200):
                try: os.write(descriptor, bytes(1 << 20))
                except OSError: break
        """
    )


@hostile((1, 0, 1))
def giant_answer():
    """A real tensor that is larger than all that may be sent back."""
    return target("return torch.zeros(KNOWN['memory_mb'] * 2**20 // 4, dtype=torch.uint8)")


@hostile((1, 0, 1))
def giant_tensor():
    """A tensor of a terabyte: torch refuses it."""
    return target("return torch.zeros(2**40, dtype=torch.uint8)")


@hostile((1, 0, 1))
def expanded_tensor():
    """2**40 elements that are one element in memory: nobody writes them out."""
    return target("return torch.zeros(1, dtype=torch.uint8).expand(2**20, 2**20)")


@hostile((1, 0, 1))
def sparse_tensor():
    """2**40 elements of which none is stored."""
    return target("""
        none = torch.empty(2, 0, dtype=torch.int64)
        return torch.sparse_coo_tensor(none, torch.empty(0), size=(2**20, 2**20))
    """)


@hostile((1, 0, 1))
def meta_tensor():
    """A tensor without numbers."""
    return target("return torch.empty(2**20, 2**20, device='meta')")


@hostile((1, 0, 1))
def giant_integer():
    """An integer of ten million bits: quadratic time to write in decimal."""
    return target("return 1 << 10_000_000")


@hostile((1, 0, 1))
def million_items():
    """A list of a million lists."""
    return target("return [[] for _ in range(1_000_000)]")


@hostile((1, 0, 1))
def deep_list():
    """A list in a list, a hundred thousand deep."""
    return target("""
        value = []
        for _ in range(100_000): value = [value]
        return value
    """)


@hostile((1, 0, 1))
def list_that_holds_itself():
    """A list and a dict that hold themselves."""
    return target("value = []\nvalue.append({'me': value})\nreturn value")


@hostile((1, 1, 1))
def lowers_its_own_limits():
    """Sets its resource limits to nothing; what is left of the notebook has to live with that."""
    return honest(
        last="""
        import resource
        for name in ("NOFILE", "NPROC", "FSIZE", "CORE", "STACK"):
            which = getattr(resource, f"RLIMIT_{name}")
            resource.setrlimit(which, (0 if name != "STACK" else 1 << 20, resource.getrlimit(which)[1]))
        """
    )


@hostile((1, 1, 1), finds=[])
def raises_its_limits():
    """Tries to raise its resource limits: a process without privileges cannot."""
    return honest(
        last="""
        import resource
        raised = []
        for name in ("AS", "CPU", "NPROC", "NOFILE", "FSIZE"):
            which = getattr(resource, f"RLIMIT_{name}")
            for wanted in (resource.RLIM_INFINITY, resource.getrlimit(which)[1] + 1):
                try:
                    resource.setrlimit(which, (wanted, wanted))
                    raised.append(name)
                except (OSError, ValueError): pass
        print(json.dumps(raised))
        """
    )
