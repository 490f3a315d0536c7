"""What the gate on results measures of clean and of manipulated results, so that its limits are chosen with margin.

    .venv/bin/python -m bench.trust.calibrate [--bundle NAME ...] [--patients 60] [--seed N] [--keep DIR]

Without --bundle both shipped bundles are measured. Of each figure that has a limit: 5th, 50th, 95th percentile and the
range of the clean results, of unseen phantom patients (half of each anatomy) and of the real series; what each attack
makes of it in the cases of `make trust`; how many clean results would be held, with a 95 % interval (Wilson). --seed:
other patients, to see whether limits that were chosen on some hold for others. --keep:
where phantoms and translations stay, so that the next run takes a minute or two. It changes nothing in the code.
"""

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

import models
from bench.derive import Derived
from bench.run import say
from bench.trust.__main__ import ATTACK_SEED, SHIPPED, real_cases
from bench.trust.cases import Bundle, Case
from bench.trust.kept import kept_phantoms, kept_result
from bench.trust.size import FULL, SHORT, Size
from models.evaluation.attacks import ATTACKS, Attacked
from models.phantom.cohort import ANATOMIES
from models.process import settle_process
from node.translate.composite import composite
from node.translate.quality import RULES, QualityVerdict, judge_result, limit_words

SEED = 910_001
"""Of the patients on whom the limits were chosen, the next one for the second anatomy; no training uses them."""
KEEP = Path(__file__).parents[2] / "build" / "calibration"


@dataclass(frozen=True)
class Judged:
    """A result and what the gate said of it. kind: "phantom" or "real"."""

    name: str
    kind: str
    verdict: QualityVerdict


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = _options(arguments)
    size = SHORT if options.short else FULL
    for name in options.bundle:
        bundle = Bundle(models.find_bundle(name))
        say(f"\n{bundle.card.name} {bundle.card.version}, digest {bundle.card.digest[:8]}")
        real, _ = real_cases(size)
        phantoms = kept_phantoms(options.keep, size.phantoms, ATTACK_SEED, **_shape(size), anatomy="thorax")
        attacked = {case.name: attack_all(bundle, case, options.keep) for case in [*real, *phantoms]}
        unseen = list(_judge_unseen(bundle, options.keep, options.patients, options.seed, size))
        clean = unseen + [Judged(case.name, "real", attacked[case.name]["clean"]) for case in real]
        say(figure_table(clean, attacked))
        say(attack_table(attacked))
        say(false_holds(unseen, options.seed))


def attack_all(bundle: Bundle, case: Case, keep: Path) -> dict[str, QualityVerdict]:
    """The verdict on a case's clean result, and on each attack of it."""
    made = kept_result(keep, bundle, case)
    attacked = Attacked(made.hu, case.volume.hu, case.volume.spacing_mm, case.labels)
    verdicts = {"clean": _judge(bundle, case, made)}
    for number, (name, attack) in enumerate(ATTACKS.items()):
        hu = attack(attacked, np.random.default_rng(number))
        result = composite(case.volume, hu, bundle.card.hu_window)
        verdicts[name] = judge_result(case.volume, hu, result, level_hu=bundle.level_hu)
    return verdicts


def _judge(bundle: Bundle, case: Case, made: Derived) -> QualityVerdict:
    return judge_result(case.volume, made.predicted_hu, made.composite, level_hu=bundle.level_hu)


def _judge_unseen(bundle: Bundle, keep: Path, patients: int, seed: int, size: Size) -> Iterator[Judged]:
    for number, anatomy in enumerate(ANATOMIES):
        count = (patients + number) // len(ANATOMIES)
        for case in kept_phantoms(keep, count, seed + number, **_shape(size), anatomy=anatomy):
            yield Judged(case.name, "phantom", _judge(bundle, case, kept_result(keep, bundle, case)))


def _shape(size: Size) -> dict[str, int]:
    return {"slices": size.attack_slices, "rows": size.rows}


def figure_table(clean: Sequence[Judged], attacked: dict[str, dict[str, QualityVerdict]]) -> str:
    """One block a figure: its limit, the clean results, and the range over the cases of each attack that it holds."""
    lines = []
    for rule in RULES:
        lines.append(f"{rule.figure}: {limit_words(rule.low, rule.high, '')}")
        for kind in ("phantom", "real"):
            values = [one.verdict.measurements.get(rule.figure) for one in clean if one.kind == kind]
            found = np.array([value for value in values if value is not None])
            if found.size:
                low, *middle, high = np.percentile(found, [0, 5, 50, 95, 100])
                text = "  ".join(f"{value:9.4g}" for value in (low, *middle, high))
                lines.append(f"  clean {kind:<8} n {found.size:<3} min, 5 %, 50 %, 95 %, max: {text}")
        for name in ATTACKS:
            verdicts = [case[name] for case in attacked.values()]
            made = [v.measurements[rule.figure] for v in verdicts if rule.figure in v.measurements]
            held = sum(rule.figure in verdict.broken for verdict in verdicts)
            if held:
                lines.append(f"  {name:<40} holds {held} of {len(verdicts)}: {min(made):.4g} to {max(made):.4g}")
    return "\n".join(lines)


def attack_table(attacked: dict[str, dict[str, QualityVerdict]]) -> str:
    """One line an attack: which rules hold it, case by case."""
    lines = [f"cases: {', '.join(attacked)}"]
    for name in ("clean", *ATTACKS):
        verdicts = [case[name] for case in attacked.values()]
        held = sum(verdict.reason is not None for verdict in verdicts)
        lines.append(f"{name:<40} held {held} of {len(verdicts)}")
        lines += [f"    {', '.join(verdict.broken) or 'NOT HELD'}" for verdict in verdicts if name != "clean"]
    return "\n".join(lines)


def false_holds(unseen: Sequence[Judged], seed: int) -> str:
    """How many clean results of unseen phantoms are held, and which."""
    held = [one for one in unseen if one.verdict.reason is not None]
    line = false_hold_rate(len(held), len(unseen), f"seeds {seed} and {seed + 1}")
    return "\n".join([line, *(f"    {one.name}: {one.verdict.reason}" for one in held)])


def false_hold_rate(held: int, unseen: int, seeds: str) -> str:
    """How many of so many unseen phantoms are held, with the 95 % interval of Wilson."""
    interval = binomtest(held, unseen).proportion_ci(method="wilson")
    return (
        f"false holds: {held} of {unseen} unseen phantom patients, {100 * held / unseen:.1f} % "
        f"(95 % interval {100 * interval.low:.1f} to {100 * interval.high:.1f} %; {seeds})"
    )


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "bench.trust.calibrate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", nargs="+", default=SHIPPED, metavar="DIR", help="names or folders of bundles")
    parser.add_argument("--patients", type=int, default=60, help="unseen phantom patients, half of each anatomy")
    parser.add_argument("--seed", type=int, default=SEED, help="of these patients, and the next one")
    parser.add_argument("--keep", type=Path, default=KEEP, help="folder of phantoms and translations")
    parser.add_argument("--short", action="store_true", help="a rehearsal on small phantoms")
    options = parser.parse_args(arguments)
    if options.patients < 4 * len(ANATOMIES):
        parser.error(f"--patients must be at least {4 * len(ANATOMIES)}")
    return options


if __name__ == "__main__":
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler writes lines of its own to standard error
    settle_process()
    main()
