"""Find words that `prose.toml` refuses in code and docs: `python -m tools.prose [PATH ...]`."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RULES: dict[str, Any] = tomllib.loads(Path(__file__).with_name("prose.toml").read_text())
IGNORE = "prose: ignore"
SECTIONS = ("Args:", "Attributes:", "Raises:", "Returns:", "Yields:")
HELP = re.compile(r"""(?:help|metavar|description)=f?["'](\w+)""")
COMMENT = re.compile(r"(?:^|\s)#\s+(\w+)")

Finding = tuple[int, str, str]  # line number, what was found, what to write instead


def compile_terms() -> list[tuple[re.Pattern[str], str]]:
    """Return the compiled patterns of `[terms]`, each with its replacement."""
    return [
        (
            re.compile(
                rf"(?<![A-Za-z.])(?:{pattern})(?![A-Za-z])",
                0 if re.search(r"(?<!\\)[A-Z]", pattern) else re.IGNORECASE,
            ),
            replacement,
        )
        for pattern, replacement in RULES["terms"].items()
    ]


def find_terms(lines: list[str]) -> Iterator[Finding]:
    """Yield the refused terms of a file."""
    for number, line in enumerate(lines, 1):
        for pattern, replacement in TERMS:
            for match in pattern.finditer(line):
                yield number, match[0], replacement


def find_openers(lines: list[str], tree: ast.Module | None) -> Iterator[Finding]:
    """Yield the refused first words of comments and, in Python, of docstrings and help texts."""
    for number, line in enumerate(lines, 1):
        yield from _check(number, COMMENT.findall(line), RULES["comment_openers"])
        yield from _check(number, HELP.findall(line), RULES["openers"])
    for node in ast.walk(tree) if tree else ():
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if not ast.get_docstring(node):
            continue
        first = node.body[0]
        section = ""
        previous = ""
        for number, line in enumerate(lines[first.lineno - 1 : first.end_lineno], first.lineno):
            text = line.strip()
            opener = None
            if number == first.lineno:
                opener = re.match(r'r?"""(\w+)', text)
            elif text in SECTIONS:
                section = text
            elif section in ("Returns:", "Yields:") and previous == section:
                opener = re.match(r"(\w+)", text)
            elif section:
                opener = re.match(r"\*{0,2}\w+: (\w+)", text)
            openers = RULES["comment_openers" if section == "Raises:" else "openers"]
            yield from _check(number, [opener[1]] if opener else [], openers)
            previous = text


def _check(number: int, words: list[str], openers: list[str]) -> Iterator[Finding]:
    for word in words:
        if word.lower() in openers:
            yield number, f"{word} ...", "start with a noun or an imperative verb"


def check_file(path: Path) -> list[Finding]:
    """Return the findings of one file, ordered by line."""
    text = path.read_text()
    lines = text.splitlines()
    tree = ast.parse(text) if path.suffix == ".py" else None
    findings = [*find_terms(lines), *find_openers(lines, tree)]
    return sorted(finding for finding in findings if IGNORE not in lines[finding[0] - 1])


def list_files(paths: list[str]) -> list[Path]:
    """Return the files under `paths` that git tracks or would track and that are checked."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *paths]
    names = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    files = sorted(Path(name) for name in names)
    return [
        file
        for file in files
        if file.suffix in RULES["suffixes"]
        and file.is_file()
        and not any(file.is_relative_to(excluded) for excluded in RULES["exclude"])
    ]


def main() -> None:
    """Print each finding as `path:line: found -> replacement`, and exit with 1 if there is any."""
    files = list_files(sys.argv[1:] or RULES["paths"])
    count = 0
    for file in files:
        for number, found, replacement in check_file(file):
            print(f"{file}:{number}: {found!r} -> {replacement}")
            count += 1
    print(f"prose: {count} findings in {len(files)} files", file=sys.stderr)
    sys.exit(count > 0)


TERMS = compile_terms()

if __name__ == "__main__":
    main()
