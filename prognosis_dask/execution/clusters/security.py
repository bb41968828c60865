"""Encryption and the dashboard's origins: what keeps others off a cluster.

Whoever reaches a Dask scheduler's port, and holds a certificate where it asks for one, runs code on every worker as the
user who started it. There are no users and no passwords in between.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from distributed import Security

from prognosis_dask.errors import ClusterError, import_extra
from prognosis_dask.execution.clusters.spec import Encryption, HostPort


def security(tls: Encryption, *, one_host: bool, kind: str) -> Security | None:
    """The certificates that scheduler, workers and client use, or None for plain ``tcp://``.

    Raises
    ------
    ClusterError
        When a certificate's file is missing, or a temporary set is asked for where workers are on other hosts.
    MissingExtraError
        When the package that makes a temporary set is not installed.
    """
    if not tls.enabled:
        return None
    files = {"tls.ca": tls.ca, "tls.cert": tls.cert, "tls.key": tls.key}
    if not any(files.values()):
        if not one_host:
            raise ClusterError(
                f"a temporary set of certificates works on one host only; kind {kind} needs ca, cert and key in the "
                "[tls] section of a cluster file (cluster/README.md says how to make them)"
            )
        import_extra("cryptography", extra="tls", feature="a temporary set of certificates (--tls)")
        return Security.temporary()
    for key, path in files.items():
        if not Path(path).is_file():
            raise ClusterError(f"{key}: no file at {path!r}; expected a PEM file" + ("" if path else ", all three"))
    roles = {f"tls_{role}_{part}": files[f"tls.{part}"] for role in _ROLES for part in ("cert", "key")}
    return Security(require_encryption=True, tls_ca_file=tls.ca, **roles)


_ROLES = ("scheduler", "worker", "client")


def tls_config(tls: Encryption) -> dict[str, Any]:
    """The same as Dask's configuration, for processes that are started on other hosts and read the files there."""
    if not tls.enabled:
        return {}
    config: dict[str, Any] = {"distributed.comm.require-encryption": True, "distributed.comm.tls.ca-file": tls.ca}
    for role in _ROLES:
        config[f"distributed.comm.tls.{role}.cert"] = tls.cert
        config[f"distributed.comm.tls.{role}.key"] = tls.key
    return config


def websocket_origins(dashboard: str) -> list[str]:
    """Who may open the dashboard's websocket: pages served from it itself, by its own name or through a tunnel.

    Bokeh compares the browser's Origin header; ``*`` would let any web page that the user visits read the cluster's
    state through the user's own browser.

    >>> websocket_origins("127.0.0.1:8787")
    ['localhost:8787', '127.0.0.1:8787']
    >>> websocket_origins("10.0.0.7:8787")
    ['localhost:8787', '127.0.0.1:8787', '10.0.0.7:8787']
    """
    host, _, port = dashboard.rpartition(":")
    names = ["localhost", "127.0.0.1"]
    if host in ("", "0.0.0.0"):
        names.append(socket.gethostname())
    elif host not in names:
        names.append(host)
    return [f"{name}:{port}" for name in names]


def free_dashboard(address: str) -> str:
    """The address itself when its port is free, else the same host with one that is.

    Raises
    ------
    ClusterError
        When it is not HOST:PORT, or the host is none of this machine's.
    """
    host, _, port = address.rpartition(":")
    if not HostPort().holds(address):
        raise ClusterError(f"dashboard is {address!r}, expected {HostPort.expected}")
    for candidate in (int(port), 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, candidate))
            except OSError as error:
                reason = error
            else:
                return f"{host}:{probe.getsockname()[1]}"
    raise ClusterError(f"dashboard: cannot listen on {address} ({reason}); its host must be one of this machine's")
