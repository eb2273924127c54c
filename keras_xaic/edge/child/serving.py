"""One process that has loaded Python and numpy, and is forked for every job: ``python __main__.py --serve DESCRIPTOR``."""

from __future__ import annotations

import array
import os
import socket
import traceback

from . import jobs
from .host import ENDED, FAILED, STARTED


def serve(descriptor: int) -> None:
    """Forks a child for each request that comes by a socket: its directory and its job, with its stdout and stderr.

    It touches nothing of a user's itself, and ends when the socket's other end is closed.
    """
    asked = socket.socket(fileno=descriptor)
    while True:
        given, rights, _, _ = asked.recvmsg(1 << 16, socket.CMSG_SPACE(8))
        if not given:
            return
        stdout, stderr = array.array("i", rights[0][2])
        try:
            child = os.fork()
        except OSError as error:
            asked.send(b"%b %d" % (FAILED, error.errno or 0))
        else:
            if child == 0:
                _work(asked, given, stdout, stderr)
        os.close(stdout)
        os.close(stderr)
        if child:
            status = os.waitpid(child, 0)[1]
            asked.send(b"%b %d" % (ENDED, -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)))


def _work(asked: socket.socket, given: bytes, stdout: int, stderr: int) -> None:
    """Does one job, in the child."""
    try:
        os.setsid()  # what it starts is ended with it
        for source, target in ((stdout, 1), (stderr, 2)):
            os.dup2(source, target)
            os.close(source)
        asked.send(b"%b %d" % (STARTED, os.getpid()))
        asked.close()
        directory, request = given.decode().split("\0")
        os.chdir(directory)
        jobs.start(request)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)
