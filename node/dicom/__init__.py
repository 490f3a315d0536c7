"""Pure DICOM: headers, geometry, volumes, UIDs and the derived series; no network, no storage, no settings."""
