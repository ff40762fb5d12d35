"""Error that reports invalid user input."""

import re

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class InputError(ValueError):
    """Error for invalid input; the message gives the input, the expected value and the fix.

    Each argument is a line of the message.
    """

    def __str__(self) -> str:
        """Return the message; control characters are escaped, because names may contain them."""
        return "\n".join(escape_control(str(line)) for line in self.args)


def escape_control(text: str) -> str:
    r"""Replace control characters, line breaks and lone surrogates with escapes such as `\n`."""
    return CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)
