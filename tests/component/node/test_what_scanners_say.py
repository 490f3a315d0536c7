"""What scanners write and operators type: no word stops an ordinary planning scan, none that matters is overlooked."""

from pathlib import Path
from typing import Any

import pytest

from node.receive.eligibility import Accept
from tests.component.node.test_rules import verdict_on

AXIAL = "ORIGINAL\\PRIMARY\\AXIAL"
CONFIDENCE = {
    "Manufacturer": "SIEMENS",
    "ManufacturerModelName": "SOMATOM Confidence",
    "ImageType": f"{AXIAL}\\CT_SOM5 SPI",
}
GO_OPEN = {
    "Manufacturer": "Siemens Healthineers",
    "ManufacturerModelName": "SOMATOM go.Open Pro",
    "ImageType": f"{AXIAL}\\CT_SOM10 SPI\\STD",
}
X_CITE = {
    "Manufacturer": "Siemens Healthineers",
    "ManufacturerModelName": "SOMATOM X.cite",
    "ImageType": f"{AXIAL}\\CT_SOM10 DET3D\\T1\\COUNT_2SRC\\CONVCT",
}
DISCOVERY = {
    "Manufacturer": "GE MEDICAL SYSTEMS",
    "ManufacturerModelName": "Discovery RT",
    "ScanOptions": "HELICAL MODE",
    "ConvolutionKernel": "STANDARD",
}
REVOLUTION = DISCOVERY | {"ManufacturerModelName": "Revolution CT", "ScanOptions": "AXIAL MODE"}
BIG_BORE = {
    "Manufacturer": "Philips",
    "ManufacturerModelName": "Brilliance Big Bore",
    "ImageType": f"{AXIAL}\\HELIX",
    "ScanOptions": "HELIX",
    "ConvolutionKernel": "B",
    "FilterType": "B",
}
AQUILION = {
    "Manufacturer": "TOSHIBA",
    "ManufacturerModelName": "Aquilion/LB",
    "ScanOptions": "HELICAL_CT",
    "ConvolutionKernel": "FC13",
}
EXCEED = AQUILION | {"Manufacturer": "CANON_MEC", "ManufacturerModelName": "Aquilion Exceed LB", "FilterType": "ORG"}

ORDINARY: list[tuple[dict[str, str], dict[str, str]]] = [
    (CONFIDENCE, {"SeriesDescription": "Thorax 3.0 B31f", "ConvolutionKernel": "B31f"}),
    (CONFIDENCE, {"SeriesDescription": "DIBH", "ProtocolName": "01_Mamma_links_DIBH (Erwachsener)"}),
    (CONFIDENCE, {"SeriesDescription": "Mamma li", "ConvolutionKernel": "Br40d\\3"}),
    (CONFIDENCE, {"SeriesDescription": "RT THORAX NATIV", "ConvolutionKernel": "I31f\\3"}),
    (GO_OPEN, {"SeriesDescription": "RT_Thorax_2.0_Br38_S3", "ConvolutionKernel": "Br38f\\3"}),
    (GO_OPEN, {"SeriesDescription": "Thorax nativ", "ProtocolName": "Thorax_KM_portalvenös"}),
    (X_CITE, {"SeriesDescription": "Thorax C-"}),
    (X_CITE, {"SeriesDescription": "Planungs-CT"}),
    (X_CITE, {"SeriesDescription": "Virtuelle Simulation Thorax KM-"}),
    (CONFIDENCE, {"SeriesDescription": "Thorax ohne KM, SD 3mm"}),
    (CONFIDENCE, {"SeriesDescription": "Hals C", "ImageComments": "Mono L"}),
    (DISCOVERY, {"SeriesDescription": "STD 2.5mm"}),
    (DISCOVERY, {"SeriesDescription": "BREAST TANGENTS w/o", "ProtocolName": "6.4 RT BREAST SUPINE"}),
    (DISCOVERY, {"SeriesDescription": "Scanner dosimétrique sans injection"}),
    (DISCOVERY, {"SeriesDescription": "Sein gauche apnée, thorax non injecté"}),
    (DISCOVERY, {"SeriesDescription": "Resp hold insp"}),
    (
        DISCOVERY,
        {"SeriesDescription": "CT CHEST WO W/ ARMS UP", "ContrastFlowRate": "0\\0", "ContrastBolusVolume": "0.0"},
    ),
    (REVOLUTION, {"SeriesDescription": "ASiR-V 50%"}),
    (REVOLUTION, {"SeriesDescription": "ART replan, Phase 2"}),
    (BIG_BORE, {"SeriesDescription": "Monte Carlo", "ImageComments": "Monte Carlo"}),
    (BIG_BORE, {"SeriesDescription": "Mammella sx senza mdc", "ProtocolName": "TORACE MDC"}),
    (BIG_BORE, {"SeriesDescription": "Torace basale"}),
    (BIG_BORE, {"SeriesDescription": "TC simulación mama izq sin contraste"}),
    (BIG_BORE, {"SeriesDescription": "Mamma links zonder contrast"}),
    (BIG_BORE, {"SeriesDescription": "Longen blanco 3mm, iDose 4"}),
    (BIG_BORE, {"SeriesDescription": "Tórax s/contraste"}),
    (AQUILION, {"SeriesDescription": "Kyobu tanjun 2mm"}),
    (AQUILION, {"SeriesDescription": "胸部単純"}),
    (AQUILION, {"SeriesDescription": "Chest 3.0", "PatientName": "Alderson^Octavius^QA"}),
    (EXCEED, {"SeriesDescription": "胸部 非造影 AiCE"}),
    (EXCEED, {"SeriesDescription": "Chiryo keikaku", "ContrastBolusAgent": "なし"}),
    (EXCEED, {"SeriesDescription": "грудь без контраста"}),
]

