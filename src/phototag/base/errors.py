"""Error that reports invalid user input."""


class InputError(ValueError):
    """Error about invalid input; its message names the input, what was expected and the fix."""
