"""The application: its parts, put together. A part is added to `parts`, and nowhere else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack

from aiohttp import web

from control import service_routes
from control.api.bodies import end_untaken
from control.api.layer import REQUESTS, SERVICES, add_headers, add_routes, outermost
from control.api.limits import Limits
from control.api.routes import Route
from control.auth import routes as auth_routes
from control.auth.authenticate import AUTHENTICATORS
from control.db.engine import make_engine, make_sessions
from control.fleet import part as fleet
from control.installer import routes as installer_routes
from control.metrics import routes as metrics_routes
from control.metrics.requests import Requests
from control.sealing import Sealer
from control.services import Part, Services
from control.settings import ServerSettings
from control.vault import part as vault


def parts() -> Sequence[Part]:
    """All parts of the server."""
    return [
        Part("service", service_routes.routes),
        Part("auth", auth_routes.routes),
        Part("metrics", metrics_routes.routes),
        vault.part,
        *fleet.parts(),
    ]


def all_routes() -> list[Route]:
    """The routes of all parts."""
    return [route for part in parts() for route in part.routes.all]


def make_services(settings: ServerSettings) -> Services:
    """What parts share. Raises ConfigError for a database that cannot be used."""
    engine = make_engine(settings.database)
    limits = Limits(processes=settings.processes) if settings.rate_limits else Limits(factor=float("inf"))
    services = Services(settings, engine, make_sessions(engine), limits, authenticators=dict(AUTHENTICATORS))
    services.keep(Requests())
    services.keep(Sealer(settings.data_dir))
    return services


def make_app(settings: ServerSettings, leader: bool = True) -> web.Application:
    """The application of one process; `leader`: it also does what only one process may do."""
    app = web.Application(middlewares=[outermost], client_max_size=64 << 10)
    services = make_services(settings)
    _fill(app, services, all_routes())
    app.cleanup_ctx.append(_running(leader))
    return app


def make_installer_app(services: Services) -> web.Application:
    """The application of the separate listener for the installer, which serves nothing else."""
    app = web.Application(middlewares=[outermost], client_max_size=1 << 10)
    _fill(app, services, installer_routes.routes.all)
    return app


def _fill(app: web.Application, services: Services, routes: list[Route]) -> None:
    app[SERVICES], app[REQUESTS] = services, services.part(Requests)
    app.on_response_prepare.extend((add_headers, end_untaken))
    add_routes(app, routes)


def _running(leader: bool) -> Callable[[web.Application], AsyncIterator[None]]:
    async def running(app: web.Application) -> AsyncIterator[None]:
        services = app[SERVICES]
        async with AsyncExitStack() as stack:
            stack.push_async_callback(services.engine.dispose)
            for part in parts():
                for start in (part.start, part.lead if leader else None):
                    if start is not None:
                        await stack.enter_async_context(start(services))
            yield
            services.stopping.set()

    return running
