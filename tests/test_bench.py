"""What the benchmarks share."""

from __future__ import annotations

import pathlib
import subprocess
import sys

from tests.test_isolation import is_gone

ROOT = pathlib.Path(__file__).parents[1]
SCRIPT = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
import common
if __name__ == "__main__":
    with common.workers(1) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        time.sleep(60)
"""


def test_workers_die_with_a_benchmark_that_is_killed(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    process = subprocess.Popen([sys.executable, script, ROOT / "bench"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    assert worker != process.pid
    process.kill()
    process.wait()
    assert is_gone(worker)
