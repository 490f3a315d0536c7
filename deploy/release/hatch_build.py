"""Hook of the build: the wheel and the source archive carry the commit that they were built from (node/version.py)."""

import runpy
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CommitHook(BuildHookInterface[Any]):
    """Adds node/build.json to what is built. It is written elsewhere: left in a checkout it would soon be untrue."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the file; an editable installation asks git itself."""
        if self.target_name == "wheel" and version == "editable":
            return
        here = runpy.run_path(str(Path(self.root) / "node" / "version.py"))
        self._folder = tempfile.TemporaryDirectory(prefix="syncect-build-")
        file = Path(self._folder.name) / here["BUILD_FILE"]
        file.write_text(here["as_json"](here["find_build"](Path(self.root))), encoding="utf-8")
        build_data["force_include"][str(file)] = f"node/{file.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the file again."""
        if hasattr(self, "_folder"):
            self._folder.cleanup()
