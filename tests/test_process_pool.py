from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path


def test_the_processes_end_with_the_one_that_started_them() -> None:
    script = """
import os, signal
from nnunet_semcl.process_pool import ProcessPool

if __name__ == "__main__":
    pool = ProcessPool(2)
    print(*{future.result() for future in [pool.submit(os.getpid) for _ in range(8)]}, *pool._processes, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    processes = set(map(int, killed.stdout.split()))
    assert processes
    deadline = time.time() + 10
    while any(_runs(process) for process in processes):
        assert time.time() < deadline, "they run on"
        time.sleep(0.05)


def _runs(process: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False
