"""Plays a demo: scanner, node and TPS on the loopback interface, through the same commands an operator uses."""

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import models
from config.load import load_settings
from config.settings import Settings
from node.bootstrap.store import Node, open_store, read_store
from node.demo.ending import say_what_to_try, stay
from node.demo.estimate import say_estimate
from node.demo.failed import DemoFailed
from node.demo.folder import DemoFolder, claimed
from node.demo.following import SENT, follow, release
from node.demo.node_process import (
    RunningNode,
    add_user,
    ended_by_signals,
    only_own_settings,
    running_node,
    write_settings,
)
from node.demo.own_series import find_series
from node.demo.result import result_of, show
from node.demo.scanner import AE_TITLE, Scan, push, scan_phantom
from node.demo.story import Say, Story
from node.demo.tps import Tps
from storage.cases import Case


@dataclass(frozen=True)
class Wish:
    """What was asked for. series: a folder of the reader's own, None for the phantom. series_uid: which of its series.

    release: the reason for which a HELD result is sent, "" for none. stay: leave node and page running to look at.
    """

    out_dir: Path
    bundle: str
    slices: int
    stay: bool
    series: Path | None = None
    series_uid: str = ""
    release: str = ""


@dataclass(frozen=True)
class Shown:
    """How a demo ended. kept: why nothing was sent, as a clause, or ""."""

    case: Case
    kept: str


def play(wish: Wish, say: Say) -> Shown:
    """Run a demo in `wish.out_dir` and leave everything there to look at.

    Raises DemoFailed, Refused and NotFound; KeyboardInterrupt also for SIGTERM and SIGHUP. Nothing runs on afterwards.
    """
    story = Story(say)
    with ended_by_signals(), only_own_settings() as ignored, claimed(wish.out_dir, keep=wish.series) as claim:
        folder, is_used = claim
        if is_used:
            story.plain(f"What the last demo left in {folder.root} is replaced.")
        if ignored:
            story.plain(f"The demo has settings of its own and ignores {', '.join(ignored)}.")
        try:
            return _played(wish, folder, story)
        except DemoFailed as error:
            raise DemoFailed(f"step {story.steps} failed: {error}") from error
        except KeyboardInterrupt:
            with suppress(OSError):  # the terminal may be what is gone
                story.plain(f"Stopped; no process of the demo runs any more. What was made so far is in {folder.root}.")
            raise


def _played(wish: Wish, folder: DemoFolder, story: Story) -> Shown:
    models.find_bundle(wish.bundle)  # at once, not when the node starts
    with Tps(folder.tps, ae_title="DEMO_TPS") as tps:
        write_settings(folder, tps, wish.bundle)
        settings = load_settings(folder.settings)
        scan = _scan(wish, folder, settings, story)
        say_estimate(settings.model, len(scan.headers), story)
        story.step("A node and a TPS start, on free ports of this machine that no other machine can reach.")
        password = add_user(settings)
        with running_node(folder, settings.scp.port, story, page=wish.stay) as process:
            story.note(f"the node SYNCECT listens on port {settings.scp.port}; only {AE_TITLE} may send to it")
            story.note(f"the TPS {tps.ae_title} listens on port {tps.port} and keeps what it gets in {folder.tps}")
            pushed_at = push(scan, settings.scp.port, story)
            with read_store(settings) as node:
                case = _case(node, process, scan, wish, story)
                seconds = time.monotonic() - pushed_at
                show(result_of(node, case, tps, seconds), scan, folder, settings.model.bundle, story)
            say_what_to_try(case, folder, settings, password, story, stay=wish.stay)
            if wish.stay:
                process.wait_for_page(settings.web)
                stay(process, story)
    kept = "" if case.state in SENT else f"nothing was sent to the TPS, the series is {case.state}: {case.reason}"
    return Shown(case, kept)


def _scan(wish: Wish, folder: DemoFolder, settings: Settings, story: Story) -> Scan:
    if wish.series is None:
        return scan_phantom(folder.scanner, story, slices=wish.slices)
    return find_series(settings, wish.series, wish.series_uid, story, without=folder.root.resolve())


def _case(node: Node, process: RunningNode, scan: Scan, wish: Wish, story: Story) -> Case:
    """What became of the series, after the release that was asked for."""
    story.step("The node works on the series. These are the states that `jobs ls` shows:")
    case = follow(node, process, scan.series_uid, story)
    if case.state == "HELD" and wish.release:
        with open_store(node.settings) as writable:
            release(writable, case, wish.release, story)
        case = follow(node, process, scan.series_uid, story, passed="HELD")
    return case
