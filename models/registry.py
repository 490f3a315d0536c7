"""The table of methods: what trains each one and what translates with its bundles. Reading it loads no torch.

The bundle loader, the training loop and the command line read this table; there is no other list of methods.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Row:
    """One method, by the names of two modules, which are imported when they are needed.

    `training` has `PRESETS` (frozen configurations by name) and `build(config) -> models.methods.method.Method`.
    `translation` has `load(path, device=..., precision=..., batch_size=...) -> models.translator.Translator`.
    A method that `needs_teacher` is trained from a bundle beside the cohort, by its setting `teacher`.
    """

    training: str
    translation: str
    needs_teacher: bool = False

    @property
    def presets(self) -> Mapping[str, Any]:
        """The method's configurations by name; loads torch."""
        presets: Mapping[str, Any] = importlib.import_module(self.training).PRESETS
        return presets


_SINGLE_PASS, _SYNDIFF = "models.translators.single_pass", "models.translators.syndiff"

METHODS: Mapping[str, Row] = MappingProxyType(
    {
        "pix2pix": Row("models.methods.pix2pix", _SINGLE_PASS),
        "cyclegan": Row("models.methods.cyclegan", _SINGLE_PASS),
        "reggan": Row("models.methods.reggan", _SINGLE_PASS),
        "syndiff": Row("models.methods.syndiff", _SYNDIFF),
        "syndiff_paired": Row("models.methods.syndiff_paired", _SYNDIFF),
        "syndiff_student": Row("models.methods.syndiff_student", _SYNDIFF, needs_teacher=True),
    }
)
WITHOUT_TEACHER = tuple(name for name, row in METHODS.items() if not row.needs_teacher)
