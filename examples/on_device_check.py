"""On the device: copy the bundle's check/ directory there; it needs numpy and an edge interpreter, nothing else.

Here a second process without TensorFlow plays the device.
"""

import pathlib
import shutil
import subprocess
import sys

from digits import ready

import keras_xaic as xaic

model, data = ready()
bundle = pathlib.Path("build/examples/device")
if not bundle.is_dir():
    xaic.compress(
        model,
        data,
        budget=xaic.Budget(flash="24kB"),
        training=xaic.Training(epochs=2),
        device=xaic.Device(baselines=[]),
        out=bundle,
    )

device = pathlib.Path("build/examples/on-the-device")
shutil.rmtree(device, ignore_errors=True)
shutil.copytree(bundle / "check", device / "check")  # scp -r small/check small/model.tflite pi:
shutil.copy(bundle / "model.tflite", device)

no_tensorflow = "import sys; sys.modules['tensorflow'] = None; import runpy; sys.argv = sys.argv[1:]; "
run = no_tensorflow + "runpy.run_path(sys.argv[0], run_name='__main__')"
code = subprocess.call([sys.executable, "-c", run, str((device / "check" / "edge_check.py").absolute())])
print("the device gives the expected outputs" if code == 0 else f"edge_check.py says no (exit code {code})")
sys.exit(code)
