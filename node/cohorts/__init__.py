"""Makes cohorts for training and evaluation: phantoms, and pairs found in a hospital's DICOM export."""