SAID_BY_THE_TEXT = (
    *("Thorax mono+ 55", "MonoE 60", "Thorax SPP 2.0 Qr40", "Thorax virtuell nativ", "virtuel sans contraste", "Z_EFF"),
    *("GSI MD", "Iodine no water", "Iodkarte", "mappa iodio", "UniformHU", "DirectSPR", "ElectronDensity"),
    *("Elektronendichte", "Thorax Sd36", "DE 80kV", "DE mixed", "T=50%", "T50%", "50 %", "GATED_0", "Phase50"),
    *("CT Phase 0", "MIP 4D", "AIP", "t-MIP", "AverageCT", "AVE", "Mid-ventilation", "Max Exhale", "BestDiast 75 %"),
    *("KM 70s", "Thorax portalvenös", "spätvenös", "Spaetphase", "art. Phase", "Thorax p.v.", "IV contrast"),
    *("Thorax +C", "Chest CE", "post KM", "Ultravist 300", "mit Imeron", "avec IV", "thorax injecté", "IV+"),
    *("con m.d.c.", "c/ contraste", "C/C", "na contrast", "Thorax delayed", "arterielle Phase", "artérielle", "tardif"),
    *("胸部造影CT", "胸部CE", "胸部增强", "с контрастом", "Thorax venøs", "sCT", "pseudo CT", "MPR Axial"),
)

DANGEROUS: list[dict[str, Any]] = [
    {"ContrastFlowRate": "3\\3"},
    {"ContrastFlowDuration": "30\\20"},
    {"ContrastBolusAgent": "none", "ContrastFlowRate": "2.5\\2.5"},
    {"ContrastBolusVolume": "80ml"},
    {"ContrastBolusStartTime": "093011.12"},
    {"ContrastBolusAgent": "Imeron 350"},
    {"ScanOptions": "CINE MODE"},
    {"ScanOptions": "HELICAL MODE\\CINE"},
    {"ScanOptions": "HELICAL MODE\\GSI"},
    {"ImageType": f"{AXIAL}\\CT_SOM10 SPP"},
    {"ImageType": f"{AXIAL}\\SBI"},
    {"ImageType": f"{AXIAL}\\UNIFORM_HU"},
    {"ImageType": f"{AXIAL}\\AVERAGE_CT"},
    {"ImageType": f"{AXIAL}\\CT_SOM7 SPI\\TAVG"},
    {"ImageType": f"{AXIAL}\\MIN_IP"},
    {"ImageType": f"{AXIAL}\\RESPIRATORY"},
    {"Manufacturer": "SIEMENS", "ManufacturerModelName": "ARTISTE MVCB"},
    {"Manufacturer": "Mitsubishi", "ManufacturerModelName": "Vero4DRT"},
    {"Manufacturer": "RefleXion", "ManufacturerModelName": "X1"},
    {"Manufacturer": "Planmeca", "ManufacturerModelName": "ProMax"},
]


def in_utf8(values: dict[str, Any]) -> dict[str, Any]:
    return {"SpecificCharacterSet": "ISO_IR 192", **values}


@pytest.mark.parametrize(("scanner", "values"), ORDINARY, ids=str)
def test_no_word_stops_an_ordinary_planning_scan(
    tmp_path: Path, scanner: dict[str, str], values: dict[str, str]
) -> None:
    assert verdict_on(tmp_path, in_utf8(scanner | values)) == Accept(slices=10, spacing_mm=3.0)


@pytest.mark.parametrize("text", SAID_BY_THE_TEXT)
def test_a_text_that_says_what_is_wrong_is_not_overlooked(tmp_path: Path, text: str) -> None:
    verdict = verdict_on(tmp_path, in_utf8({"SeriesDescription": text, "ProtocolName": "Thorax"}))
    reason = verdict.doubt if isinstance(verdict, Accept) else verdict.reason
    assert reason.startswith("SeriesDescription names "), verdict


@pytest.mark.parametrize("values", DANGEROUS, ids=str)
def test_an_attribute_that_says_what_is_wrong_is_not_overlooked(tmp_path: Path, values: dict[str, Any]) -> None:
    verdict = verdict_on(tmp_path, values)
    assert not isinstance(verdict, Accept) or verdict.doubt
