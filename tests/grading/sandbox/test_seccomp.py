"""The filter, read by a small interpreter of BPF and compared with the kernel's own headers."""

from __future__ import annotations

import errno
import re
import struct
from pathlib import Path

import pytest

from slmlab.grading.inside import seccomp

HEADERS = {
    "x86_64": ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h"),
    "aarch64": ("/usr/include/asm-generic/unistd.h",),
}
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000


def verdict(machine: str, number: int, first: int = 0, architecture: int | None = None) -> int:
    """What the kernel would answer to this call."""
    data = struct.pack(
        "=IIQQ", number, architecture or seccomp.ARCHITECTURES[machine], 0, first
    ) + bytes(40)
    steps = list(struct.iter_unpack("=HBBI", seccomp.program(machine)))
    place, register = 0, 0
    while True:
        code, if_true, if_false, value = steps[place]
        place += 1
        if code == 0x20:
            (register,) = struct.unpack_from("=I", data, value)
        elif code == 0x06:
            return value
        else:
            passed = {0x15: register == value, 0x35: register >= value, 0x45: register & value}[
                code
            ]
            place += if_true if passed else if_false


@pytest.mark.parametrize("machine", seccomp.ARCHITECTURES)
def test_every_listed_call_is_refused_and_no_other(machine: str) -> None:
    column = list(seccomp.ARCHITECTURES).index(machine)
    refused = {pair[column] for pair in seccomp.REFUSED.values()} - {None}
    unknown = {pair[column] for pair in seccomp.UNKNOWN.values()}
    assert not refused & unknown
    special = {seccomp.CLONE[column], seccomp.SOCKET[column]}
    for number in range(600):
        wanted = ALLOW
        if number in refused:
            wanted = ERRNO | errno.EPERM
        elif number in unknown:
            wanted = ERRNO | errno.ENOSYS
        elif number in special:
            continue
        assert verdict(machine, number) == wanted, number


@pytest.mark.parametrize("machine", seccomp.ARCHITECTURES)
def test_arguments_of_clone_and_socket(machine: str) -> None:
    column = list(seccomp.ARCHITECTURES).index(machine)
    refuse = ERRNO | errno.EPERM
    thread = 0x3D0F00  # what pthread_create passes
    assert verdict(machine, seccomp.CLONE[column], thread) == ALLOW
    for bit in (17, 25, 26, 27, 28, 29, 30):  # CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID, NET
        assert verdict(machine, seccomp.CLONE[column], thread | 1 << bit) == refuse
    for family in range(50):
        wanted = ALLOW if family == 1 else refuse
        assert verdict(machine, seccomp.SOCKET[column], family) == wanted
        # An int is passed: the upper half of the register has no meaning.
        assert verdict(machine, seccomp.SOCKET[column], family | 1 << 40) == wanted


def test_other_abis_end_the_process() -> None:
    i386, arm = 0x40000003, 0x40000028
    assert verdict("x86_64", 1, architecture=i386) == KILL
    assert verdict("aarch64", 1, architecture=arm) == KILL
    assert verdict("x86_64", 1 | 0x40000000) == KILL
    with pytest.raises(ValueError, match="not for riscv64"):
        seccomp.program("riscv64")


@pytest.mark.parametrize("machine", seccomp.ARCHITECTURES)
def test_numbers_are_the_kernels(machine: str) -> None:
    header = next((Path(path) for path in HEADERS[machine] if Path(path).exists()), None)
    if header is None:
        pytest.skip("the kernel's headers are not installed")
    defined = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)$", header.read_text(), re.M)
    numbers = {name: int(number) for name, number in defined}
    column = list(seccomp.ARCHITECTURES).index(machine)
    table = {**seccomp.REFUSED, **seccomp.UNKNOWN, "clone": seccomp.CLONE, "socket": seccomp.SOCKET}
    known = {name: pair[column] for name, pair in table.items() if name in numbers}
    assert len(known) > 50
    assert known == {name: numbers[name] for name in known}
