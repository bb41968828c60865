"""An ssh server on loopback for one key, which runs what it is told as this user."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import asyncssh

_children: list[int] = []


@contextmanager
def ssh_server(folder: Path) -> Iterator[tuple[int, Path, Path]]:
    """The server's port, the private key that it lets in, and the known_hosts file that knows it."""
    host_key, user_key = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    key, allowed, known = folder / "key", folder / "authorized_keys", folder / "known_hosts"
    user_key.write_private_key(str(key))
    user_key.write_public_key(str(allowed))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def listen() -> asyncssh.SSHAcceptor:
        return await asyncssh.listen(
            "127.0.0.1", 0, server_host_keys=[host_key], authorized_client_keys=str(allowed), process_factory=_run
        )

    server = asyncio.run_coroutine_threadsafe(listen(), loop).result(10)
    port = server.get_port()
    known.write_text(f"[127.0.0.1]:{port} {host_key.export_public_key().decode()}")
    try:
        yield port, key, known
    finally:
        for child in _children:
            with suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
        loop.call_soon_threadsafe(server.close)
        asyncio.run_coroutine_threadsafe(server.wait_closed(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


async def _run(process: asyncssh.SSHServerProcess) -> None:
    child = await asyncio.create_subprocess_shell(
        process.command or "",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    _children.append(child.pid)
    await process.redirect(stdin=child.stdin, stdout=child.stdout, stderr=child.stderr)
    process.exit(await child.wait())
