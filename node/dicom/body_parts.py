"""Words of a header that are no free text: what DICOM itself defines for the modality and for the part of the body."""

from typing import Final

MODALITIES: Final = frozenset(
    {
        *("AR", "ASMT", "AU", "BDUS", "BI", "BMD", "CFM", "CR", "CT", "DG", "DMS", "DX", "ECG", "EPS", "ES", "FID"),
        *("GM", "HC", "HD", "IO", "IOL", "IVOCT", "IVUS", "KER", "KO", "LEN", "LS", "MG", "MR", "M3D", "NM", "OAM"),
        *("OCT", "OP", "OPM", "OPT", "OPTBSV", "OPTENF", "OPV", "OSS", "OT", "PA", "PLAN", "PR", "PT", "PX", "REG"),
        *("RESP", "RF", "RG", "RTDOSE", "RTIMAGE", "RTINTENT", "RTPLAN", "RTRAD", "RTRECORD", "RTSEGANN", "RTSTRUCT"),
        *("RWV", "SEG", "SM", "SMR", "SR", "SRF", "STAIN", "TEXTUREMAP", "TG", "US", "VA", "XA", "XC"),
    }
)
"""Defined terms of Modality (PS3.3 C.7.3.1.1.1)."""
BODY_PARTS: Final = frozenset(
    {
        *("ABDOMEN", "ABDOMENPELVIS", "ADRENAL", "ANKLE", "AORTA", "ARM", "AXILLA", "BACK", "BILEDUCT", "BLADDER"),
        *("BRAIN", "BREAST", "BRONCHUS", "BUTTOCK", "CALCANEUS", "CALF", "CAROTID", "CEREBELLUM", "CERVIX", "CHEEK"),
        *("CHEST", "CHESTABDOMEN", "CHESTABDPELVIS", "CIRCLEOFWILLIS", "CLAVICLE", "COCCYX", "COLON", "CORNEA"),
        *("CORONARYARTERY", "CSPINE", "CTSPINE", "DUODENUM", "EAR", "ELBOW", "ESOPHAGUS", "EXTREMITY", "EYE"),
        *("EYELID", "FACE", "FEMUR", "FIBULA", "FINGER", "FOOT", "FOREARM", "GALLBLADDER", "HAND", "HEAD", "HEADNECK"),
        *("HEART", "HIP", "HUMERUS", "IAC", "ILEUM", "ILIUM", "JAW", "JEJUNUM", "KIDNEY", "KNEE", "LARYNX", "LEG"),
        *("LIVER", "LSPINE", "LSSPINE", "LUNG", "MASTOID", "MAXILLA", "MEDIASTINUM", "MOUTH", "NASOPHARYNX", "NECK"),
        *("NECKCHEST", "NECKCHESTABDOMEN", "NECKCHESTABDPELV", "NOSE", "OPTICCANAL", "ORBIT", "OVARY", "PANCREAS"),
        *("PAROTID", "PATELLA", "PELVIS", "PENIS", "PHARYNX", "PROSTATE", "RADIUS", "RADIUSULNA", "RECTUM", "RIB"),
        *("SCALP", "SCAPULA", "SCLERA", "SCROTUM", "SELLA", "SHOULDER", "SIJOINT", "SKULL", "SPINE", "SPLEEN"),
        *("SSPINE", "STERNUM", "STOMACH", "SUBMANDIBULAR", "TESTIS", "THIGH", "THUMB", "THYMUS", "THYROID", "TIBIA"),
        *("TIBIAFIBULA", "TLSPINE", "TMJ", "TOE", "TONGUE", "TRACHEA", "TSPINE", "ULNA", "URETER", "URETHRA"),
        *("UTERUS", "VAGINA", "VULVA", "WHOLEBODY", "WRIST", "ZYGOMA"),
    }
)
"""Defined terms of BodyPartExamined for regions and organs of people (PS3.16 annex L)."""
