"""Owns the common root of what `models` raises for whoever runs it; imports nothing, so that it costs nothing."""


class ModelsError(Exception):
    """Something is wrong that a person can mend: the message is one sentence without patient data."""
