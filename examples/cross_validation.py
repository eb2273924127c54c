"""`xaic.compress` in a loop of scikit-learn: what a flash limit costs, as mean and spread over folds."""

import numpy as np
from digits import DATA, ready
from sklearn.model_selection import ParameterGrid, StratifiedKFold

import keras_xaic as xaic
from keras_xaic._keras import keras

model_path, _ = ready()
known = np.load(DATA)
x, y = (np.concatenate([known[f"{name}_train"], known[f"{name}_test"]]) for name in "xy")

keras.utils.set_random_seed(0)
found = {}
for fold, (train, test) in enumerate(StratifiedKFold(2, shuffle=True, random_state=0).split(x, y)):
    model = keras.models.clone_model(xaic.load_model(model_path))  # fresh weights: each fold has a model of its own
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x[train], y[train], epochs=20, batch_size=32, verbose=0)
    data = xaic.as_data(((x[train], y[train]), (x[test], y[test])))
    for point in ParameterGrid({"flash": ["12kB", "20kB"]}):
        report = xaic.compress(
            model,
            data,
            budget=xaic.Budget(**point),
            training=xaic.Training(epochs=0),  # seconds a run; a few epochs give more accuracy
            device=xaic.Device(target="mobile", baselines=()),
            out=f"build/examples/folds/{point['flash']}-{fold}",
            overwrite=True,
        )
        found.setdefault(point["flash"], []).append(report.compressed.edge_accuracy)

for flash, values in found.items():
    print(f"within {flash}: accuracy {np.mean(values):.4f} +- {np.std(values):.4f} over {len(values)} folds")
