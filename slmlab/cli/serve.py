"""`slmlab serve`: a socket, an engine and uvicorn."""

from __future__ import annotations

import errno
import ipaddress
import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
import uvicorn

if TYPE_CHECKING:
    from fastapi import FastAPI

DTYPES = ("float32", "bfloat16", "float16")
LAST_SECONDS = 5  # for connections that do not end by themselves


class Server(uvicorn.Server):
    """Ends running requests first: uvicorn alone would wait until they are complete."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        app: FastAPI = self.config.app  # type: ignore[assignment]
        app.state.worker.close()
        await super().shutdown(sockets)


def make_server(app: FastAPI) -> Server:
    """A quiet uvicorn server for ``app``; errors go to stderr."""
    return Server(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            lifespan="on",
            timeout_graceful_shutdown=LAST_SECONDS,
        )
    )


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        ValueError: the port is taken or not allowed, or the host is no address of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise ValueError(f"--host {host} is no address of this machine ({error})") from None
    try:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # Windows, where SO_REUSEADDR means sharing
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # Before the model is loaded: of two servers that start together one is told at once.
        listener.listen(2048)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ValueError(
                f"port {port} on {host} is taken: give another with --port (0 takes a free one)"
            ) from None
        raise ValueError(f"cannot listen on {host}, port {port}: {error.strerror}") from None
    return listener


def is_loopback(address: str) -> bool:
    """Only this machine can reach ``address``, as a socket reports it."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def own_names(host: str, listener: socket.socket) -> set[str] | None:
    """What a request may call a server that listens on the loopback; None elsewhere: any name."""
    address = listener.getsockname()[0].partition("%")[0]
    if not is_loopback(address):
        return None
    written = f"[{address}]" if ":" in address else address
    return {"localhost", "127.0.0.1", "[::1]", written, host.lower()}


def public_name(model: str) -> str:
    """What clients call the model: a folder's last name, any other name as it is."""
    path = Path(model).expanduser()
    return path.resolve().name or "model" if path.is_dir() else model


def greeting(name: str, listener: socket.socket) -> str:
    """Where the server is, and a line to try it with."""
    address, port = listener.getsockname()[:2]
    everywhere = ipaddress.ip_address(address.partition("%")[0]).is_unspecified
    host = "localhost" if everywhere else address
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    body = json.dumps({"model": name, "prompt": "def main(", "max_tokens": 32})
    return (
        f"{name} is served at {url}/v1 (Ctrl-C ends it). Try:\n"
        f"  curl {url}/v1/completions -H 'Content-Type: application/json' -d '{body}'"
    )


def run_server(model: str, host: str, port: int, dtype: str, **sizes: Any) -> None:
    """Serve until Ctrl-C.

    Args:
        sizes: of the ``Engine``.

    Raises:
        ValueError, TypeError: an address that cannot be used, no such model, impossible sizes.
    """
    if dtype not in DTYPES:
        raise ValueError(f"--dtype {dtype} is unknown: take one of {', '.join(DTYPES)}")
    if sizes["token_budget"] < sizes["max_batch"]:
        raise ValueError(
            f"--token-budget {sizes['token_budget']} must be at least --max-batch "
            f"{sizes['max_batch']}: each running request decodes one token a step"
        )
    with listen(host, port) as listener:
        if not is_loopback(listener.getsockname()[0]):
            typer.echo(
                f"Warning: {host} can be reached from other machines, and there is no "
                "authentication: everybody who reaches it can use the model.",
                err=True,
            )
        import torch

        from slmlab.generation import load
        from slmlab.serving import Engine
        from slmlab.serving.http import create_app

        engine = Engine(load(model, dtype=getattr(torch, dtype)), **sizes)
        name = public_name(model)
        server = make_server(create_app(engine, name, hosts=own_names(host, listener)))
        typer.echo(greeting(name, listener))
        try:
            server.run(sockets=[listener])
        except KeyboardInterrupt:  # uvicorn has ended in order, and raises the signal again
            typer.echo("Stopped.")
