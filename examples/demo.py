"""The main job end to end: train a small CNN on scikit-learn's digits, compress it, prove it. Run: make demo"""

import pathlib
import subprocess
import sys

from digits import ready

OUT = pathlib.Path("demo-out")


def xaic(*arguments):
    print("\n$ xaic", *arguments, flush=True)
    code = subprocess.call([sys.executable, "-m", "keras_xaic.cli", *map(str, arguments)])
    if code not in (0, 3):
        sys.exit(code)


model, data = ready()
if (OUT / "report.json").exists():
    xaic("verify", OUT, "--data", data)
else:
    limits = ("--flash", "24kB", "--download", "12kB")
    xaic("compress", model, "--data", data, *limits, "--epochs", 20, "--out", OUT, "--overwrite")
print(f"\nbundle: {OUT.absolute()}\nreport: {(OUT / 'report.html').absolute()}")
