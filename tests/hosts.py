"""A second host on this one, in a network namespace; skipped where the right to make one is missing."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Hosts:
    """This host's address and the other's, and what runs a command over there."""

    here: str
    there: str
    prefix: tuple[str, ...]
    link: str

    def cut(self) -> None:
        ip("link", "set", self.link, "down")

    def mend(self) -> None:
        ip("link", "set", self.link, "up")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@contextmanager
def second_host() -> Iterator[Hosts]:
    """Names and addresses are this process's own, since other tests may run on this machine at the same time."""
    name, number = f"pd{os.getpid()}", os.getpid() % 2**14
    network = f"10.213.{number // 64}"
    here, there = (f"{network}.{number % 64 * 4 + host}" for host in (1, 2))
    hosts = Hosts(here, there, ("ip", "netns", "exec", name), f"{name}-a")
    try:
        ip("netns", "add", name)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this machine lets no test make a network namespace ({error})")
    try:
        ip("link", "add", hosts.link, "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("addr", "add", f"{here}/30", "dev", hosts.link)
        ip("link", "set", hosts.link, "up")
        ip("-n", name, "addr", "add", f"{there}/30", "dev", "eth0")
        for device in ("eth0", "lo"):
            ip("-n", name, "link", "set", device, "up")
        yield hosts
    finally:
        ip("netns", "del", name)
