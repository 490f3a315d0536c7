"""The study in small on a phantom cohort: five methods trained and evaluated side by side, by the commands of a user.

`make reproduce-small` leaves the cohort, five runs and the report in runs/small (report/report.html has the two tables,
the panels and the plots) and prints the tables. Networks, slices and epochs are far below the study's: the figures
compare short runs on 2 cores, not the methods at their best. Nothing here is a test.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

METHODS = ("syndiff", "reggan", "cyclegan", "syndiff_paired", "pix2pix")
"""Longest runs first, so that no lane is left with one at the end."""


def main() -> None:
    """Make the cohort, train, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/small"), help="new folder")
    parser.add_argument("--patients", type=int, default=32)
    parser.add_argument("--slices", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--lanes", type=int, default=os.cpu_count() or 1, help="runs at the same time, one thread each")
    options = parser.parse_args()
    out: Path = options.out
    if out.exists():
        parser.error(f"{out} is already there; remove it or name another folder")
    out.mkdir(parents=True)
    started, cohort = time.monotonic(), str(out / "cohort")
    timed: dict[str, float] = {}
    size = ["--patients", str(options.patients), "--slices", str(options.slices), "--seed", str(options.seed)]
    lanes = ["--workers", str(options.lanes), "--no-dicom"]
    timed["cohort"] = run(out, "cohort", ["cohort", "phantom", "--out", cohort, *size, *lanes])

    def train(method: str) -> None:
        arguments = [method, "--cohort", cohort, "--out", str(out / method), "--preset", options.preset]
        timed[method] = run(out, method, ["train", *arguments, "--device", "cpu"])

    with ThreadPoolExecutor(options.lanes) as pool:
        list(pool.map(train, METHODS))
    bundles = [word for method in sorted(METHODS) for word in ("--bundle", str(out / method / "bundle"))]
    report = out / "report"
    timed["evaluation"] = run(out, "evaluate", ["evaluate", "--cohort", cohort, *bundles, "--out", str(report)])
    timed["everything"] = time.monotonic() - started
    rows = json.loads((report / "metrics.json").read_text(encoding="utf-8"))["rows"]
    text = table(rows) + "\n" + ", ".join(f"{name} {seconds:.0f} s" for name, seconds in timed.items()) + "\n"
    (out / "summary.md").write_text(text, encoding="utf-8")
    say(text + f"report: {report / 'report.html'}")


def run(out: Path, name: str, arguments: Sequence[str]) -> float:
    """Run one command of `syncect`, its words in OUT/NAME.log; returns the seconds it took, or ends the script."""
    say(f"syncect {' '.join(arguments)}")
    begun = time.monotonic()
    log = out / f"{name}.log"
    with log.open("w", encoding="utf-8") as stream:
        command = [sys.executable, "-m", "node.cli", *arguments]
        threads = os.environ | {"OMP_NUM_THREADS": "1"}
        code = subprocess.run(command, stdout=stream, stderr=stream, env=threads, check=False).returncode
    if code:
        sys.exit(f"{name} ended with code {code}:\n{log.read_text(encoding='utf-8')[-2000:]}")
    return time.monotonic() - begun


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: every row of every cohort with the study's figures and those that see contrast."""
    lines = [
        "| cohort | model | PSNR [dB] | gain | SSIM | NMAE | blood pool bias | MAE [HU] | false enhancement [HU] |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        blood = row["structures"].get("blood_pool", {})
        figures = [
            f"{row['psnr_db']:.2f}",
            f"{row['psnr_gain_db']:+.2f}",
            f"{row['ssim']:.3f}",
            f"{row['nmae']:.4f}",
            f"{blood.get('bias_hu', float('nan')):+.0f}",
            f"{blood.get('mae_hu', float('nan')):.0f}",
            f"{row['false_enhancement_mae_hu']:.1f}",
        ]
        lines.append(f"| {row['cohort']} | {row['name']} | " + " | ".join(figures) + " |")
    return "\n".join(lines) + "\n"


def say(text: str) -> None:
    """Print one line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
