"""Progress over cases: a bar on a terminal, a line for each case in a log."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from tqdm import tqdm


def each_case(cases: Sequence[str], what: str) -> Iterator[str]:
    """Yields the cases and shows how far the work is."""
    on_terminal = sys.stderr.isatty()
    for number, case in enumerate(tqdm(cases, what, disable=not on_terminal), start=1):
        yield case
        if not on_terminal:
            print(f"{what}: {number}/{len(cases)} {case}", flush=True)
