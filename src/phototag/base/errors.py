"""The error of invalid user input."""


class InputError(ValueError):
    """Invalid input: the message names it, says what was expected, and how to fix it."""
