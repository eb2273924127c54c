"""Writes docs/terminal.md: what xaic really prints, on the model of the tutorial, as a terminal shows it.

    python tools/record_terminal.py        (part of make docs-fresh; a few minutes)

Every command runs in a terminal of its own (a pty), whose screen is kept when the command ends.
"""

from __future__ import annotations

import os
import pathlib
import pty
import re
import select
import subprocess
import sys
import tempfile
import time

import pyte

ROOT = pathlib.Path(__file__).parents[1]
COLUMNS, LINES = 100, 150
RUN = "xaic compress vibration.keras --data vibration.npz --flash 10kB --max-drop 1.0 --epochs 6 --out small/"
WRONG = (
    "xaic compress vibration.h5 --data vibration.npz --out other/",
    "xaic compress vibration.keras --data images.npz --out other/",
    "xaic compress vibration.keras --data short.npz --out other/",
    "xaic compress vibration.keras --data vibration.npz --flash tiny --out other/",
    "xaic compress vibration.keras --data vibration.npz --out small/",
)


def show(command: str, place: pathlib.Path, interrupt_at: str = "") -> str:
    """Runs a command in a terminal and returns what is on its screen at the end; Ctrl-C when it shows `interrupt_at`."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "LINES": str(LINES), "TERM": "xterm", "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "keras_xaic.cli", *command.split()[1:]]
    process = subprocess.Popen(
        words, cwd=place, env=environment, stdin=follower, stdout=follower, stderr=follower, start_new_session=True,
        preexec_fn=_take_terminal,
    )  # fmt: skip
    os.close(follower)
    screen = pyte.Screen(COLUMNS, LINES)
    screen.set_mode(pyte.modes.LNM)
    stream, waiting = pyte.ByteStream(screen), interrupt_at
    while True:
        ready, _, _ = select.select([leader], [], [], 0.2)
        if ready:
            try:
                content = os.read(leader, 65536)
            except OSError:  # the other end is closed
                break
            if not content:
                break
            stream.feed(content)
        if waiting and any(waiting in line for line in screen.display):
            time.sleep(1.0)
            os.write(leader, b"\x03")
            waiting = ""
    code = process.wait()
    lines = [line.rstrip() for line in screen.display]
    text = "\n".join(lines).strip("\n").replace(str(place), "/home/me").replace(str(ROOT), "/home/me/keras-xaic")
    return f"$ {command}\n{'^C' if interrupt_at else ''}{text}\n[exit code {code}]"


def _take_terminal() -> None:
    """Makes the pty the terminal of the new session, so that Ctrl-C reaches the command, and is not ignored there."""
    import fcntl
    import signal
    import termios

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a job in the background inherits that it is ignored
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def prepare(place: pathlib.Path) -> None:
    """Makes the tutorial's model and data, with the tutorial's own code, and some files that are wrong."""
    tutorial = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", tutorial, re.S)
    assert code is not None, "the tutorial shows how to make a model"
    wrong = (
        "\nnp.savez('images.npz', images=x_train, labels=y_train)"
        "\nnp.savez('short.npz', x_train=x_train[:, :32], y_train=y_train)\n"
    )
    (place / "make_model.py").write_text(code.group(1) + wrong, encoding="utf-8")
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([sys.executable, "make_model.py"], cwd=place, env=environment, check=True, capture_output=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        place = pathlib.Path(name)
        prepare(place)
        sections: list[tuple[str, list[tuple[str, str]]]] = [
            ("Help", [("xaic --help", "")]),
            ("A run that is interrupted and continued", [(RUN, "quantize"), (RUN, "")]),
            ("The same values, from the files", [("xaic verify small/ --data vibration.npz", "")]),
            ("Only the last line", [("xaic verify small/ --data vibration.npz --quiet", "")]),
            ("What the model looks at", [("xaic explain vibration.keras --data vibration.npz --out why/", "")]),
            ("What would be done", [("xaic plan vibration.keras --relevance why/ --flash 10kB", "")]),
            ("Five wrong inputs", [(command, "") for command in WRONG]),
            ("Recipes", [("xaic recipes", "")]),
            ("Doctor", [("xaic doctor", "")]),
        ]
        text = "# On the command line\n\nRecorded by `tools/record_terminal.py` on the model of the [tutorial](tutorial.md).\n"
        for title, commands in sections:
            text += f"\n## {title}\n"
            for command, interrupt_at in commands:
                text += f"\n```text\n{show(command, place, interrupt_at)}\n```\n"
                (ROOT / "docs" / "terminal.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
