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
        encoding=None,
    )
    port = server.get_port()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key.export_public_key().decode()}")
    (folder / "port.new").write_text(str(port))
    (folder / "port.new").rename(folder / "port")
    await server.wait_closed()


async def _run(process: asyncssh.SSHServerProcess[bytes]) -> None:
    nothing, pipe = asyncio.subprocess.DEVNULL, asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_shell(process.command or "", stdin=nothing, stdout=pipe, stderr=pipe)
    # All output goes out before the exit: what came after it would take the whole connection down
    await asyncio.gather(_copy(child.stdout, process.stdout), _copy(child.stderr, process.stderr))
    process.exit(await child.wait())


async def _copy(output: asyncio.StreamReader | None, channel: asyncssh.SSHWriter[bytes]) -> None:
    while output and (line := await output.readline()):
        channel.write(line)


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
