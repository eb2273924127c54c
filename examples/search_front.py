"""A search: many budgets, the Pareto front of size against accuracy. Interrupted? Run it again; it continues."""

import sys

from digits import ready

import keras_xaic as xaic  # xaic.search needs pip install 'keras-xaic[search]'

model, data = ready()
trials = int(sys.argv[1]) if len(sys.argv) > 1 else 12
found = xaic.search(model, data, "build/examples/front", xaic.SearchOptions(trials=trials), training=xaic.Training(epochs=2))
print(f"{'trial':>5} {'flash':>10} {'validation accuracy':>20}")
for one in found:
    mark = "  <- no other is better" if one.best else ""
    print(f"{one.trial:>5} {one.values['flash']:>8,.0f} B {one.values['metric']:>20.4f}{mark}")
print("build/examples/front/front.html; every bundle: build/examples/front/trials/NUMBER")
