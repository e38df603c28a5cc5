"""`python confined.py CORE BYTES PROGRAM ARGUMENT...`: run PROGRAM with one core and little memory.

RLIMIT_DATA counts the private writable memory of each process by itself, children included; no
cgroup is needed, which a container in CI cannot make. RLIMIT_AS would count torch's libraries too.
"""

import ctypes
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    limit = int(sys.argv[2])
    os.sched_setaffinity(0, {int(sys.argv[1])})
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    # A test run that is killed cannot stop its server: the kernel tells the server instead.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    os.execv(sys.argv[3], sys.argv[3:])
