"""An ssh server on loopback for one key, which runs what it is told as this user: `python -m tests.ssh_server DIR`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncssh

from tests.dask_processes import process, wait_for


@contextmanager
def ssh_server(folder: Path) -> Iterator[tuple[int, Path, Path]]:
    """The server's port, the private key that it lets in, and the known_hosts file that knows it."""
    with process("tests.ssh_server", folder):
        wait_for((folder / "port").exists)
        yield int((folder / "port").read_text()), folder / "key", folder / "known_hosts"


async def _serve(folder: Path) -> None:
    host_key, user_key = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    user_key.write_private_key(str(folder / "key"))
    user_key.write_public_key(str(folder / "authorized_keys"))
    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_host_keys=[host_key],
        authorized_client_keys=str(folder / "authorized_keys"),
        process_factory=_run,
    )
    port = server.get_port()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key.export_public_key().decode()}")
    (folder / "port.new").write_text(str(port))
    (folder / "port.new").rename(folder / "port")
    await server.wait_closed()


async def _run(process: asyncssh.SSHServerProcess) -> None:
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_shell(process.command or "", stdin=pipe, stdout=pipe, stderr=pipe)
    await process.redirect(stdin=child.stdin, stdout=child.stdout, stderr=child.stderr)
    process.exit(await child.wait())


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
