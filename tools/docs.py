"""Collect the sources of the docs site in build/docs: `python -m tools.docs`.

README.md becomes the home page. The references of params.yaml and of the command line are
generated, and so is one API page per package. `make docs` then builds the site with Zensical,
which reads mkdocs.yml.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from tools.params_page import render_params

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build"
# Files of the repository that are pages of the site, and their names in the site.
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
    "SECURITY.md": "project/security.md",
}
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")
CODE = re.compile(r"(^```.*?^```|`[^`\n]+`)", re.DOTALL | re.MULTILINE)


def main() -> None:
    """Write build/docs and build/mkdocs.yml."""
    folder = BUILD / "docs"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "docs", folder)
    sources = {f"docs/{path.relative_to(folder)}": path for path in folder.rglob("*.md")}
    sources |= {source: folder / page for source, page in PAGES.items()}
    for source, page in sources.items():
        page.parent.mkdir(exist_ok=True)
        page.write_text(rewrite_links((ROOT / source).read_text(), source))
    (folder / "reference/params.md").write_text(render_params(ROOT))
    (folder / "reference/cli.md").write_text(render_cli())
    (folder / "api").mkdir()
    names = list_packages()
    for name in names:
        (folder / f"api/{name}.md").write_text(f"# {name}\n\n::: phototag.{name}\n")
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    config["nav"].append({"API": [f"api/{name}.md" for name in names]})
    (BUILD / "mkdocs.yml").write_text(yaml.safe_dump(config, sort_keys=False))


def list_packages() -> list[str]:
    """Return the names of the packages of phototag and of its modules at the top, sorted."""
    folder = ROOT / "src/phototag"
    packages = [path.parent.name for path in folder.glob("*/__init__.py")]
    modules = [path.stem for path in folder.glob("*.py") if path.stem != "__init__"]
    return sorted(packages + modules)


def rewrite_links(markdown: str, source: str) -> str:
    """Point links at pages of the site; links to other files of the repository become text.

    Links to files that do not exist stay as they are, so that the generator reports them.

    Args:
        markdown: Text of the page.
        source: Path of the page in the repository.
    """
    page = PAGES.get(source) or source.removeprefix("docs/")

    def rewrite(match: re.Match[str]) -> str:
        image, text, target, anchor = match.groups()
        path = os.path.normpath(Path(source).parent / target)
        if ":" in target or not (ROOT / path).exists():
            return match[0]
        uri = PAGES.get(path) or path.removeprefix("docs/")
        if path in PAGES or path.startswith("docs/"):
            relative = os.path.relpath(uri, Path(page).parent)
            return f"{image}[{text}]({relative}{anchor or ''})"
        return text if text.strip("`") == path else f"{text} (`{path}`)"

    parts = CODE.split(markdown)  # every second part is code
    return "".join(part if i % 2 else LINK.sub(rewrite, part) for i, part in enumerate(parts))


def render_cli() -> str:
    """Return the reference of the command line that Typer generates."""
    command = [sys.executable, "-m", "typer", "--app", "typer_app", "phototag.cli"]
    return subprocess.run(
        [*command, "utils", "docs", "--name", "phototag", "--title", "Command line"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout


if __name__ == "__main__":
    main()
