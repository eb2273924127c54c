"""The public verbs, each one run from beginning to end: what `xaic` does on the command line."""

from __future__ import annotations

from keras_xaic.pipeline.compressing import compress
from keras_xaic.pipeline.explaining import Explanation, explain
from keras_xaic.pipeline.exporting import export
from keras_xaic.pipeline.previewing import Preview, plan, preview
from keras_xaic.pipeline.slimming import slim

__all__ = ["Explanation", "Preview", "compress", "explain", "export", "plan", "preview", "slim"]
