"""``prognosis serve``: read the models, start or join the cluster, answer browsers until Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import uvicorn
from distributed import Client

from prognosis_dask.errors import JobError
from prognosis_dask.pipeline import BRAIN_MEMORY, IMAGE_MEMORY, NETWORK_MEMORY, wants_gpu
from prognosis_dask.runtime.preflight import check_run
from prognosis_dask.serve.access import is_loopback, token_for
from prognosis_dask.serve.app import make_app
from prognosis_dask.serve.desk import Desk
from prognosis_dask.serve.model import load_models
from prognosis_dask.serve.scans import Scans
from prognosis_dask.serve.settings import Settings
from prognosis_dask.serve.work import Bench
from prognosis_dask.store.lock import claim


def serve(models: Sequence[Path], client: Client, settings: Settings, *, say: Callable[[str], None] = print) -> None:
    """Serve the models until the process is interrupted.

    Parameters
    ----------
    models
        Folders of runs, or of their models.
    client
        A Dask client whose workers are prepared and see ``settings.folder`` under the same path.
    settings
        Where to listen and write. Beyond this machine a token is asked for, and made where none is given.
    say
        Takes the lines that tell where it is.

    Raises
    ------
    PrognosisError
        When a model cannot be served, another server uses the folder, or the port is taken.
    """
    settings = replace(settings, folder=settings.folder.absolute(), token=token_for(settings.host, settings.token))
    served = load_models(models)
    lock = claim(settings.folder / "serve")
    try:
        scans = Scans(settings.folder / "scans")
        needed = NETWORK_MEMORY if any(model.job.deep.enabled for model in served.values()) else IMAGE_MEMORY
        brains = any(model.job.brain.enabled for model in served.values())
        gpu = any(wants_gpu(model.job) for model in served.values())
        check_run(client, scans.folder, gpu=gpu, memory=BRAIN_MEMORY if brains else needed)
        desk = Desk(Bench(client, scans, settings.limits), served)
        dashboard = client.dashboard_link if is_loopback(settings.host) else ""
        app = make_app(desk, scans, settings, dashboard or "")
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            log_level="warning",
            access_log=False,  # addresses are secrets
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=2,
        )
        try:
            sockets = [config.bind_socket()]
        except SystemExit as error:
            raise JobError(f"port {settings.port} on {settings.host} is taken; choose another with --port") from error
        port = sockets[0].getsockname()[1]
        for key, model in served.items():
            say(f"{key}: {model.title}, {model.facts['learnt from']}")
        query = f"?token={settings.token}" if settings.token else ""
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        say(f"http://{host}:{port}/{query}")
        uvicorn.Server(config).run(sockets=sockets)
    finally:
        lock.close()
