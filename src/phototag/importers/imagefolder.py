"""Import of a Hugging Face ImageFolder, with metadata.csv, .jsonl or .parquet next to photos.

See https://huggingface.co/docs/datasets/image_dataset.
"""

from dataclasses import replace

from phototag.importers import tables
from phototag.importers.source import Source, SourceDataset


def recognize(source: Source) -> bool:
    """Return whether a source is a metadata file of an ImageFolder."""
    return source.is_metadata()


def read(source: Source) -> SourceDataset:
    """Read the photos and labels that a metadata file lists; the photos must be in its folder.

    Raises:
        InputError: A row is invalid. The message contains its line number.
    """
    kind = next(iter(tables.find_label_columns(source)))
    root = source.options.images or source.path.parent
    dataset = tables.read(source, kind, root)
    return replace(dataset, description=f"Hugging Face ImageFolder: {dataset.description}")
