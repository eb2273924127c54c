"""A PostgreSQL server of the tests' own."""

from __future__ import annotations

import glob
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import tempfile
import time

import pytest

PROGRAMS = sorted(glob.glob("/usr/lib/postgresql/*/bin/postgres"))[-1:] or [shutil.which("postgres")]
USERS = ("postgres", "nobody")


def unprivileged():
    """Who may run a server: it refuses to be run by root."""
    if os.geteuid() != 0:
        return {}
    names = [name for name in USERS if name in {one.pw_name for one in pwd.getpwall()}]
    return {"user": names[0]} if names else pytest.skip("root may not run PostgreSQL, and there is no other user")


@pytest.fixture
def server():
    """A server that listens on a socket in its own directory; how to stop it, and the URL of its database."""
    pytest.importorskip("psycopg2", reason="psycopg2 is not installed: pip install 'keras-xaic[cluster]'")
    if PROGRAMS == [None]:
        pytest.skip("no PostgreSQL server (Debian: apt-get install postgresql)")
    user = unprivileged()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))  # a socket's path has to be short
    if user:
        shutil.chown(folder, **user)
    programs, data = pathlib.Path(PROGRAMS[0]).parent, folder / "data"
    made = [programs / "initdb", "-D", data, "-A", "trust", "-U", "xaic", "--no-sync"]
    subprocess.run(made, check=True, capture_output=True, cwd=folder, **user)
    words = [programs / "postgres", "-D", data, "-k", folder, "-c", "listen_addresses=", "-c", "fsync=off"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder, **user)

    def stop():
        process.send_signal(signal.SIGINT)  # its fast shutdown, which waits for no client
        process.wait(60)

    try:
        until = time.monotonic() + 60
        while not (folder / ".s.PGSQL.5432").exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.1)
        yield stop, f"postgresql://xaic@/postgres?host={folder}"
    finally:
        stop()
        shutil.rmtree(folder)
