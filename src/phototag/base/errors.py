"""The error of invalid user input."""


class InputError(ValueError):
    """Invalid input: the message names it, what was expected, and how to fix it."""
