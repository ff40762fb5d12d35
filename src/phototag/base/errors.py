"""The one error that the user can mend."""


class InputError(ValueError):
    """Something given to phototag is wrong; the message names it and says how to mend it."""
