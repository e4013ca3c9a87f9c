"""The application: its parts, put together. A part is added to `parts`, and nowhere else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack

from aiohttp import web

from control import service_routes
from control.api.layer import SERVICES, add_headers, add_routes, outermost
from control.api.limits import Limits
from control.api.routes import Route
from control.auth import routes as auth_routes
from control.auth.authenticate import AUTHENTICATORS
from control.db.engine import make_engine, make_sessions
from control.fleet import part as fleet
from control.services import Part, Services
from control.settings import ServerSettings


def parts() -> Sequence[Part]:
    """All parts of the server."""
    return [Part("service", service_routes.routes), Part("auth", auth_routes.routes), *fleet.parts()]


def all_routes() -> list[Route]:
    """The routes of all parts."""
    return [route for part in parts() for route in part.routes.all]


def make_services(settings: ServerSettings) -> Services:
    """What parts share. Raises ConfigError for a database that cannot be used."""
    engine = make_engine(settings.database)
    limits = Limits() if settings.rate_limits else Limits(factor=float("inf"))
    return Services(settings, engine, make_sessions(engine), limits, authenticators=dict(AUTHENTICATORS))


def make_app(settings: ServerSettings, leader: bool = True) -> web.Application:
    """The application of one process; `leader`: it also does what only one process may do."""
    app = web.Application(middlewares=[outermost], client_max_size=64 << 10)
    app[SERVICES] = make_services(settings)
    app.on_response_prepare.append(add_headers)
    add_routes(app, all_routes())
    app.cleanup_ctx.append(_running(leader))
    return app


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
