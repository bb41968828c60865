"""Where ``prognosis serve`` listens, and what it says of an address that cannot be, before anything is started."""

from __future__ import annotations

import socket

import pytest

from prognosis_dask.errors import JobError
from prognosis_dask.web.start import listen


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_an_address_of_this_machine_is_listened_on(host: str) -> None:
    with listen(host, 0) as listening, socket.create_connection(("127.0.0.1", listening.getsockname()[1]), timeout=5):
        pass


@pytest.mark.parametrize("host", ["300.1.1.1", "", "a..b"])
def test_what_is_no_address_is_called_so(host: str) -> None:
    with pytest.raises(JobError, match=rf"--host '{host}': no address, and no known name of a machine; give one of"):
        listen(host, 0)


def test_an_address_of_another_machine_is_called_so() -> None:
    with pytest.raises(JobError, match=r"--host '192\.0\.2\.1': no address of this machine; give one of"):
        listen("192.0.2.1", 0)  # kept for documentation: no machine has it


def test_a_taken_port_is_called_so() -> None:
    with listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(JobError, match=rf"port {port} on 127\.0\.0\.1 is taken; choose another with --port"):
            listen("127.0.0.1", port)
