"""For an orchestrator that runs one role in a container: exit code 0 while the process of this container works.

`syncect serve` kills and starts again what hangs. A role that is started alone has nobody who does that, so this looks
at what the process said last, as the supervisor would: 1 where none runs here or one is silent for longer than it said.
"""

import socket
import sys

from config.load import load_settings
from node.ops.processes import running_processes

run_dir = load_settings().node.data_dir / "run"
ours = [view for view in running_processes(run_dir) if view.host == socket.gethostname()]
for view in ours:
    if (late := view.silent()) is not None:
        sys.exit(f"{view.role} is silent at {late.work}")
if not ours:
    sys.exit("no process of this container runs")
