"""The trusted side of the sandbox.

::

    with open_sandbox(limits=Limits()) as sandbox:      # SandboxUnavailable with the mend
        transcript = sandbox.run(request)               # as often as you like
        sandbox.description                             # for the audit

opening.py chooses; bubblewrap.py and packages.py say what is visible inside; fork_server.py holds
the process; session.py runs requests; attempt.py keeps deadlines; watchdog.py, processes.py and
cgroup.py count; received.py reads messages that nobody vouches for.
"""

from slmlab.grading.sandbox.errors import SandboxUnavailable
from slmlab.grading.sandbox.opening import open_sandbox
from slmlab.grading.sandbox.session import Sandbox

__all__ = ["Sandbox", "SandboxUnavailable", "open_sandbox"]
