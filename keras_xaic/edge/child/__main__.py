"""Starts a child: see `keras_xaic.edge.child`."""

import importlib
import os
import sys

# These files are a package of their own here: keras_xaic need not be installed, and nothing beside them is to be found.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
host = importlib.import_module("child.host")
jobs = importlib.import_module("child.jobs")
serving = importlib.import_module("child.serving")
del sys.path[0]

if __name__ == "__main__":
    host.usual_signals()
    if sys.argv[1] == "--serve":
        serving.serve(int(sys.argv[2]))
    else:
        jobs.start(sys.argv[1])
