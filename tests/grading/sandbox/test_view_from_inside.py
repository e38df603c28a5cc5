"""What a submission can see and reach, asked from inside."""

from __future__ import annotations

import os
from pathlib import Path

import slmlab
from slmlab.grading.records import Limits
from slmlab.grading.sandbox import Sandbox
from slmlab.grading.sandbox.bubblewrap import NOBODY
from slmlab.grading.sandbox.session import FIRST_UID
from tests.grading.sandbox.asking import ask, run
from tests.grading.sandbox.conftest import LIMITS, opened

REPOSITORY = Path(slmlab.__file__).parent.parent

REFUSED = """
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    machine = os.uname().machine
    column = ("x86_64", "aarch64").index(machine)
    numbers = {
        "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39),
        "ptrace": (101, 117), "process_vm_readv": (310, 270), "keyctl": (250, 219), "bpf": (321, 280),
        "perf_event_open": (298, 241), "userfaultfd": (323, 282), "shmget": (29, 194),
        "clone3": (435, 435), "io_uring_setup": (425, 425), "memfd_create": (319, 279),
    }
    found = {}
    for name, pair in numbers.items():
        ctypes.set_errno(0)
        result = libc.syscall(pair[column], ctypes.c_ulong(0x10000000), 0, 0, 0, 0)
        found[name] = errno.errorcode.get(ctypes.get_errno()) if result == -1 else result
    clone = (56, 220)[column]
    result = libc.syscall(clone, ctypes.c_ulong(0x10000000 | 17), 0, 0, 0, 0)
    if result == 0:
        os._exit(0)
    found["clone"] = errno.errorcode.get(ctypes.get_errno()) if result == -1 else result
    print(json.dumps(found))
"""


IDENTITY = """
    import ctypes, struct
    libc = ctypes.CDLL(None)
    header, sets = struct.pack("=Ii", 0x20080522, 0), ctypes.create_string_buffer(24)
    assert libc.capget(header, sets) == 0
    bounding = [number for number in range(41) if libc.prctl(23, ctypes.c_ulong(number), 0, 0, 0) == 1]
    print(json.dumps({
        "capabilities": list(struct.unpack("=6I", sets.raw)), "bounding": bounding,
        "no_new_privs": libc.prctl(39, 0, 0, 0, 0), "seccomp": libc.prctl(21, 0, 0, 0, 0),
        "users": [*os.getresuid(), *os.getresgid()], "groups": os.getgroups(),
    }))
"""


def test_it_is_nobody_with_no_capability_and_a_filter(sandbox: Sandbox) -> None:
    found = ask(sandbox, IDENTITY)
    assert found["capabilities"] == [0] * 6
    assert found["bounding"] == []
    assert (found["no_new_privs"], found["seccomp"]) == (1, 2)
    (user,) = set(found["users"])
    if sandbox.description["user_namespace"]:
        assert user == NOBODY
    else:
        assert user >= FIRST_UID
        assert found["groups"] == []


def test_it_is_alone(sandbox: Sandbox) -> None:
    # The server that it was forked from has no number here, so nothing can be asked of it.
    mine, parent, seen, killed = ask(
        sandbox,
        """
        seen = sorted(name for name in os.listdir("/proc") if name.isdigit())
        killed = []
        for number in range(2, 2000):
            try:
                os.kill(number, 9)
                killed.append(number)
            except ProcessLookupError:
                pass
        print(json.dumps([os.getpid(), os.getppid(), seen, killed]))
        """,
    )
    assert (mine, parent, killed) == (1, 0, [])
    assert seen in (["1"], [])  # none where the kernel refuses a fresh /proc


def test_no_descriptor_is_left_but_its_own_pipe(sandbox: Sandbox) -> None:
    kinds = ask(
        sandbox,
        """
        import stat
        nothing = os.stat("/dev/null")
        kinds = []
        for number in range(1024):
            try:
                found = os.fstat(number)
            except OSError:
                continue
            same = (found.st_dev, found.st_ino) == (nothing.st_dev, nothing.st_ino)
            kinds.append("null" if same else "pipe" if stat.S_ISFIFO(found.st_mode) else "other")
        print(json.dumps(kinds))
        """,
    )
    assert sorted(kinds) == ["null"] * 3 + ["pipe"]


def test_environment_holds_nothing_of_the_grader(monkeypatch) -> None:
    monkeypatch.setenv("SLMLAB_SECRET", "42")
    code = """
        start = open("/proc/self/environ").read() if os.path.exists("/proc/self/environ") else ""
        print(json.dumps(sorted({*os.environ, *(e.partition("=")[0] for e in start.split("\\0") if e)})))
    """
    with opened() as started_with_the_secret:
        names = ask(started_with_the_secret, code)
    assert set(names) <= {
        "HOME", "LANG", "PATH", "PWD", "USER", "PYTHONHASHSEED",
        "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
    }  # fmt: skip


def test_no_network(sandbox: Sandbox) -> None:
    found = ask(
        sandbox,
        """
        import socket
        found = {}
        for name in ("AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET", "AF_VSOCK"):
            try:
                socket.socket(getattr(socket, name), socket.SOCK_DGRAM)
                found[name] = "open"
            except OSError as error:
                found[name] = errno.errorcode[error.errno]
        a, b = socket.socketpair()
        a.send(b"local"); found["pair"] = b.recv(9).decode()
        print(json.dumps(found))
        """,
    )
    assert found.pop("pair") == "local"
    assert set(found.values()) == {"EPERM"}


