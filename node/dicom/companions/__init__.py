"""The objects that a destination can get beside the derived CT images; pure DICOM, it knows no store.

`kinds` says what there is and is light; `make` builds files and imports highdicom.
"""
