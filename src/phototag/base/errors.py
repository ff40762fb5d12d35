"""Error that reports invalid user input."""


class InputError(ValueError):
    """Error for invalid input; the message gives the input, the expected value and the fix."""
