"""The rules of the input gate as one table, RULES: what each looks at, what it looks for, what follows and who says so.

`syncect series rules` prints it. The first rule with SKIPPED that a series breaks is its reason; those with HELD let it
be translated and are told together to the person who then decides. Reasons name attributes and words of this table,
never what else a header holds.
"""

from collections.abc import Callable
from typing import Final

from config.syntax import MAX_UID_CHARS
from node.dicom.constants import SECONDARY_CAPTURE_CLASSES, STORED_CLASSES
from node.dicom.headers import SliceHeader
from node.dicom.pixels import can_decode
from node.receive import findings
from node.receive.doubts import DOUBTS, IMAGE_TYPE, METAL
from node.receive.gate_rule import GateRule, SeriesRule, SliceRule, Topic, WordRule
from node.receive.words import ORAL

_NOT_SCANS: Final = frozenset({"SCREEN SAVE", "SCREENSAVE", "DOSE", "DOSE_INFO", "PROT", "PATIENT_PROTOCOL"})
# Head or feet first, supine, prone or on a side; empty (type 2C) is allowed, as the images' orientation says the same.
_POSITIONS: Final = frozenset({"HFS", "HFP", "HFDL", "HFDR", "FFS", "FFP", "FFDL", "FFDR", ""})
_EQUIPMENT: Final = ("ManufacturerModelName", "Manufacturer")


def _why_derived(header: SliceHeader) -> str:
    return findings.why_derived(header, metal_reduced=bool(METAL.breaks(header)))


