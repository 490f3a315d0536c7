"""What a process sets before torch is loaded."""

import os


def settle_process() -> None:
    """Set defaults of torch's libraries, which read them once when they are loaded; an operator's own values win.

    Threads sleep while they wait: with one of two cores taken by another process, spinning ones made a slice of the
    demo bundle take 6.1 s instead of 0.46 s. Images lie in large pages, which are not cleared page by page whenever one
    is made: 6 % less CPU time for a step of SynDiff's published network, 12 % for a slice of Pix2Pix.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
