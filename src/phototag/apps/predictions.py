"""Photos named on the command line, and what is said of them, in several formats."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from glob import glob, has_magic
from pathlib import Path

from tqdm import tqdm

from phototag.base.errors import InputError
from phototag.intake.images import EXTENSIONS
from phototag.intake.leftovers import describe_leftovers, split_leftovers
from phototag.serving.tagger import BATCH, Tagger, Tags, read_photo, tag_photos

KNOWN = {extension for group in EXTENSIONS.values() for extension in group}
Predictions = Sequence[tuple[str, Tags]]


def find_photos(
    sources: Iterable[str], listed: Iterable[str], tell: Callable[[str], object] = lambda text: None
) -> list[str]:
    """Find the photos that sources name, each once, in the order given.

    Args:
        sources: Files, folders (searched through, by extension), patterns, or `-`.
        listed: The lines that `-` stands for, one path each.
        tell: Is told how many files of systems and tools a folder holds; they are passed over.

    Raises:
        InputError: A folder or pattern holds no photo, or none is named at all.
    """
    found: dict[str, None] = {}
    for source in sources:
        path = Path(source)
        if source == "-":
            names = [line.rstrip("\n") for line in listed if line.strip()]
        elif path.is_dir():
            files = (file for file in path.rglob("*") if file.suffix.lower() in KNOWN)
            inside = (file.relative_to(path).as_posix() for file in files if not file.is_dir())
            brought, left = split_leftovers(inside)
            names = [str(path / name) for name in sorted(brought, key=_natural)]
            for sentence in describe_leftovers(left):
                tell(f"{source}: {sentence}")
        # Path.glob takes no absolute pattern.
        elif has_magic(source) and not path.exists():
            names = sorted(glob(source, recursive=True), key=_natural)  # noqa: PTH207
        else:
            names = [source]
        if not names:
            raise InputError(f"{source} holds no photo")
        found |= dict.fromkeys(names)
    if not found:
        raise InputError("name photos, folders, patterns, or - for a list of paths")
    return list(found)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort im2 before im10."""
    return [(int(part or 0), text) for text, part in re.findall(r"(\D*)(\d*)", name)]


def predict(tagger: Tagger, names: Sequence[str]) -> Iterator[tuple[str, Tags]]:
    """Tag files batch by batch, with a progress bar on a terminal."""
    with tqdm(total=len(names), unit="photo", disable=None) as bar:
        for start in range(0, len(names), BATCH):
            part = names[start : start + BATCH]
            tags = tag_photos(tagger, [read_photo(name) for name in part])
            bar.update(len(part))
            yield from zip(part, tags, strict=True)


def to_table(predictions: Predictions, labels: Sequence[str]) -> str:
    """Write for a reader: each photo's labels with their probabilities."""
    width = max((len(name) for name, _ in predictions), default=0)
    lines = []
    for name, tags in predictions:
        told = ", ".join(f"{label} {tags.scores[label]:.2f}" for label in tags.labels)
        lines.append(f"{name:<{width}}  {tags.error or told or '(no label)'}")
    return "\n".join(lines) + "\n"


def to_csv(predictions: Predictions, labels: Sequence[str]) -> str:
    """Write file, labels (separated by semicolons), error, and a probability a label."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "labels", "error", *labels])
    for name, tags in predictions:
        scores = [f"{tags.scores[label]:.6f}" if tags.scores else "" for label in labels]
        writer.writerow([name, ";".join(tags.labels), tags.error or "", *scores])
    return text.getvalue()


def to_jsonl(predictions: Predictions, labels: Sequence[str]) -> str:
    """Write one JSON object a line: file, labels, scores, error."""
    rows = (
        {"file": name, "labels": tags.labels, "scores": tags.scores, "error": tags.error}
        for name, tags in predictions
    )
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def to_results(predictions: Predictions, labels: Sequence[str]) -> str:
    """Write the course's results.txt: one row of 0 and 1 a photo, in the order of image numbers.

    A photo that could not be read has a row of zeros, so that the rows stay in step.

    Raises:
        InputError: A file's name holds no number, or two hold the same.
    """
    rows: dict[int, str] = {}
    for name, tags in predictions:
        numbers = re.findall(r"\d+", Path(name).stem)
        if not numbers:
            raise InputError(f"{name}: results.txt goes by image numbers, and this name has none")
        if int(numbers[-1]) in rows:
            raise InputError(f"{name}: image number {int(numbers[-1])} comes twice")
        rows[int(numbers[-1])] = " ".join(str(int(label in tags.labels)) for label in labels)
    return "".join(f"{rows[number]}\n" for number in sorted(rows))


FORMATS: dict[str, Callable[[Predictions, Sequence[str]], str]] = {
    "table": to_table,
    "csv": to_csv,
    "jsonl": to_jsonl,
    "results": to_results,
}
