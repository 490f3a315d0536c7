"""The common root of all errors that `models` raises. It imports nothing, so that importing it costs nothing."""


class ModelsError(Exception):
    """Something is wrong that a person can mend: the message is one sentence without patient data."""
