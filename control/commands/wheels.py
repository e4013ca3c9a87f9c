"""lox-server wheels."""

from __future__ import annotations

from pathlib import Path

import click

from control.cli import Options


@click.command()
@click.option("--wheel", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="That of lox-backup.")
@click.option("--extra", "extras", multiple=True, metavar="NAME", help="Stores that agents use: s3, gs, az, sftp.")
@click.option("--python", "pythons", multiple=True, metavar="3.N", help="Python of the hosts. [default: as here]")
@click.option("--platform", "platforms", multiple=True, metavar="TAG", help="Kind of the hosts. [default: as here]")
@click.option("--find-links", metavar="DIR|URL", help="Where pip looks, besides or instead of the index.")
@click.option("--index-url", metavar="URL", help="The package index; 'none' to use --find-links alone.")
@click.option("--sign-only", is_flag=True, help="Fetch nothing: list and sign what lies in the folder.")
@click.pass_obj
def command(
    options: Options,
    wheel: Path | None,
    extras: tuple[str, ...],
    pythons: tuple[str, ...],
    platforms: tuple[str, ...],
    find_links: str | None,
    index_url: str | None,
    sign_only: bool,
) -> int:
    """Collect the packages that the installer of agents hands out.

    Fetches the wheel of this version (or takes --wheel) and what an agent needs, puts them into the folder of files and
    signs a list of them. Run it again after each upgrade of the server; agents are upgraded by running their install
    command again. For hosts that differ from this one name each of their Pythons and kinds, as in
    '--python 3.11 --python 3.13 --platform manylinux_2_28_x86_64'.
    """
    from control.installer.command import files_folder, key_file
    from control.installer.manifest import signing_key, write_manifest
    from control.installer.wheelhouse import PLATFORMS, collect
    from model import __version__

    if pythons and not platforms:
        platforms = PLATFORMS
    settings = options.settings()
    folder = files_folder(settings)
    index = ["--no-index"] if index_url == "none" else ["--index-url", index_url] if index_url else []
    index += ["--find-links", find_links] if find_links else []
    if not sign_only:
        wanted = ("agent", *extras)
        collect(
            folder, wheel=wheel, version=__version__, extras=wanted, pythons=pythons, platforms=platforms, index=index
        )
    manifest = write_manifest(folder, signing_key(key_file(settings)))
    size = sum(size for _, size in manifest.files.values())
    text = f"{len(manifest.files)} packages, {size / 1e6:.0f} MB, of version {manifest.version} in {folder}"
    options.tell(text, version=manifest.version, folder=str(folder), files=len(manifest.files), bytes=size)
    return 0
