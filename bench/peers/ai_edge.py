"""Peer: Google's AI Edge Quantizer; run with a Python that has it (see README.md).

    python ai_edge.py FLOAT32.tflite CALIBRATION.npy OUT.tflite BITS [dynamic]

Weights of BITS bits in every layer that takes them, and 8-bit activations, whose ranges are those of the samples or, dynamic,
those of every run. Prints the package's version.
"""

from __future__ import annotations

import importlib.metadata
import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import qtyping, quantizer, recipe_manager

source, calibration, out, bits, *dynamic = sys.argv[1:]
recipe = recipe_manager.RecipeManager()
every = qtyping.TFLOperationName.ALL_SUPPORTED
if dynamic:
    recipe.add_dynamic_config(regex=".*", operation_name=every, num_bits=int(bits))
    quantizer.Quantizer(source, recipe.get_quantization_recipe()).quantize().export_model(out)
else:
    recipe.add_static_config(regex=".*", operation_name=every, activation_num_bits=8, weight_num_bits=int(bits))
    tool = quantizer.Quantizer(source, recipe.get_quantization_recipe())
    ((signature, names),) = Interpreter(source).get_signature_list().items()
    (name,) = names["inputs"]
    samples = [{name: x[None]} for x in np.load(calibration)]
    tool.quantize(tool.calibrate({signature: samples}, num_threads=1)).export_model(out)
print(importlib.metadata.version("ai-edge-quantizer"))
