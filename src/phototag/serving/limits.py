"""Limits of requests and of familiarity, and constants shared by servers and `phototag ask`."""

MAX_PIXELS = 25_000_000  # per photo
MAX_BYTES = 32 * 2**20  # per file
MAX_REQUEST_BYTES = 64 * 2**20  # all files together
MAX_ROWS = 256  # number of photos
MAX_MESSAGE = 500  # characters of an error message
TOO_LARGE = f"the file is larger than {MAX_BYTES // 2**20} MiB"
EXAMPLE = "R0lGODlhAQABAIAAAAAAAP///ywAAAAAAQABAAACAUwAOw=="  # base64 of a GIF with one pixel
TOKEN = "PHOTOTAG_TOKEN"  # environment variable with the token that clients send
UNFAMILIAR, UNLIKE = 1, "unlike anything in training"  # a photo with a familiarity below 1


def is_unfamiliar(familiarity: float | None) -> bool:
    """Return whether a familiarity is known, and so low that predictions may be wrong."""
    return familiarity is not None and familiarity < UNFAMILIAR
