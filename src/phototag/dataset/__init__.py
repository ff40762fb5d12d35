"""The packed array of photos and its labels."""
