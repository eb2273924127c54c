from __future__ import annotations

import numpy as np
import pytest

from keras_xaic.grids import QuantizedKernel
from keras_xaic.relevance import Explanations
from keras_xaic.report import Evidence, Found, Report


def facts(**changes) -> dict:
    values = {
        "schema": 1,  # read as version 2: what was called accuracy there is the metric here
        "recipe": "lrp-mixed",
        "seed": 3,
        "versions": {"numpy": "1.26.4"},
        "seconds": {"attribute": 3.25},
        "model": {"name": "resnet8", "parameters": 78666, "weighted_layers": 2},
        "budget": {"flash_bytes": 64_000, "max_drop_pp": 1.5, "met": True},
        "original": {
            "keras_accuracy": 0.8449,
            "tflite_fp32_bytes": 318_364,
            "tflite_fp32_gzip_bytes": 291_888,
            "edge_accuracy": 0.8449,
        },
        "baselines": {
            "int8": {"flash_bytes": 95_440, "download_bytes": 78_751, "edge_accuracy": 0.8429, "drop_pp": 0.2},
            "magnitude": {"flash_bytes": 61_000, "download_bytes": 40_000, "edge_accuracy": 0.825, "drop_pp": 1.99},
        },
        "compressed": {
            "keras_accuracy": 0.8391,
            "edge_accuracy": 0.8388,
            "drop_pp": 0.61,
            "flash_bytes": 61_200,
            "download_bytes": 33_400,
            "sparsity": 0.41,
            "mean_bits": 4.6,
            "latency_ms": {"tflite-runtime": {"median": 0.391, "p90": 0.41, "threads": 1}},
            "agreement": 0.951,
            "explanation_similarity": 0.874,
            "samples": 100_000,
            "part": "test",
        },
        "judge": {"interpreter": "tflite-runtime", "version": "2.14.0"},
        "interpreters": {
            "tflite-runtime": {"version": "2.14.0", "accuracy": 0.8388, "ran": True},
            "tflm": {"ran": False, "error": "tflm refused <model>"},
        },
        "classes": [
            {"label": 0, "samples": 1000, "original_accuracy": 0.9, "accuracy": 0.899, "drop_pp": 0.1},
            {
                "label": 1,
                "samples": 1000,
                "original_accuracy": 0.8,
                "accuracy": 0.76,
                "drop_pp": 4.0,
                "explanation_similarity": 0.81,
                "confused_with": [{"label": 7, "samples": 61, "original_samples": 32}],
            },
        ],
        "rounds": [
            {
                "predicted_flash_bytes": 61_150,
                "flash_bytes": 61_200,
                "predicted_download_bytes": 33_900,
                "download_bytes": 33_400,
                "held_back": 0.871,
                "drop_pp": 0.9,
                "epochs": 6,
                "seconds": 412.5,
            }
        ],
        "explanations": {
            "rule": "lrp.gamma",
            "samples": 256,
            "target": "true",
            "shown": [
                {"sample": 21, "group": "newly wrong", "truth": 1, "original_answer": 1, "answer": 7, "similarity": 0.43},
                {"sample": 3, "group": "still right", "truth": 0, "original_answer": 0, "answer": 0, "similarity": 0.97},
            ],
        },
        "layers": [
            {
                "name": "stem/<conv>",
                "kind": "conv",
                "relevance": 0.75,
                "weights": 432,
                "bits": 8,
                "flash_bytes": 432,
                "filters": 16,
                "filters_kept": 12,
                "sparsity": 0.125,
                "storage": "int8",
            },
            {"name": "head", "kind": "dense", "relevance": 0.25, "weights": 640, "bits": 4, "flash_bytes": 320},
        ],
    }
    return {**values, **changes}


def make_evidence(*shape: int) -> Evidence:
    rng = np.random.default_rng(0)
    inputs, first, second, third = rng.normal(size=(4, 2, *shape)).astype(np.float32)
    kernel = QuantizedKernel(np.arange(-3, 4, dtype=np.int8).repeat([1, 2, 3, 8, 5, 2, 0]), np.ones(1, np.float32), 3)
    front = [
        Found(trial=0, values={"flash": 50_000.0, "metric": 0.8}, best=True),
        Found(trial=1, values={"flash": 70_000.0, "metric": 0.79}, best=False),
    ]
    return Evidence({"head": kernel}, Explanations(np.array([21, 3]), inputs, first, second, third), front)


@pytest.fixture
def evidence() -> Evidence:
    """What is drawn of two images, one layer and a search."""
    return make_evidence(8, 8, 3)


@pytest.fixture
def evidence_of():
    """Makes the same for inputs of another shape."""
    return make_evidence


@pytest.fixture
def report() -> Report:
    return Report.model_validate(facts())


@pytest.fixture
def changed():
    """Builds a report with some top-level entries replaced."""
    return lambda **changes: Report.model_validate(facts(**changes))
