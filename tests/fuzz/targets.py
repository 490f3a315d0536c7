"""Every target, by its name."""

from typing import Final

from tests.fuzz.dicom_targets import DICOM
from tests.fuzz.neighbour_targets import NEIGHBOURS
from tests.fuzz.rule_targets import RULES
from tests.fuzz.site_targets import SITE
from tests.fuzz.target import Target
from tests.fuzz.web_targets import WEB
from tests.fuzz.wire_targets import WIRE

TARGETS: Final[dict[str, Target]] = {
    target.name: target for target in (*WIRE, *NEIGHBOURS, *DICOM, *RULES, *SITE, *WEB)
}
