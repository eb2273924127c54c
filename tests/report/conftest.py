from __future__ import annotations

import pytest

from keras_xaic.report import Report


def facts(**changes) -> dict:
    values = {
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
            "int8": {"flash_bytes": 95_440, "download_bytes": 78_751, "edge_accuracy": 0.8429},
            "magnitude": {"flash_bytes": 61_000, "download_bytes": 40_000, "edge_accuracy": 0.825},
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
        },
        "interpreters": {
            "tflite-runtime": {"version": "2.14.0", "accuracy": 0.8388, "ran": True},
            "tflm": {"ran": False, "error": "tflm refused <model>"},
        },
        "layers": [
            {"name": "stem/<conv>", "kind": "conv", "relevance": 0.75, "weights": 432, "bits": 8, "flash_bytes": 432},
            {"name": "head", "kind": "dense", "relevance": 0.25, "weights": 640, "bits": 4, "flash_bytes": 320},
        ],
    }
    return {**values, **changes}


@pytest.fixture
def report() -> Report:
    return Report.model_validate(facts())


@pytest.fixture
def changed():
    """Builds a report with some top-level entries replaced."""
    return lambda **changes: Report.model_validate(facts(**changes))
