"""The settings as they may be shown: without passwords and without the path of the webhook, which is a secret too."""

from typing import Any
from urllib.parse import urlsplit

from config.settings import Settings
from storage.database import Database


def shown_settings(settings: Settings) -> dict[str, Any]:
    """The whole tree as JSON has it; raises UnusableUrl where `node.database_url` is no URL of a database."""
    values: dict[str, Any] = settings.model_dump(mode="json")
    values["node"]["database_url"] = Database.masked_url(settings.node.url())
    values["alerts"]["webhook"] = _address(settings.alerts.webhook)
    return values


def _address(url: str) -> str:
    """Scheme, host and port."""
    if not url:
        return ""
    parts = urlsplit(url)
    rest = "/..." if parts.path.strip("/") or parts.query or parts.fragment else ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{rest}"