def test_system_calls_are_refused(sandbox: Sandbox) -> None:
    found = ask(sandbox, REFUSED)
    unknown = {name for name, error in found.items() if error == "ENOSYS"}
    assert unknown == {"clone3", "io_uring_setup", "memfd_create"}
    assert {error for name, error in found.items() if name not in unknown} == {"EPERM"}


def test_files_of_the_host_are_not_there(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "other_student.ipynb").write_text("secret")
    paths = [str(tmp_path), str(REPOSITORY / "slmlab"), str(REPOSITORY / "solutions"), "/home",
             "/etc/passwd", "/etc/shadow", "/var", "/sys", "/run", os.path.expanduser("~/.ssh")]  # fmt: skip
    found = ask(sandbox, f"print(json.dumps([p for p in {paths!r} if os.path.exists(p)]))")
    assert found == []


def test_no_reference_anywhere(usual: Sandbox) -> None:
    """Walks all that is visible: slmlab is the stub, and nothing else of ours is there."""
    found, ours, entries = ask(
        usual,
        """
        found, ours, entries = [], [], 0
        for folder, folders, files in os.walk("/"):
            if folder == "/":
                folders.remove("proc")
            entries += len(files)
            for name in folders + files:
                if "slmlab" in name.lower() or name.endswith(".ipynb"):
                    found.append(os.path.join(folder, name))
            if folder.startswith("/grader"):
                ours += [os.path.join(folder, name) for name in files]
        print(json.dumps([found, sorted(ours), entries]))
        """,
        limits=Limits(cell_seconds=60, tmp_mb=4),
    )
    assert entries > 1000  # the walk has walked
    assert found == ["/grader/inside/stub/slmlab"]
    expected = {path.name for path in (REPOSITORY / "slmlab/grading/inside").glob("*.py")}
    assert {path for path in ours if path.count("/") == 3} == {
        f"/grader/inside/{n}" for n in expected
    }
    answering = {path.rpartition("/")[2] for path in ours if "/answering/" in path}
    assert answering == {"execution.py", "values.py", "failure.py", "comparison.py"}


def test_python_packages_are_the_allowed_ones(sandbox: Sandbox) -> None:
    found = ask(
        sandbox,
        """
        import importlib.util
        names = ("transformers", "pytest", "slmlab.lessons", "matplotlib", "numpy", "torch",
                 "safetensors", "IPython")
        def there(name):
            try:
                return importlib.util.find_spec(name) is not None
            except ModuleNotFoundError:
                return False
        print(json.dumps([name for name in names if there(name)]))
        """,
    )
    assert found == ["numpy", "torch", "safetensors", "IPython"]


def test_nothing_is_writable_but_tmp(sandbox: Sandbox) -> None:
    written, could = ask(
        sandbox,
        """
        written, could = [], []
        for folder, folders, files in os.walk("/"):
            if folder == "/":
                folders.remove("proc")
                folders.remove("tmp")
            if os.access(folder, os.W_OK):
                could.append(folder)
        for folder in ("/", "/dev", "/dev/shm", "/grader", "/site", "/usr/lib", "/etc", "/proc", *could):
            try:
                open(folder + "/mine", "w").close()
                written.append(folder)
            except OSError:
                pass
        print(json.dumps([written, could]))
        """,
        limits=Limits(cell_seconds=60, tmp_mb=4),
    )
    assert written == []
    assert set(could) <= {"/dev/pts"}  # its mode says so; devpts makes no files


def test_tmp_is_private_and_capped(sandbox: Sandbox) -> None:
    fill = """
        total, stopped = 0, None
        try:
            for number in range(100):
                with open(f"/tmp/{number}", "wb") as file:
                    total += file.write(bytes(1 << 20))
        except OSError as error:
            stopped = errno.errorcode[error.errno]
        print(json.dumps([os.getcwd(), total, stopped]))
    """
    where, total, stopped = ask(sandbox, fill)
    assert (where, stopped) == ("/tmp", "ENOSPC")
    assert 3 << 20 <= total <= LIMITS.tmp_mb << 20
    assert ask(sandbox, "print(json.dumps(os.listdir('/tmp')))") == []


def test_many_small_files_are_capped_too(sandbox: Sandbox) -> None:
    code = """
        made = 0
        try:
            while made < 100_000:
                os.mkdir(f"/tmp/{made}")
                made += 1
        except OSError as error:
            print(json.dumps([made, errno.errorcode[error.errno]]))
    """
    made, stopped = ask(sandbox, code)
    assert (stopped, made <= 2048) == ("ENOSPC", True)


def test_one_big_file_is_refused(sandbox: Sandbox) -> None:
    code = """
        try:
            with open("/tmp/big", "wb") as file:
                file.truncate(1 << 40)
        except OSError as error:
            print(json.dumps(errno.errorcode[error.errno]))
    """
    assert ask(sandbox, code) == "EFBIG"


def test_calls_of_the_second_abi_end_the_process(sandbox: Sandbox) -> None:
    if os.uname().machine != "x86_64":
        return
    code = "import ctypes\nctypes.CDLL(None).syscall(0x40000000 | 39)"
    transcript = run(sandbox, "x = 1", code)
    assert transcript.ended == "exited"
    assert "SIGSYS" in transcript.reason
    assert [cell.cell for cell in transcript.cells] == [0]


def test_what_a_cell_left_running_ends_with_it(sandbox: Sandbox) -> None:
    transcript = run(
        sandbox,
        "import os, time\nchild = os.fork()\nif child == 0:\n    time.sleep(60)",
        "print(os.waitpid(child, 0)[1])",
    )
    assert transcript.ended == "finished" and transcript.cells[1].printed == "9\n"
