"""The report that a physicist signs before a bundle is used for patients."""

from typing import Final

REPORT_MARK: Final = "syncect-commission-of:"
"""Stands in every file of a report, before the digest of the bundle; `models accept` looks for it."""