# What a series is, whatever its geometry. The clearest come first.
KINDS: Final[tuple[SliceRule | WordRule, ...]] = (
    SliceRule(
        "several_frames",
        lambda h: (h.number_of_frames or 1) > 1,
        "the object has several frames, which only an enhanced (multi-frame) CT may have",
        attributes=("SOPClassUID", "NumberOfFrames"),
        source="PS3.3 A.3, CT image, and A.38, enhanced CT image",
    ),
    SliceRule(
        "screen_capture",
        lambda h: h.sop_class_uid in SECONDARY_CAPTURE_CLASSES or bool(findings.type_words(h) & _NOT_SCANS),
        "the series is a screen capture, dose or protocol page, not a scan",
        attributes=("SOPClassUID", "ImageType"),
        source="PS3.3 A.8; ImageType of dose and protocol pages by Siemens and GE",
        words=tuple(sorted(_NOT_SCANS)),
    ),
    SliceRule(
        "not_ct_image",
        lambda h: h.sop_class_uid not in STORED_CLASSES or h.modality != "CT",
        "the series holds no CT images",
        attributes=("SOPClassUID", "Modality"),
        source="PS3.3 A.3, CT image, and A.38, enhanced CT image",
    ),
    SliceRule(
        "synthetic",
        findings.is_ours,
        "the series is itself synthetic (made by this node or another one), not a scan",
        attributes=("SyntheticData", "Manufacturer", "ManufacturerModelName"),
        source="PS3.3 C.12.1.1, Synthetic Data",
    ),
    SliceRule(
        "localizer",
        lambda h: "LOCALIZER" in findings.type_words(h),
        "the series is a localizer (scout, topogram), not an axial scan",
        attributes=IMAGE_TYPE,
        source="PS3.3 C.8.2.1.1.1, value 3",
        words=("LOCALIZER",),
    ),
    WordRule(
        "spectral_image",
        (
            *("VMI", "VNC", "VUE", "VNCA", "MAT_SPECIFIC", "MAT_REMOVED", "MAT_FRACTIONAL", "MAT_MODIFIED"),
            *("MAT_VALUE_BASED", "ELECTRON_DENSITY", "EFF_ATOMIC_NUM", "ENERGY_PROP_WT", "SUBTRACTION", "GSI"),
            *("MONO", "MONO*", "MONO #", "MONOENERGETIC", "MONOCHROMATIC", "ME # KEV", "# KEV", "IODINE"),
            *("IODINE*", "IODINE_MAP", "RHO", "RHO Z", "ZEFF", "Z EFF", "SPECTRAL", "CALCIUM", "CASUPP*", "URIC ACID"),
            *("QUANTITY", "PERFUSION", "PBV", "DEMEP", "SPP", "SBI", "UNIFORM HU", "MD"),
        ),
        "the images are calculated (virtual, spectral or subtracted), not measured at one tube voltage",
        attributes=IMAGE_TYPE,
        source="PS3.3 C.8.2.1.1.1 and C.8.16.1.4 (value 4, Supplement 188); ImageType of NAEOTOM and of GE GSI",
        topic=Topic.VIRTUAL,
    ),
    SliceRule(
        "dual_energy_half",
        findings.why_half_of_dual_energy,
        "the images are one half of a dual-energy scan, whose tube voltage the model never saw",
        attributes=("ImageType", "KVP", *findings.TEXTS),
        source="Siemens SOMATOM ImageType (DE, DET_A, DET_B); SNRG is a single-energy scan with two tubes",
        words=findings.DUAL_ENERGY,
    ),
    WordRule(
        "time_resolved_type",
        (
            *("RESP", "RESPIRATORY", "RESP_GATED", "CARDIAC", "CARDIAC_GATED", "CARDRESP_GATED", "GATED", "4D"),
            *("DYNAMIC", "PHASE"),
        ),
        "the images belong to a phase of breathing or of the heart, or to a moment of several",
        attributes=IMAGE_TYPE,
        source="PS3.3 C.8.16.1.3, image flavours; pydicer#81",
    ),
    SliceRule(
        "derived",
        _why_derived,
        "the images are derived from others (reformat, projection, processed copy), not as they were measured",
        attributes=("ImageType", "DerivationDescription", "LossyImageCompression"),
        source="PS3.3 C.7.6.1.1.2, value 1; not a lossless copy, nor SECONDARY alone, a later reconstruction",
        topic=Topic.VIRTUAL,
        words=(*findings.PROJECTIONS, "REFORMATTED"),
    ),
    SliceRule(
        "calculated_volume",
        findings.why_calculated_volume,
        "the frames are calculated from a volume (projection, curved or sampled), not its slices",
        attributes=("VolumeBasedCalculationTechnique", "VolumetricProperties"),
        source="PS3.3 C.8.16.2.1.2 and C.8.16.2.1.3",
    ),
    SliceRule(
        "not_original_axial",
        lambda h: findings.why_not_axial(h, metal_reduced=bool(METAL.breaks(h))),
        "the images do not declare themselves as an axial scan (ImageType)",
        attributes=IMAGE_TYPE,
        source="PS3.3 C.8.2.1.1.1; VOLUME by Canon, OTHER by Siemens, no third value by older exporters",
    ),
    SliceRule(
        "oral_contrast",
        findings.why_oral,
        "contrast agent was given by mouth or rectally, so the bowel is not native",
        attributes=("ContrastBolusAgent", "ContrastBolusRoute"),
        source="PS3.3 C.7.6.4, Contrast/Bolus Route",
        topic=Topic.CONTRAST,
        words=ORAL,
    ),
    SliceRule(
        "contrast_agent",
        findings.names_agent,
        "a contrast agent was given (ContrastBolusAgent is filled), so there is nothing to synthesise",
        attributes=("ContrastBolusAgent", "ContrastBolusAgentSequence"),
        source="PS3.3 C.7.6.4; NONE, NO, C- and the like are no agent (bids-specification#1542)",
        topic=Topic.CONTRAST,
    ),
    SliceRule(
        "contrast_bolus",
        findings.why_bolus,
        "the header says that contrast agent was given, though it names none",
        attributes=findings.BOLUS_ATTRIBUTES,
        source="PS3.3 C.7.6.4 (ContrastBolusAgent may be empty)",
        topic=Topic.CONTRAST,
    ),
    SliceRule(
        "multi_energy",
        lambda h: h.multienergy.upper() == "YES",
        "the series is a multi-energy CT acquisition, whose values are no ordinary HU",
        attributes=("MultienergyCTAcquisition",),
        source="PS3.3 C.8.2.1, Supplement 188",
        topic=Topic.VIRTUAL,
    ),
    SliceRule(
        "not_hu",
        findings.why_no_hu,
        "the pixel values are not in HU (RescaleType, RescaleSlope or RescaleIntercept)",
        attributes=("RescaleType", "RescaleSlope", "RescaleIntercept"),
        source="PS3.3 C.11.1.1.2: US, ED, EDW, Z_EFF and the like are other units; absent means HU",
    ),
    WordRule(
        "density_kernel",
        ("SD", "SD #", "SD #*", "SM", "SM #", "SM #*", "SPR", "SPR #", "SPR #*"),
        "the values are relative electron or mass density (DirectDensity), not HU",
        attributes=("ConvolutionKernel",),
        source="Siemens DirectDensity and DirectSPR, kernels Sd, Sm and Spr: doi 10.1259/bjr.20230004",
    ),
    WordRule(
        "cone_beam",
        (
            *("ON BOARD IMAGER", "OBI", "TRUEBEAM", "TRUEBEAM #", "TRUEBEAM STX", "HALCYON", "ETHOS", "HYPERSIGHT"),
            *("CLINAC", "TRILOGY", "NOVALIS", "VARIAN", "VARIAN MEDICAL SYSTEMS", "ELEKTA", "XVI", "VERSA HD"),
            *("TOMOTHERAPY", "ACCURAY", "RADIXACT", "HI ART", "TOMOHD", "CYBERKNIFE", "EXACTRAC", "BRAINLAB", "VERO"),
            *("O ARM", "DYNACT", "ARTIS", "I CAT", "NEWTOM", "LOOP X", "IMAGING RING", "ACUITY", "MVCT", "CBCT"),
            *("VERO4DRT", "ARTISTE", "REFLEXION", "VIEWRAY", "MEDPHOTON", "IBA", "ADAPTINSIGHT", "ALLURA", "AZURION"),
            *(
                "INNOVA",
                "CIOS",
                "ZIEHM",
                "PLANMECA",
                "PROMAX",
                "MORITA",
                "ACCUITOMO",
                "VATECH",
                "GALILEOS",
                "ORTHOPHOS",
                "XORAN",
            ),
        ),
        "the images come from a treatment machine or a cone-beam unit, whose values are no ordinary HU",
        attributes=_EQUIPMENT,
        source="TCIA 4D-Lung and Pancreatic-CT-CBCT-SEG (Varian, Elekta); TomoTherapy conformance statement",
    ),
    WordRule(
        "cone_beam_option",
        ("CBCT", "CONE BEAM", "MVCT", "MVCBCT", "KVCBCT", "KVCT CBCT"),
        "the images come from a cone-beam or megavoltage scan, whose values are no ordinary HU",
        attributes=("ScanOptions", "ImageType"),
        source="Varian conformance statements: ScanOptions of On-Board Imager",
    ),
    SliceRule(
        "megavoltage",
        findings.why_megavoltage,
        "the images were made with the beam of a treatment machine, not of a CT tube",
        attributes=("KVP",),
        source="no CT tube exceeds 150 kV; TomoTherapy MVCT writes 3500",
    ),
    SliceRule(
        "time_resolved",
        findings.why_time_resolved,
        "the images belong to a phase of breathing or of the heart, or to a moment of several",
        attributes=findings.TIME_ATTRIBUTES,
        source="PS3.3 C.7.6.16.2.17 and C.7.6.16.2.7 (breath and heart), C.7.6.16.2.2 (frame content)",
    ),
    WordRule(
        "respiratory_phase",
        (
            *("# % EX", "# % EXP", "# % IN", "# % INSP", "# % A", "# % AMP", "# % PHASE"),
            *("# PCT", "# PCT EX", "# PCT IN"),
            *("PHASE # %", "T # %", "T=# %", "T = # %", "RESPIRATORY PHASE", "RESP PHASE", "BREATHING PHASE"),
        ),
        "the images belong to one phase of breathing; a planner contours on the average or on all phases",
        attributes=("SeriesDescription", "ImageComments"),
        source="Siemens and Philips 4D-CT: phase in SeriesDescription or ImageComments; pydicer#81, cornerstone3D#1312",
    ),
    SliceRule(
        "no_patient_id",
        lambda h: not h.patient_id.strip(),
        "the patient ID is empty (PatientID), so nobody could file a result",
        attributes=("PatientID",),
        source="PS3.3 C.7.1.1 (type 2, may be empty)",
    ),
    SliceRule(
        "transfer_syntax",
        lambda h: not can_decode(h.transfer_syntax_uid),
        "the images are compressed with loss, or in a way that this node cannot decode; send them uncompressed",
        attributes=("TransferSyntaxUID",),
        source="PS3.5 8 and 10",
    ),
    SliceRule(
        "pixel_format",
        findings.why_odd_pixels,
        "the images have an unusual pixel format (expected: MONOCHROME2, 16 bits allocated, 12 to 16 stored)",
        attributes=("PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
        source="PS3.3 C.8.2.1, CT image",
    ),
    SliceRule(
        "single_line",
        findings.why_single_line,
        "an image of a single row or column is no scan",
        attributes=("Rows", "Columns"),
        source="GDCM and SimpleITK give no spacing to a single row or column",
    ),
    SliceRule(
        "no_geometry",
        findings.why_no_geometry,
        "without it nobody knows where the pixels lie in the patient",
        attributes=("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"),
        source="PS3.3 C.7.6.2",
    ),
    SliceRule(
        "patient_position",
        lambda h: h.patient_position not in _POSITIONS,
        "the patient position is not one of HFS, HFP, HFDL, HFDR, FFS, FFP, FFDL, FFDR",
        attributes=("PatientPosition",),
        source="PS3.3 C.7.3.1.1.2",
    ),
)


def _long_uid(code: str, keyword: str, uid_of: Callable[[SliceHeader], str]) -> SeriesRule:
    return SeriesRule(
        code,
        lambda headers: any(len(uid_of(header)) > MAX_UID_CHARS for header in headers),
        f"the {keyword} is longer than {MAX_UID_CHARS} characters (PS3.5 9.1)",
        attributes=(keyword,),
        source="PS3.5 9.1",
    )


# Whose series it is, and whether it is one scan. Nothing is ever made from images of two patients.
IDENTITY: Final = (
    _long_uid("long_study_uid", "StudyInstanceUID", lambda header: header.study_uid),
    _long_uid("long_series_uid", "SeriesInstanceUID", lambda header: header.series_uid),
    _long_uid("long_frame_uid", "FrameOfReferenceUID", lambda header: header.frame_of_reference_uid),
    SeriesRule(
        "mixed_patients",
        findings.why_mixed_patients,
        "the images carry more than one patient identity",
        attributes=("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex"),
        source="PS3.3 C.7.1.1",
    ),
    SeriesRule(
        "mixed_studies",
        lambda hs: len({h.study_uid for h in hs}) > 1,
        "the images belong to more than one study",
        attributes=("StudyInstanceUID",),
        source="PS3.3 A.1.2",
    ),
    SeriesRule(
        "mixed_series",
        lambda hs: len({h.series_uid for h in hs}) > 1,
        "the images belong to more than one series",
        attributes=("SeriesInstanceUID",),
        source="PS3.3 A.1.2",
    ),
    SeriesRule(
        "frame_of_reference",
        lambda hs: len({h.frame_of_reference_uid for h in hs}) > 1 or not hs[0].frame_of_reference_uid,
        "the images have no frame of reference, or more than one",
        attributes=("FrameOfReferenceUID",),
        source="PS3.3 C.7.4.1",
    ),
    SeriesRule(
        "mixed_objects",
        lambda hs: len({h.sop_class_uid for h in hs}) > 1,
        "the series mixes images of their own and frames of multi-frame objects",
        attributes=("SOPClassUID",),
        source="PS3.3 A.1.2.3: one scan is sent in one of the two forms",
    ),
    SeriesRule(
        "repeated_instance",
        lambda hs: len({h.image_name for h in hs}) < len(hs),
        "an image occurs twice in the series",
        attributes=("SOPInstanceUID",),
        source="PS3.3 C.12.1",
    ),
    SeriesRule(
        "mixed_pixel_format",
        lambda hs: len({h.pixel_representation for h in hs}) > 1,
        "the images mix signed and unsigned pixels",
        attributes=("PixelRepresentation",),
        source="PS3.3 C.7.6.3; BitsStored may follow each slice's maximum (dicom-numpy#15)",
    ),
    SeriesRule(
        "mixed_reconstructions",
        findings.why_mixed_reconstructions,
        "the series mixes reconstructions or tube voltages",
        attributes=findings.CONSTANT_ATTRIBUTES,
        source="Slicer#4801: two kernels in one series at interleaved positions",
    ),
    SeriesRule(
        "mixed_exposures",
        findings.why_mixed_exposures,
        "the series mixes two scans whose images lie between each other",
        attributes=findings.EXPOSURE_ATTRIBUTES,
        source="dcm2niix#48 (scans told apart by their exposure); tube current modulation changes smoothly",
    ),
)

RULES: Final[tuple[GateRule, ...]] = (*KINDS, *IDENTITY, *DOUBTS)
