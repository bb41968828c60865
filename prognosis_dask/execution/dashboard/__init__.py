"""A page ``/prognosis`` on Dask's dashboard, and the same numbers for Prometheus under ``/metrics``.

A preload module of the scheduler (``dask scheduler --preload prognosis_dask.execution.dashboard``); the clusters that
are started here have it. How the dashboard is put together is not part of Dask's public interface: all that is touched
of it stands in this file, and whatever fails here is a line in the scheduler's log, and no page.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import partial
from importlib.resources import files
from importlib.util import find_spec
from typing import Any

from distributed import Client, Scheduler

from prognosis_dask.execution.dashboard.plugin import ProgressPlugin, offer

#: What a scheduler is told to preload.
PRELOAD = __name__
#: The page's address, and its name in the dashboard's navigation.
ROUTE = "prognosis"

_logger = logging.getLogger("distributed.prognosis")


def dask_setup(scheduler: Scheduler) -> None:
    """Called by Dask when the scheduler has started: listen to runs, link the page, offer the gauges."""
    plugin = ProgressPlugin(scheduler)
    scheduler.add_plugin(plugin)
    _attempt(partial(_link, scheduler))
    _attempt(partial(_offer_gauges, plugin))


def _show(scheduler: Scheduler, extra: dict[str, Any], doc: Any) -> None:
    """Called by the dashboard for every visitor."""
    from distributed.dashboard.components.scheduler import BOKEH_THEME, env

    from prognosis_dask.execution.dashboard.page import Page

    doc.title = "Dask: Prognosis"
    doc.theme = BOKEH_THEME
    doc.template = env.from_string((files(__name__) / "page.html.j2").read_text(encoding="utf-8"))
    doc.template_variables.update(extra)
    page = Page(scheduler.plugins.get(ProgressPlugin.name))
    doc.add_root(page.root)
    doc.add_periodic_callback(page.update, 1000)


def own_page(client: Client) -> str:
    """The address of the page of runs; of a scheduler without it, of Dask's own first page."""
    link = str(client.dashboard_link or "")
    with suppress(Exception):  # a scheduler without this package
        if client.run_on_scheduler(_has_page):
            return f"{link.rpartition('/')[0]}/{ROUTE}"
    return link


def _has_page(dask_scheduler: Scheduler) -> bool:
    from distributed.dashboard.scheduler import template_variables

    return ROUTE in template_variables(dask_scheduler)["pages"]


def _add_page() -> None:
    """Before the scheduler builds its web server, which it does after it has imported this module."""
    from distributed.dashboard.scheduler import applications

    applications[f"/{ROUTE}"] = _show


def _link(scheduler: Scheduler) -> None:
    from distributed.dashboard.scheduler import template_variables

    pages = template_variables(scheduler)["pages"]
    if ROUTE not in pages:
        pages.insert(1, ROUTE)


def _offer_gauges(plugin: ProgressPlugin) -> None:
    if find_spec("prometheus_client") is None:  # then there is no /metrics either
        return
    offer(plugin)


def _attempt(step: Any) -> None:
    try:
        step()
    except Exception:  # no page is no reason for no scheduler
        _logger.warning("no page, link or gauges for prognosis", exc_info=True)


_attempt(_add_page)
