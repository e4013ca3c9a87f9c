"""Routes: the installer and its files. Nobody is asked who they are: nothing of it is secret."""

from __future__ import annotations

from aiohttp import web

from control.api.bodies import PIECE
from control.api.call import Call
from control.api.problems import Problem, Unknown
from control.api.routes import NOBODY, Routes
from control.installer.command import Installer
from control.installer.manifest import MANIFEST, SIGNATURE
from model.errors import ConfigError

routes = Routes()


@routes.add("GET", "/agent", principals=NOBODY, returns={200: None})
async def shell(call: Call) -> web.StreamResponse:
    """The installer for Linux and macOS."""
    return _script(call.services.part(Installer).shell())


@routes.add("GET", "/agent.ps1", principals=NOBODY, returns={200: None})
async def powershell(call: Call) -> web.StreamResponse:
    """The installer for Windows."""
    return _script(call.services.part(Installer).powershell())


@routes.add("GET", "/ca.crt", principals=NOBODY, returns={200: None})
async def authority(call: Call) -> web.StreamResponse:
    """The certificate of the server's own authority. Who fetches it here has to know its fingerprint from elsewhere."""
    found = call.services.part(Installer).authority()
    if not found:
        raise Unknown("authority of this server's own")
    return web.Response(text=found + "\n", content_type="application/x-pem-file")


def _script(text: str) -> web.Response:
    return web.Response(text=text, content_type="text/plain")


@routes.add("GET", "/files/{name}", principals=NOBODY, returns={200: None}, limit="data")
async def file(call: Call) -> web.StreamResponse:
    """A file that the installer needs: the manifest, its signature, or a wheel that the manifest lists."""
    name, installer = call.request.match_info["name"], call.services.part(Installer)
    try:
        manifest = installer.manifest()
    except ConfigError as error:
        call.services.log.error("the files of the installer are not as signed", why=str(error))
        raise Problem("the files of the installer are damaged", status=503, kind="unavailable") from None
    if manifest is None or name not in (MANIFEST, SIGNATURE, *manifest.files):
        raise Unknown("file")
    if not (installer.folder / name).is_file():
        raise Unknown("file")
    headers = {"Content-Type": "application/octet-stream"}
    return web.FileResponse(installer.folder / name, PIECE, headers=headers)
