"""The rules after which a person must look at the result: a free text says it, or the header contradicts itself.

They belong to the table of `rules.py`, which says how a row is read.
"""

from typing import Final

from node.receive import findings
from node.receive.gate_rule import Outcome, SeriesRule, SliceRule, Topic, WordRule
from node.receive.words import CONTRAST_DENIED, CONTRAST_GIVEN

IMAGE_TYPE: Final = ("ImageType",)

METAL: Final = WordRule(
    "metal_artifact_reduction",
    (*("IMAR", "OMAR", "O MAR", "MAR", "MARS", "SEMAR", "SMART MAR", "METAL ARTIFACT*", "METAL ARTEFACT*"),),
    "metal artefact reduction was applied, so the values beside the metal are calculated",
    attributes=("ImageType", *findings.SERIES_TEXTS, "ConvolutionKernel", "FilterType", "ScanOptions"),
    source="Siemens iMAR, Philips O-MAR, GE Smart MAR, Canon SEMAR: names in their conformance statements",
    outcome=Outcome.HOLD,
    topic=Topic.METAL,
)

DOUBTS: Final = (
    METAL,
    SliceRule(
        "contrast_unknown",
        findings.why_agent_unknown,
        "nobody knows whether contrast agent was given",
        attributes=("ContrastBolusAgent",),
        source="bids-specification#1542 (UNKNOWN beside NONE)",
        outcome=Outcome.HOLD,
        topic=Topic.CONTRAST,
    ),
    SliceRule(
        "contrast_said",
        findings.why_contrast_said,
        "the text says that contrast agent was given, though ContrastBolusAgent names none",
        attributes=findings.TEXTS,
        source="pylidc#35 (W CONTRAST without an agent); the first text that says either decides",
        outcome=Outcome.HOLD,
        topic=Topic.CONTRAST,
        words=(*CONTRAST_GIVEN, *(f"not {term}" for term in CONTRAST_DENIED)),
    ),
    WordRule(
        "spectral_said",
        (
            *("VNC", "VIRTUAL NON CONTRAST", "VIRTUAL NON ENHANCED", "VIRTUAL UNENHANCED", "VIRTUAL NATIV*", "VUE"),
            *("VIRTUELL NATIV*", "VIRTUELLE* NATIV*", "VIRTUELL OHNE", "VIRTUEL SANS", "VIRTUELLE SANS", "VIRTUAL SIN"),
            *("VIRTUALE SENZA", "VMI", "MONO # KEV", "# KEV", "MONO+", "MONO #", "MONOE", "MONOE #", "MONOENERG*"),
            *("MONOENERGETIC", "MONOENERGETISCH", "MONOCHROMATIC", "RHO", "RHO Z", "ZEFF", "Z EFF", "Z EFFECTIVE"),
            *("EFFECTIVE Z", "EFFECTIVE ATOMIC NUMBER", "ELECTRON DENSITY", "ELEKTRONENDICHTE", "IODINE", "IODINE MAP"),
            *("JOD", "JODKARTE", "IOD", "IODKARTE", "IODE", "IODIO", "YODO", "SUBTR*", "SUBTRACTION", "SUBTRACTED"),
            *("SUBTRAKTION", "MATERIAL DENSITY", "DUAL ENERGY", "DECT", "DE # KV", "DE MIX*", "M_0.#", "F_0.#", "GSI"),
            *("CALCIUM SUPPRESSED", "URIC ACID", "PERFUSION", "PBV", "SPP", "SBI", "SPECTRAL", "UNIFORM HU"),
        ),
        "the text says that the images are calculated (virtual, spectral or subtracted)",
        attributes=(*findings.TEXTS, "ScanOptions"),
        source="names that Siemens, GE, Philips and Canon give to spectral results",
        outcome=Outcome.HOLD,
    ),
    WordRule(
        "monoenergetic_said",
        ("MONO",),
        "the text says that the images are calculated for one energy",
        attributes=("SeriesDescription", "DerivationDescription"),
        source="Siemens Monoenergetic Plus; in ImageComments the word means other things too",
        outcome=Outcome.HOLD,
    ),
    WordRule(
        "processed_said",
        (
            *("SYNTHETIC", "SYNTHETISCH", "SYNTHETISCHES", "SYNTHETIQUE", "SYNTHETIC CT", "SCT", "PSEUDO CT", "MRCAT"),
            *("MR ONLY", "DEFORMED", "WARPED", "RESAMPLED", "REFORMAT*", "MPR"),
        ),
        "the text says that the images were calculated from others (synthetic, deformed or reformatted)",
        attributes=findings.SERIES_TEXTS,
        source="Philips MRCAT, Siemens synthetic CT; exports of image registration",
        outcome=Outcome.HOLD,
    ),
    WordRule(
        "dual_energy_mixed",
        ("DE", "DNRG", "DUAL_ENERGY"),
        "the images mix both tube voltages of a dual-energy scan",
        attributes=IMAGE_TYPE,
        source="Siemens SOMATOM ImageType; Supplement 188",
        outcome=Outcome.HOLD,
    ),
    WordRule(
        "density_said",
        (
            *("DIRECT DENSITY", "DIRECTSPR", "DIRECT SPR", "SPR", "STOPPING POWER", "E DENSITY", "RED MAP"),
            # Two digits at once: "SD 3 mm" is a thickness.
            *("SD2#", "SD2#*", "SD3#", "SD3#*", "SD4#", "SD4#*", "SD5#", "SD5#*"),
        ),
        "the text says that the values are densities, not HU",
        attributes=findings.TEXTS,
        source="Siemens DirectDensity: doi 10.1259/bjr.20230004",
        outcome=Outcome.HOLD,
    ),
    WordRule(
        "cone_beam_said",
        ("CBCT", "CONE BEAM", "MVCT", "MVCBCT", "KVCBCT"),
        "the text says that this is a cone-beam or megavoltage scan",
        attributes=findings.TEXTS,
        source="TCIA 4D-Lung, Pancreatic-CT-CBCT-SEG",
        outcome=Outcome.HOLD,
    ),
    WordRule(
        "time_said",
        (
            *("4D", "4DCT", "4D CT", "AIP", "AVEIP", "AVE IP", "AVGIP", "AVG IP", "AVERAGE IP", "AVERAGE", "AVG"),
            *("MIP", "MINIP", "T MIP", "TMIP", "T AVG", "TAVG", "T AVERAGE", "AVE", "AVE CT", "AVERAGE CT", "ITV"),
            *("MID VENT*", "MID VENTILATION", "MIDV", "MID POSITION", "PHASE 0", "PHASE 00", "PHASE #0"),
            *("BEST DIAST*", "BEST SYST*", "BEST PHASE"),
        ),
        "the text says that the images belong to a 4D scan or were made from one (average, MIP)",
        attributes=findings.TEXTS,
        source="pydicer#81; Dicom_RT_and_Images_to_Mask#35",
        outcome=Outcome.HOLD,
    ),
    WordRule(
        "percent_said",
        ("# %",),
        "a percentage often is a phase of breathing or of the heart",
        attributes=("SeriesDescription", "ImageComments"),
        source="4D-CT of all vendors; GE and others write the strength of their iterative reconstruction in percent",
        outcome=Outcome.HOLD,
        unless=("ASIR", "ASIR V", "AR#", "IR", "IDOSE", "SAFIRE", "ADMIRE", "AIDR", "DLIR", "IMR", "VEO"),
    ),
    WordRule(
        "gating_said",
        ("RESP", "RESPIRATORY", "GATED", "GATING", "EXHALE", "INHALE", "END EXP"),
        "the text says that the scan was gated, and not that breath was held",
        attributes=findings.TEXTS,
        source="pydicer#81; a breath-hold scan (DIBH) is an ordinary one",
        outcome=Outcome.HOLD,
        unless=(
            *("DIBH", "EDIBH", "EBH", "EEBH", "BH", "BREATH HOLD", "HOLD", "ATEMANHALT", "ATEMSTOPP", "ABC", "APNEA"),
            *("APNEE", "APNOE", "APNEU", "ADEMSTILSTAND", "BLOQUEE"),
        ),
    ),
    SliceRule(
        "phantom_said",
        findings.why_phantom,
        "the text says that this is an object for quality control, not a patient",
        attributes=("PatientName", *findings.TEXTS),
        source="pylinac Catphan CT sets; QualityControlSubject is rarely filled",
        outcome=Outcome.HOLD,
        words=findings.PHANTOMS,
    ),
    SliceRule(
        "tilt_by_tag",
        findings.why_tilted,
        "position and orientation describe a gantry that is not tilted, so the header contradicts itself",
        attributes=("GantryDetectorTilt",),
        source="dcm2niix#253, dcm2niix#782 (tilt lost by an exporter)",
        outcome=Outcome.HOLD,
    ),
    SeriesRule(
        "several_acquisitions",
        findings.why_several_acquisitions,
        "the series joins several acquisitions, between which the patient may have moved or breathed",
        attributes=findings.ACQUISITION_ATTRIBUTES,
        source="dcm2niix#48; each table position of a sequence scan has its own number, which is ordinary",
        outcome=Outcome.HOLD,
    ),
)
