"""A kernel of a Jupyter server, spoken to over the server's websocket as a browser does."""

import json

import websocket
from jupyter_client.jsonutil import json_default
from jupyter_client.session import Session
from nbformat import NotebookNode
from nbformat.v4 import output_from_msg

_OUTPUTS = ("stream", "display_data", "execute_result", "error")


class Kernel:
    """identifier: the server's name for it."""

    def __init__(self, server: str, token: str, identifier: str, wait_seconds: float) -> None:
        self.identifier = identifier
        self._session = Session()
        self._socket = websocket.create_connection(
            f"{server.replace('http', 'ws', 1)}/api/kernels/{identifier}/channels",
            timeout=wait_seconds,
            header=[f"Authorization: token {token}"],
            http_no_proxy=["127.0.0.1"],
        )

    def run(self, source: str) -> tuple[int | None, list[NotebookNode]]:
        """Run `source`: its number among what this kernel ran, and its outputs, an error included.

        Raises RuntimeError where the kernel dies.
        """
        request = self._session.msg("execute_request", {"code": source, "allow_stdin": False})
        identifier = request["header"]["msg_id"]
        self._socket.send(json.dumps({**request, "channel": "shell"}, default=json_default))
        outputs: list[NotebookNode] = []
        reply: dict | None = None
        idle = False
        # Reply and outputs come on channels of their own, in either order.
        while reply is None or not idle:
            frame = self._socket.recv()
            if isinstance(frame, bytes):
                continue  # a widget's binary state; outputs come as text
            answer = json.loads(frame)
            kind, content = answer["header"]["msg_type"], answer["content"]
            if kind == "status" and content["execution_state"] in ("restarting", "dead"):
                raise RuntimeError(f"the kernel died while it ran:\n{source}")
            if answer["parent_header"].get("msg_id") != identifier:
                continue
            if kind == "status":
                idle = content["execution_state"] == "idle"
            elif kind == "execute_reply":
                reply = content
            elif kind in _OUTPUTS:
                outputs.append(output_from_msg(answer))
        return reply.get("execution_count"), outputs

    def leave(self) -> None:
        """Close the connection; the kernel goes on, as when a browser tab is closed."""
        self._socket.close()
