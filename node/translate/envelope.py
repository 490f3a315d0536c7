"""Does an input lie in what the bundle was trained on? Outside its envelope nothing is known about the result."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from models.bundle import Envelope
from models.noise import measure_noise_hu
from node.dicom.body_parts import BODY_PARTS
from node.dicom.headers import SliceHeader
from node.dicom.terms import Terms, find_word
from node.dicom.volume import CTVolume

# Positions and card are rounded to 0.01 mm, so that much more is no deviation.
_ROUNDING_MM: Final = 0.005
_DAYS_PER: Final = {"D": 1.0, "W": 7.0, "M": 365.25 / 12, "Y": 365.25}
_YEARS: Final = ("J", "A", "")  # Jahre, ans, or nothing: how years are written against the standard
_HUMAN: Final = frozenset({"", "HUMAN", "HOMO SAPIENS", "PERSON"})

# Regions by what BodyPartExamined calls them and by the words for them, for scanners that leave it empty.
_REGIONS: Final[tuple[tuple[frozenset[str], Terms], ...]] = (
    (
        frozenset({"CHEST", "THORAX", "BREAST", "LUNG", "MEDIASTINUM", "HEART"}),
        (
            *(
                "CHEST",
                "THORA*",
                "THORAKAL",
                "TORAX",
                "TORACE",
                "BREAST",
                "MAMMA*",
                "BRUST",
                "SEIN",
                "POITRINE",
                "MAMA",
            ),
            *("MAMMELLA", "BORST", "LUNG*", "LONG*", "POUMON", "POLMON*", "PULMON", "MEDIASTIN*", "OESOPHAG*", "DIBH"),
            *("ESOPHAG*", "HEART", "HERZ", "STERNUM", "胸部", "乳房", "肺"),
        ),
    ),
    (
        frozenset({"HEAD", "BRAIN", "SKULL"}),
        (
            *("HEAD", "BRAIN", "SKULL", "CRANI*", "KOPF", "SCHADEL", "SCHAEDEL", "HIRN", "TETE", "CERVEAU", "CRANE"),
            *("TESTA", "ENCEFALO", "CABEZA", "CEREBRO", "HOOFD", "HERSENEN", "頭部", "头部"),
        ),
    ),
    (
        frozenset({"NECK", "HEADNECK"}),
        ("NECK", "HALS", "HNO", "H&N", "ORL", "LARYNX", "COU", "COLLO", "CUELLO", "頸部", "颈部"),
    ),
    (
        frozenset({"ABDOMEN", "LIVER"}),
        ("ABDOM*", "ABDOMEN", "LIVER", "LEBER", "FOIE", "FEGATO", "PANCREA*", "PANKREA*", "KIDNEY", "NIERE", "腹部"),
    ),
    (
        frozenset({"PELVIS", "PROSTATE"}),
        (
            *(
                "PELVI*",
                "BECKEN",
                "BASSIN",
                "BACINO",
                "BEKKEN",
                "PROSTA*",
                "PROSTATE",
                "PROSTATA",
                "PROSTAAT",
                "RECTUM",
            ),
            *("REKTUM", "CERVIX", "UTERUS", "BLADDER", "HARNBLASE", "VESSIE", "骨盤", "盆腔"),
        ),
    ),
    (
        frozenset({"EXTREMITY", "LEG", "ARM"}),
        ("EXTREMIT*", "EXTREMITY", "FEMUR", "KNEE", "KNIE", "LEG", "BEIN", "FOOT", "ANKLE", "HUMERUS"),
    ),
)


@dataclass(frozen=True, slots=True)
class EnvelopeVerdict:
    """reason: None inside the envelope, else all that lies outside it, clauses with both numbers.

    outside: names of what lies outside. measurements: noise_hu, where it could be measured.
    """

    reason: str | None
    outside: tuple[str, ...]
    measurements: dict[str, float]


def judge_envelope(volume: CTVolume, envelope: Envelope) -> EnvelopeVerdict:
    """Compare a scan with the envelope of a bundle. What the card or the header does not say is not judged."""
    first = volume.headers[0]
    noise_hu = measure_noise_hu(volume.hu)
    z_mm, y_mm, x_mm = volume.spacing_mm
    found = [
        ("modality", _other_modality(first, envelope)),
        ("body part", _other_body_part(first, envelope)),
        ("subject", _no_patient(first)),
        *(
            ("pixel spacing", _beyond("pixel spacing", mm, envelope.pixel_spacing_mm, "mm", 3))
            for mm in sorted({round(y_mm, 4), round(x_mm, 4)})
        ),
        ("slice spacing", _beyond("slice spacing", z_mm, envelope.slice_spacing_mm, "mm", 2)),
        ("noise", _beyond("noise in soft tissue", noise_hu, envelope.noise_hu, "HU", 1)),
        ("age", _beyond("age", age_years(first), envelope.age_years, "years", 0)),
    ]
    broken = [(name, clause) for name, clause in found if clause]
    return EnvelopeVerdict(
        reason="; ".join(clause for _, clause in broken) or None,
        outside=tuple(dict.fromkeys(name for name, _ in broken)),
        measurements={} if noise_hu is None else {"noise_hu": noise_hu},
    )


def _beyond(what: str, value: float | None, limits: tuple[float, float] | None, unit: str, digits: int) -> str:
    """A clause with both numbers where a value lies outside its range; "" where it does not, or nobody knows."""
    if value is None or limits is None:
        return ""
    low, high = limits
    slack = _ROUNDING_MM if unit == "mm" else 0.0
    if low - slack <= value <= high + slack:
        return ""
    shown = int(value) if digits == 0 else f"{value:.{digits}f}"
    places = {"mm": 2, "HU": 1}.get(unit, 0)
    return (
        f"{what} {shown} {unit} lies outside what the model was trained on "
        f"({low:.{places}f} to {high:.{places}f} {unit})"
    )


def _other_modality(header: SliceHeader, envelope: Envelope) -> str:
    if header.modality == envelope.modality:
        return ""
    return f"the modality is none that the model was trained on ({envelope.modality})"


def _other_body_part(header: SliceHeader, envelope: Envelope) -> str:
    """BodyPartExamined is a code, but a hand may have typed it: only a word that DICOM or we define is repeated."""
    if envelope.body_parts is None:
        return ""
    part = " ".join("\\".join(header.attribute("BodyPartExamined")).upper().split())
    if part in envelope.body_parts:
        return "" if part else _other_region(header, envelope.body_parts)
    defined = part in BODY_PARTS or any(part in names for names, _ in _REGIONS)
    shown = part if defined else "that is no term of DICOM" if part else "absent"
    known = ", ".join(name or "absent" for name in envelope.body_parts)
    return f"body part {shown} lies outside what the model was trained on ({known})"


def _other_region(header: SliceHeader, body_parts: Sequence[str]) -> str:
    """Where BodyPartExamined is empty, a text that names regions, and none that the model was trained on."""
    for keyword in ("SeriesDescription", "ProtocolName"):
        text = " ".join(header.attribute(keyword))
        said = {names: word for names, words in _REGIONS if (word := find_word(words, text))}
        if any(names & {*body_parts} for names in said):
            return ""
        if said:
            known = ", ".join(name for name in body_parts if name)
            word = next(iter(said.values()))
            return f"BodyPartExamined is absent and {keyword} names {word}; the model was trained on {known}"
    return ""


def _no_patient(header: SliceHeader) -> str:
    """An animal or an object for quality control; every bundle is for people."""
    species = " ".join(header.attribute("PatientSpeciesDescription")).strip().upper()
    if species not in _HUMAN:
        return "PatientSpeciesDescription names an animal, and the model was trained on people"
    for keyword in ("PatientBreedDescription", "PatientSexNeutered"):
        if any(header.attribute(keyword)):
            return f"{keyword} is filled, as for animals only, and the model was trained on people"
    if header.attribute("QualityControlSubject") == ("YES",):
        return "QualityControlSubject is YES: a phantom, and the model was trained on people"
    return ""


def age_years(header: SliceHeader) -> float | None:
    """PatientAge such as 004M (PS3.5 6.2, AS), or StudyDate minus PatientBirthDate; None where neither says it.

    Where they contradict each other the lower one counts: one is a default of the console, and children must be seen.
    """
    said = [_written_age("".join(header.attribute("PatientAge"))), _age_by_birth(header)]
    return min((years for years in said if years is not None), default=None)


def _written_age(text: str) -> float | None:
    number = text.strip().upper().rstrip("DWMYJA .")
    unit = text.strip().upper()[len(number) :].strip(" .")
    if not (number.isascii() and number.isdigit()) or unit not in (*_DAYS_PER, *_YEARS):
        return None
    return float(int(number) * _DAYS_PER.get(unit, _DAYS_PER["Y"]) / _DAYS_PER["Y"])


def _age_by_birth(header: SliceHeader) -> float | None:
    born, studied = _date(header.patient.birth_date), _date("".join(header.attribute("StudyDate")))
    if born is None or studied is None or studied < born:
        return None
    return (studied - born).days / _DAYS_PER["Y"]


def _date(text: str) -> date | None:
    try:
        return datetime.strptime(text.strip().replace(".", ""), "%Y%m%d").date()
    except ValueError:
        return None


def describe_outside(names: Sequence[str]) -> str:
    """What lies outside, by name only, for a log that holds no patient data."""
    return f"the scan lies outside what the model was trained on: {', '.join(names)}"
