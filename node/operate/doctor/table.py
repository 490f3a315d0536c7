"""The table of all checks, in the order of the report."""

from collections.abc import Sequence
from typing import Final

from node.operate.doctor import constancy, listening, machine, model, objects, peers, processes, settings, store
from node.operate.doctor.report import Check, StoreCheck

CHECKS: Final[Sequence[Check | StoreCheck]] = (
    Check("settings", settings.settings_file),
    Check("data folder", machine.data_folder),
    Check("disk", machine.space),
    StoreCheck("disk pace", machine.hours_left),
    Check("processes", processes.processes),
    Check("database", store.database, limit_s=store.CHECK_S + 2.0),
    StoreCheck("spool", store.spool),
    Check("object store", objects.object_store, limit_s=objects.CHECK_S),
    StoreCheck("backup", store.backup),
    StoreCheck("alerts", store.alerts),
    StoreCheck("pauses", store.pauses),
    Check("receiver port", listening.receiver_port),
    Check("query port", listening.query_port),
    Check("own AE title", listening.own_ae_title, limit_s=8.0),
    Check("callers", peers.callers),
    Check("count_from", peers.counting_peer, limit_s=8.0),
    Check("certificates", settings.certificates),
    Check("bundle", model.bundle),
    Check("device", model.device, limit_s=model.DEVICE_S),
    StoreCheck("constancy", constancy.constancy),
    Check("clock", machine.clock),
    Check("log", machine.log_folder),
    Check("page", listening.page),
    StoreCheck("page users", listening.page_users),
)
"""Destinations stand behind these, one check for each (`peers.destination_checks`)."""
