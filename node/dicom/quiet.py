"""Silence for what pydicom says about values that are foreign, and therefore kept."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Silence pydicom's warnings about a source's values, which are kept as they are on purpose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
