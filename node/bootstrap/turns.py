"""What the settings say about whose turn may come now."""

from datetime import datetime

from config.queue import hours_of
from config.settings import Settings
from storage.states import Priority
from storage.turns import Rules


def rules_at(settings: Settings, now: datetime) -> Rules:
    """The rules of a moment. Outside the hours of `queue.off_peak` no job of that priority begins."""
    hours = hours_of(settings.queue.off_peak)
    begins = hours is None or hours.has(now, settings.node.zone())
    latest = Priority.OFF_PEAK if begins else Priority.ROUTINE
    return Rules(latest, settings.queue.most_running_per_sender)
