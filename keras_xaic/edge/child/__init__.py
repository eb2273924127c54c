"""One job on one edge interpreter, alone in a process: ``python __main__.py JOB.json``, or a fork (see `serving`).

These files are run by path and import numpy, the interpreter and each other only: a child starts quickly, and it also works in
an environment of LiteRT's own where keras_xaic is not installed. What it found goes to the file that the job names; `START`
and progress (lines with the number of finished samples) go to what is stdout at its start; what the interpreter has to say, on
stdout or stderr, goes to stderr, where the parent reads it. All files that it reads and writes lie in a private directory of
its parent, but for the model.
"""
