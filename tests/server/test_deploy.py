"""The files of the container, which are not built here."""

import json
import re
import tomllib
from pathlib import Path

import typer
import yaml

from phototag.cli import typer_app

ROOT = Path(__file__).parents[2]


def test_container_files_use_options_extras_and_files_that_exist() -> None:
    docker = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())
    server = services["services"]["server"]
    command = typer.main.get_command(typer_app)
    serve = command.commands["serve"]  # type: ignore[attr-defined]
    (entry,) = re.findall(r"^ENTRYPOINT (.*)", docker, re.MULTILINE)
    program, name, *options = json.loads(entry)
    assert (program, name) == ("phototag", "serve")
    given = serve.make_context("serve", [*options, *server["command"]]).params
    assert (given["host"], given["port"], given["keep_days"]) == ("0.0.0.0", 5001, 90)
    assert server["ports"] == [f"127.0.0.1:5001:{given['port']}"]
    assert server["volumes"] == [f"log:{given['log_predictions']}"]
    variables = {option.envvar for option in serve.params} - {None}
    assert {name for name in server["environment"] if "PHOTOTAG" in name} <= variables
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert set(re.findall(r"'\.\[(.*)\]'", docker)[0].split(",")) <= set(extras)
    # The build gets only the files that the last lines of .dockerignore name.
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for source in re.findall(r"^COPY (?!--from)(.*) \S+$", docker, re.MULTILINE):
        for path in source.split():
            assert (ROOT / path).exists()
            assert f"!{path}" in ignored
    assert re.findall(r"^USER (.*)", docker, re.MULTILINE) == ["phototag"]
    for service in services["services"].values():
        assert set(service.get("secrets", ())) <= set(services["secrets"])
        assert {volume.split(":")[0] for volume in service["volumes"]} <= set(services["volumes"])
    assert "/secrets/" in (ROOT / ".gitignore").read_text().splitlines()
