"""Ways out of the sandbox: the network, other folders, new namespaces, other users.

As in looking.py, a cell prints what it reached as JSON, and the right thing is nothing.
"""

from tests.grading.hostile.attack import honest, hostile


@hostile((1, 1, 1), finds=[])
def network():
    """TCP, UDP, IPv6, raw and netlink sockets, a name server, and the host's unix sockets."""
    return honest(
        last="""
        import socket
        reached = []
        def attempt(name, action):
            try: action(); reached.append(name)
            except (OSError, ValueError): pass
        def udp():
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            s.sendto(b"x", ("127.0.0.1", KNOWN["udp"]))
        def unix(address):
            s = socket.socket(socket.AF_UNIX)
            s.connect(address)
        for host in ("127.0.0.1", "localhost", "::1", "10.0.2.2", "host.docker.internal"):
            attempt(host, lambda: socket.create_connection((host, KNOWN["tcp"]), timeout=0.3))
        attempt("udp", udp)
        attempt("dns", lambda: socket.getaddrinfo("example.org", 80))
        attempt("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
        attempt("packet", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
        attempt("netlink", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))
        attempt("abstract", lambda: unix("\\0" + KNOWN["abstract"]))
        attempt("path", lambda: unix(KNOWN["unix"]))
        print(json.dumps(reached))
        """
    )


@hostile((1, 1, 1), finds=[])
def writes_outside_of_tmp():
    """Writes to the host's canary, the results, the package and the system, also through links."""
    return honest(
        last="""
        import os
        wrote = []
        for path in (KNOWN["canary"], KNOWN["out"] + "/grades.csv", KNOWN["victim"], "/etc/passwd",
                     "/grader/inside/worker.py", "/site/torch/__init__.py", "/usr/bin/python3",
                     "/grader/inside/stub/slmlab/__init__.py", "/proc/sys/kernel/core_pattern",
                     "/proc/1/oom_score_adj", "/dev/mem", "/dev/kmsg", "/sys/kernel/x"):
            for how in ("r+b", "ab"):
                try: open(path, how).write(b"mine"); wrote.append(path)
                except OSError: pass
            try:
                os.symlink(path, "/tmp/link")
                open("/tmp/link", "wb").write(b"mine"); wrote.append("by a link: " + path)
            except OSError: pass
            finally: os.path.lexists("/tmp/link") and os.unlink("/tmp/link")
            try: os.link(path, "/tmp/hard"); wrote.append("hard link: " + path)
            except OSError: pass
        try: os.mknod("/tmp/disk", 0o60600, os.makedev(8, 0)); wrote.append("a device")
        except OSError: pass
        print(json.dumps(wrote))
        """
    )


@hostile((1, 1, 1), finds=[])
def new_namespaces():
    """A user namespace of its own would give it all capabilities: refused, by every call."""
    return honest(
        last="""
        import ctypes, os, subprocess
        libc, got = ctypes.CDLL(None, use_errno=True), []
        for flag in (0x10000000, 0x00020000, 0x40000000, 0x20000000):
            if libc.unshare(flag) == 0: got.append(f"unshare {flag:x}")
        child = libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0)
        if child == 0: os._exit(0)
        if child > 0: got.append("clone")
        if libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0: got.append("mount")
        if libc.chroot(b"/tmp") == 0: got.append("chroot")
        for command in (["su", "-c", "id"], ["unshare", "-U", "true"], ["mount"], ["bwrap", "--ro-bind", "/", "/", "true"]):
            try: answer = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL)
            except OSError: continue
            if answer.returncode == 0 and command[0] != "mount": got.append(command[0])
        for who in (0, 1000):
            try: os.setuid(who); got.append(f"setuid {who}")
            except OSError: pass
        print(json.dumps(got))
        """
    )


@hostile((1, 1, 1))
def deletes_tmp():
    """Deletes /tmp and all in it, and leaves for another folder; later cells run all the same."""
    return honest(
        last="""
        import os, shutil
        shutil.rmtree("/tmp", ignore_errors=True)
        os.chdir("/usr")
        """
    )


@hostile((1, 1, 1), finds=[])
def witness_after_the_others():
    """Not hostile: the last student sees nothing that an earlier one left."""
    return honest(last="import os\nprint(json.dumps(os.listdir('/tmp')))")
