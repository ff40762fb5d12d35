"""Command line: `phototag --help`.

Default paths are relative to the root of the project, which is found from any of its folders. Paths
that the user gives are relative to the current folder.
"""

from phototag.cli.main import app, typer_app

__all__ = ["app", "typer_app"]
