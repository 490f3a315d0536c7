"""RULES: for every rule inputs that break it, and ordinary scans that break none."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from node.dicom.content import COPIED, GATE
from node.dicom.headers import SliceHeader, read_header
from node.receive.eligibility import Accept, EligibilityPolicy, Skip, Verdict, judge
from node.receive.gate_rule import Outcome, WordRule
from node.receive.rules import RULES
from tests.builders import make_series, put_raw

POLICY = EligibilityPolicy()
AXIAL = "ORIGINAL\\PRIMARY\\AXIAL"

# rule -> values of all slices that break it. A list of values goes to the slices in turn.
BROKEN: dict[str, list[dict[str, Any]]] = {
    "several_frames": [{"NumberOfFrames": "2"}],
    "screen_capture": [{"ImageType": f"{AXIAL}\\DOSE_INFO"}],
    "not_ct_image": [{"Modality": "MR"}],
    "synthetic": [{"SyntheticData": "YES"}],
    "localizer": [{"ImageType": "ORIGINAL\\PRIMARY\\LOCALIZER"}],
    "spectral_image": [
        {"ImageType": f"{AXIAL}\\VMI\\ME60KEV\\DEMEP"},
        {"ImageType": f"{AXIAL}\\MONO_60"},
        {"ImageType": f"{AXIAL}\\GSI"},
        {"ImageType": f"{AXIAL}\\MAT_VALUE_BASED"},
        {"ImageType": f"{AXIAL}\\CT_SOM10 VNC"},
        {"ImageType": f"{AXIAL}\\IODINE_MAP"},
        {"ImageType": "DERIVED\\PRIMARY\\AXIAL\\SUBTRACTION"},
    ],
    "dual_energy_half": [
        {"ImageType": f"{AXIAL}\\CT_SOM7 SPI DUAL\\STD\\DE\\DET_B"},
        {"ImageType": f"{AXIAL}\\CT_SOM7 SPI\\DE", "KVP": "140"},
        {"KVP": "80", "SeriesDescription": "DE_Abdomen 80kV"},
        {"KVP": "140", "ProtocolName": "Dual Energy Thorax"},
    ],
    "time_resolved_type": [{"ImageType": f"{AXIAL}\\CT_SOM7 SPI\\RESP"}, {"ImageType": f"{AXIAL}\\CARDIAC_GATED"}],
    "derived": [
        {"ImageType": "DERIVED\\SECONDARY\\AXIAL"},
        {"ImageType": "DERIVED\\PRIMARY\\AXIAL\\CT_SOM5 SPI"},
        {"ImageType": "DERIVED\\PRIMARY\\AXIAL\\CT_SOM5 MPR"},
        {"ImageType": "ORIGINAL\\PRIMARY\\AXIAL\\MIP"},
        {"ImageType": "DERIVED\\SECONDARY\\AXIAL\\MIP", "SeriesDescription": "iMAR"},
        {"ImageType": "DERIVED\\SECONDARY\\REFORMATTED"},
        {"ImageType": "DERIVED\\SECONDARY\\AXIAL\\JPEG LOSSLESS", "LossyImageCompression": "01"},
    ],
    "calculated_volume": [{"VolumeBasedCalculationTechnique": "MAX_IP"}, {"VolumetricProperties": "DISTORTED"}],
    "not_original_axial": [{"ImageType": "ORIGINAL\\PRIMARY\\SAGITTAL"}, {"ImageType": None}],
    "oral_contrast": [
        {"ContrastBolusAgent": "Gastrografin"},
        {"ContrastBolusAgent": "Ultravist", "ContrastBolusRoute": "PER OS"},
        {"ContrastBolusAgent": "", "ContrastBolusRoute": "RECTAL"},
    ],
    "contrast_agent": [
        {"ContrastBolusAgent": "ULTRAVIST 370"},
        {"ContrastBolusAgent": "NON IONIC"},
        {"ContrastBolusAgent": "APPLIED"},
        {"ContrastBolusAgent": "GASTRO & OMNI", "ContrastBolusRoute": "Oral & IV"},
        {"ContrastBolusAgent": "Nocontrastin"},
    ],
    "contrast_bolus": [
        {"ContrastBolusVolume": "80"},
        {"ContrastBolusRoute": "IV"},
        {"ContrastBolusStartTime": "101010"},
        {"ContrastBolusTotalDose": "37.5"},
        {"ContrastFlowRate": "2.5"},
        {"ContrastBolusIngredient": "IODINE"},
        {"ContrastBolusAgent": "NONE", "ContrastBolusVolume": "80"},
    ],
    "multi_energy": [{"MultienergyCTAcquisition": "YES"}],
    "not_hu": [{"RescaleType": "US"}, {"RescaleType": "ED"}, {"RescaleType": "HU_MOD"}, {"RescaleSlope": "-1"}],
    "density_kernel": [
        {"ConvolutionKernel": "Sd36f"},
        {"ConvolutionKernel": "Sm40"},
        {"ConvolutionKernel": "SD36s\\3"},
        {"ConvolutionKernel": "Br40d\\Sd"},
        {"ConvolutionKernel": "Spr36f"},
    ],
    "cone_beam": [
        {"Manufacturer": "Varian Medical Systems", "ManufacturerModelName": "Halcyon"},
        {"ManufacturerModelName": "TrueBeam STx"},
        {"Manufacturer": "Accuray Incorporated", "ManufacturerModelName": "Radixact"},
        {"Manufacturer": "Brainlab AG", "ManufacturerModelName": "ExacTrac Dynamic"},
        {"Manufacturer": "Elekta"},
    ],
    "cone_beam_option": [{"ScanOptions": "CBCT"}, {"ScanOptions": "HELIX\\MVCT"}],
    "megavoltage": [{"KVP": "3500"}, {"KVP": "6000"}],
    "time_resolved": [
        {"RespiratoryTriggerType": "TIME"},
        {"NumberOfTemporalPositions": "10"},
        {"ScanOptions": "RG"},
        {"CardiacSynchronizationTechnique": "RETROSPECTIVE"},
        {"TemporalPositionIdentifier": "3"},
    ],
    "respiratory_phase": [
        {"SeriesDescription": "Thorax 4D 3.0 B30f 50% Ex"},
        {"SeriesDescription": "0 % In"},
        {"SeriesDescription": "Thorax 30pct Ex"},
        {"ImageComments": "Respiratory phase 30%"},
        {"SeriesDescription": "P4^P100, Gated, 50.0%A"},
    ],
    "no_patient_id": [{"PatientID": ""}, {"PatientID": None}],
    "single_line": [{"Rows": 1}, {"Columns": 1}, {"Rows": 1, "Columns": 1}],
    "pixel_format": [
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"BitsAllocated": 32},
        {"SamplesPerPixel": 3},
        {"HighBit": 15, "BitsStored": 12},
        {"PixelRepresentation": 2},
    ],
    "no_geometry": [
        {"ImagePositionPatient": None},
        {"ImagePositionPatient": "-125,0\\-125,0\\3,0"},
        {"PixelSpacing": "1.0"},
        {"Rows": None},
    ],
    "patient_position": [{"PatientPosition": "HFDX"}],
    "mixed_patients": [{"PatientID": ["A", "B"]}],
    "mixed_studies": [{"StudyInstanceUID": ["1.2.3", "1.2.4"]}],
    "mixed_series": [{"SeriesInstanceUID": ["1.2.3", "1.2.4"]}],
    "frame_of_reference": [{"FrameOfReferenceUID": None}],
    "long_study_uid": [{"StudyInstanceUID": "1.2" + ".3" * 40}],
    "long_series_uid": [{"SeriesInstanceUID": "1.2" + ".3" * 40}],
    "long_frame_uid": [{"FrameOfReferenceUID": "1.2" + ".3" * 40}],
    "repeated_instance": [{"SOPInstanceUID": "1.2.3"}],
    "mixed_reconstructions": [
        {"ConvolutionKernel": ["B30f", "B70f"]},
        {"KVP": ["120", "100"]},
        {"ReconstructionDiameter": ["500", "350"]},
    ],
    "mixed_exposures": [
        {"Exposure": ["100", "40"]},
        {"XRayTubeCurrent": ["90", "200"]},
        {"ExposureTime": ["500", "1000"]},
    ],
    "metal_artifact_reduction": [
        {"ImageType": f"{AXIAL}\\CT_SOM7 SPI\\IMAR"},
        {"ImageType": "DERIVED\\SECONDARY\\AXIAL\\O-MAR"},
        {"ImageType": "DERIVED\\SECONDARY\\REFORMATTED\\MAR"},
        {"SeriesDescription": "Becken SmartMAR"},
        {"SeriesDescription": "Pelvis SEMAR 1.0"},
        {"ConvolutionKernel": "Br40d\\iMAR"},
        {"DerivationDescription": "Metal Artifact Reduction"},
    ],
    "contrast_unknown": [{"ContrastBolusAgent": "UNKNOWN"}, {"ContrastBolusAgent": "unk"}],
    "contrast_said": [
        {"SeriesDescription": "Neck C+ 60s"},
        {"SeriesDescription": "Thorax mit KM"},
        {"SeriesDescription": None, "ImageComments": "POST CONTRAST"},
        {"SeriesDescription": "5mm", "ProtocolName": "CT CHEST W CONTRAST"},
        {"SeriesDescription": "Abdomen venous 3.0"},
        {"SeriesDescription": "Thorax+C"},
    ],
    "spectral_said": [
        {"SeriesDescription": "Virtual Non Contrast"},
        {"SeriesDescription": "Thorax Mono+ 60 keV"},
        {"SeriesDescription": "MonoE 50keV"},
        {"SeriesDescription": "Rho/Z"},
        {"DerivationDescription": "Effective atomic number"},
        {"SeriesDescription": "Iodine subtraction"},
    ],
    "monoenergetic_said": [{"SeriesDescription": "Thorax Mono"}],
    "processed_said": [{"SeriesDescription": "sCT"}, {"SeriesDescription": "MRCAT"}, {"ImageComments": "deformed CT"}],
    "percent_said": [{"SeriesDescription": "50 %"}, {"ImageComments": "Thorax 30%"}],
    "dual_energy_mixed": [{"ImageType": f"{AXIAL}\\CT_SOM7 SPI DUAL\\STD\\DE\\DET_AB"}],
    "density_said": [{"SeriesDescription": "Thorax DirectDensity"}, {"SeriesDescription": "Head 1.0 Sd36"}],
    "cone_beam_said": [
        {"SeriesDescription": "CBCT"},
        {"SeriesDescription": "Cone-beam kV"},
        {"ProtocolName": "MVCT fine"},
    ],
    "time_said": [
        {"SeriesDescription": "4D Average"},
        {"SeriesDescription": "Thorax AveIP"},
        {"SeriesDescription": "T-MIP"},
        {"ProtocolName": "4DCT_Lung"},
    ],
    "gating_said": [{"SeriesDescription": "Thorax resp. gated"}, {"ProtocolName": "Lung_RESP"}],
    "phantom_said": [
        {"SeriesDescription": "Catphan604 3mm"},
        {"ProtocolName": "QA_daily"},
        {"PatientName": "Phantom^Rando"},
    ],
    "tilt_by_tag": [{"GantryDetectorTilt": "12"}, {"GantryDetectorTilt": "-0.8"}, {"GantryDetectorTilt": "30"}],
    "several_acquisitions": [
        {"AcquisitionNumber": ["2"] * 5 + ["3"] * 5, "ScanOptions": "HELICAL MODE"},
        {"AcquisitionNumber": ["2"] * 5 + ["3"] * 5, "SpiralPitchFactor": 0.9},
        {"AcquisitionNumber": ["1", "2"]},
    ],
}
# Judged elsewhere: what make_series cannot write as a text.
ELSEWHERE = {"transfer_syntax", "mixed_pixel_format", "mixed_objects"}

# What hospitals send every day, and what only looks like one of the words.
ORDINARY: list[dict[str, Any]] = [
    {"ImageType": f"{AXIAL}\\CT_SOM7 SPI DUAL\\STD\\SNRG\\DET_AB"},
    {"ImageType": f"{AXIAL}\\CT_SOM10 DET3D\\T1\\COUNT_2SRC\\CONVCT"},
    {"ImageType": f"{AXIAL}\\CT_SOM5 SEQ"},
    {"ImageType": "original\\primary\\axial"},
    {"ImageType": "ORIGINAL \\PRIMARY \\AXIAL "},
    {"ImageType": "ORIGINAL\\PRIMARY\\VOLUME"},
    {"ImageType": "ORIGINAL\\PRIMARY\\OTHER"},
    {"ImageType": "ORIGINAL\\PRIMARY"},
    {"ImageType": "ORIGINAL\\SECONDARY\\AXIAL"},
    {"ImageType": "['ORIGINAL', 'PRIMARY', 'AXIAL', 'CT_SOM5 SPI']"},
    {"ImageType": "DERIVED\\PRIMARY\\AXIAL\\JP2K LOSSLESS"},
    {"ImageType": "DERIVED\\SECONDARY\\AXIAL", "DerivationDescription": "Lossless JPEG compression"},
    {"RescaleType": "Hounsfield Units"},
    {"RescaleType": "hu"},
    {"SeriesDescription": "Santa Maria palmar 3.0", "ProtocolName": "MARTHA"},
    {"PatientName": "Mar^Vnc^Mono", "ReferringPhysicianName": "CBCT^Iodine"},
    {"SeriesDescription": "Thorax DIBH resp. 3.0 B30f", "ProtocolName": "Breast_DIBH"},
    {"SeriesDescription": "ASIR 50% 2.5mm"},
    {"RespiratoryMotionCompensationTechnique": "BREATH_HOLD", "CardiacSynchronizationTechnique": "NONE"},
    {"NumberOfTemporalPositions": "1", "TemporalPositionIdentifier": "1"},
    {"SeriesDescription": "TAC DE PELVIS", "KVP": "140"},
    {"SeriesDescription": "C-Spine 2.0", "ProtocolName": "2 Chest C-/Thorax"},
    {"SeriesDescription": "Thorax W/O CONTRAST"},
    {"SeriesDescription": "Thorax nativ", "ProtocolName": "Thorax mit KM"},
    {"SeriesDescription": "Thorax ohne KM"},
    {"SeriesDescription": "W AND W/O CONTRAST"},
    {"SeriesDescription": "Breast with bolus 5 mm"},
    {"StudyDescription": "CT CHEST W CONTRAST"},
    {"ContrastBolusAgent": "", "ContrastBolusVolume": "0", "ContrastBolusStartTime": "000000"},
    {"ContrastBolusAgent": "NONE", "ContrastBolusRoute": "IV"},
    {"ContrastBolusRoute": "NONE"},
    {"GantryDetectorTilt": "0.2"},
    {"AcquisitionNumber": ["1", "1", "1", "2", "2", "2", "3", "3", "3", "4"]},
    {"AcquisitionNumber": ["4", "4", "4", "", "4", "4", "4", "4", "4", "4"], "ScanOptions": "HELIX"},
    {"ConvolutionKernel": ["B30f", ""]},
    {"KVP": ["120", "120.0"]},
    {"XRayTubeCurrent": ["200", "230", "225", "270", "300", "290", "260", "200", "170", "150"]},
    {"Exposure": ["68", "70", "72", "75", "90", "110", "104", "96", "88", "80"]},
    {"Manufacturer": "Philips", "ManufacturerModelName": "Brilliance Big Bore"},
    {"ConvolutionKernel": "SOFT"},
]


def verdict_on(folder: Path, values: dict[str, Any], policy: EligibilityPolicy = POLICY) -> Verdict:
    return judge(headers_of(folder, values), policy)


def headers_of(folder: Path, values: dict[str, Any]) -> list[SliceHeader]:
    """Headers of ten slices with these values; None removes an attribute."""

    def edit(ds: Dataset, z: int) -> None:
        for keyword, value in values.items():
            chosen = value[z % len(value)] if isinstance(value, list) else value
            if isinstance(chosen, str):
                put_raw(ds, keyword, chosen.encode())
            elif chosen is not None:
                setattr(ds, keyword, chosen)
            elif keyword in ds:
                delattr(ds, keyword)

    return [read_header(path) for path in make_series(folder, rows=8, columns=8, edit=edit)]


def test_every_rule_is_tried() -> None:
    assert {rule.code for rule in RULES} == BROKEN.keys() | ELSEWHERE
    assert len({rule.code for rule in RULES}) == len(RULES)


def test_every_rule_says_what_it_reads_and_who_says_so() -> None:
    known = {*GATE, *(keyword for keyword, _ in COPIED), "TransferSyntaxUID"}
    for rule in RULES:
        assert set(rule.attributes) <= known, rule.code
        assert len(rule.source) > 5, rule.code
        if isinstance(rule, WordRule):
            assert set(rule.attributes) <= set(GATE), rule.code


@pytest.mark.parametrize(
    ("code", "values"), [(code, values) for code, inputs in BROKEN.items() for values in inputs], ids=str
)
def test_a_broken_rule_refuses_or_holds_with_its_reason(tmp_path: Path, code: str, values: dict[str, Any]) -> None:
    (rule,) = (rule for rule in RULES if rule.code == code)
    verdict = verdict_on(tmp_path, values)
    if rule.outcome is Outcome.SKIP:
        assert isinstance(verdict, Skip)
        assert (verdict.code, rule.reason in verdict.reason) == (code, True)
    else:
        assert isinstance(verdict, Accept)
        assert rule.reason in verdict.doubt


@pytest.mark.parametrize("values", ORDINARY, ids=str)
def test_what_hospitals_send_every_day_is_accepted_without_doubt(tmp_path: Path, values: dict[str, Any]) -> None:
    assert verdict_on(tmp_path, values) == Accept(slices=10, spacing_mm=3.0)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"ImageType": f"{AXIAL}\\VMI"}, "ImageType names VMI: "),
        ({"ConvolutionKernel": "Sd36f"}, "ConvolutionKernel names SD36F: "),
        ({"ContrastBolusVolume": "100"}, "ContrastBolusVolume is filled: "),
        ({"ConvolutionKernel": ["B30f", "B70f"]}, "ConvolutionKernel has 2 values: "),
        ({"KVP": "3500"}, "KVP is 3500: "),
        ({"RescaleSlope": "-1"}, "RescaleSlope is -1: "),
        ({"RescaleSlope": "one"}, "RescaleSlope is absent or not a number: "),
        ({"RescaleType": "ED"}, "RescaleType names another unit: "),
        ({"BitsAllocated": 8}, "BitsAllocated is 8: "),
        ({"HighBit": 15, "BitsStored": 12}, "HighBit is 15 and BitsStored 12: "),
        ({"Rows": 1}, "Rows is 1 and Columns 8: "),
        ({"PixelSpacing": "1,0\\1,0"}, "PixelSpacing is absent or not a number: "),
        ({"PatientName": ["A", "B"], "PatientSex": ["F", "M"]}, "PatientName and PatientSex differ: "),
        ({"PatientBirthDate": ["19500101", "19510101"]}, "PatientBirthDate differs: "),
        ({"PatientID": ""}, "the patient ID is empty (PatientID)"),
    ],
    ids=str,
)
def test_a_reason_names_the_attribute(tmp_path: Path, values: dict[str, Any], words: str) -> None:
    verdict = verdict_on(tmp_path, values)
    assert isinstance(verdict, Skip)
    assert verdict.reason.startswith(words)


def test_a_reason_repeats_no_free_text(tmp_path: Path) -> None:
    text = "VNC of Mrs Secret, born 1950, CBCT C+"
    verdict = verdict_on(tmp_path, {"SeriesDescription": text, "ImageComments": text, "ProtocolName": text})
    assert isinstance(verdict, Accept)
    assert "SeriesDescription names VNC" in verdict.doubt
    assert "secret" not in verdict.doubt.lower()
    assert "1950" not in verdict.doubt


def test_all_doubts_are_told_together(tmp_path: Path) -> None:
    verdict = verdict_on(tmp_path, {"SeriesDescription": "iMAR C+", "GantryDetectorTilt": "5"})
    assert isinstance(verdict, Accept)
    assert [clause in verdict.doubt for clause in ("names IMAR", "names C+", "is 5 degrees")] == [True] * 3


@pytest.mark.parametrize("values", BROKEN["metal_artifact_reduction"], ids=str)
def test_metal_artefact_reduction_is_processed_where_the_site_says_so(tmp_path: Path, values: dict[str, Any]) -> None:
    policy = EligibilityPolicy(metal_artifact_reduction="process")
    assert verdict_on(tmp_path, values, policy) == Accept(slices=10, spacing_mm=3.0)


def test_cohorts_may_ask_for_enhanced_scans_too(tmp_path: Path) -> None:
    policy = EligibilityPolicy(takes_contrast=True)
    for number, code in enumerate(("contrast_agent", "oral_contrast", "contrast_bolus", "contrast_said")):
        verdict = verdict_on(tmp_path / str(number), BROKEN[code][0], policy)
        assert verdict == Accept(slices=10, spacing_mm=3.0), code


def test_a_part_of_the_slices_is_counted(tmp_path: Path) -> None:
    verdict = verdict_on(tmp_path, {"ImageType": [AXIAL] * 9 + ["ORIGINAL\\PRIMARY\\LOCALIZER"]})
    assert isinstance(verdict, Skip)
    assert verdict.reason.endswith("(1 of 10 images)")


def test_sequences_of_contrast_count(tmp_path: Path) -> None:
    def edit(ds: Dataset, _z: int) -> None:
        ds.ContrastBolusAdministrationRouteSequence = [Dataset()]
        ds.ContrastBolusAdministrationRouteSequence[0].CodeMeaning = "Intravenous route"

    headers = [read_header(path) for path in make_series(tmp_path, rows=8, columns=8, edit=edit)]
    verdict = judge(headers, POLICY)
    assert isinstance(verdict, Skip)
    assert verdict.code == "contrast_bolus"


@pytest.mark.parametrize("name", ["philips_chest_ncct", "siemens_chest_ncct"])
def test_real_native_scans_are_accepted_without_doubt(real_data: Path, name: str) -> None:
    headers = [read_header(path) for path in sorted((real_data / "ct" / name).iterdir())]
    verdict = judge(headers, POLICY)
    assert isinstance(verdict, Accept)
    assert (verdict.slices, verdict.doubt) == (len(headers), "")


def test_real_tube_current_modulation_is_one_exposure(real_data: Path) -> None:
    paths = sorted((real_data / "ct" / "siemens_chest_ncct").iterdir())
    headers = [read_header(path) for path in paths]
    assert len({header.attribute("XRayTubeCurrent") for header in headers}) > 10
    assert isinstance(judge(headers, POLICY), Accept)


def test_headers_read_without_the_gate_attributes_are_an_error(tmp_path: Path) -> None:
    headers = [replace(header, captured={}) for header in headers_of(tmp_path, {})]
    with pytest.raises(KeyError):
        judge(headers, POLICY)
