"""Functions of this package run on the nodes of a Ray cluster: files travel to each once, and what is lost is done again."""

from __future__ import annotations

import concurrent.futures
import contextlib
import contextvars
import functools
import hashlib
import importlib
import importlib.util
import io
import logging
import os
import pathlib
import pickle
import platform
import signal
import socket
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional

import numpy as np

from keras_xaic._version import __version__
from keras_xaic.errors import MachineError, PlanError, XaicError, first_line
from keras_xaic.files import PathLike, machine_error
from keras_xaic.temporary import temporary_directory

RETRIES = 3
"""How often a call is begun again whose node or process was lost."""
MEMORY, COPIES = 1_500_000_000, 4
"""Bytes that a call is declared to take: a process with TensorFlow 2.14 (measured: 1.0 GB), and the files so many times."""
LARGEST = 1 << 30
"""Bytes of a directory that may travel back."""
MODULES = ("tensorflow", "numpy")
"""Packages that decide on values; nodes load them for their version."""


class Cluster:
    """Nodes that run functions of this package; made by `joined`.

    Args:
        ray: The package.
        files: Name -> file or directory that every node gets; it travels when the first call there needs it.
        modules: Packages that must have the same version on every node.
    """

    def __init__(self, ray: Any, files: Mapping[str, PathLike], modules: Sequence[str] = MODULES) -> None:
        self._ray, self._modules = ray, tuple(modules)
        packed = {name: pack(path) for name, path in files.items()}
        self._parcels: dict[str, tuple[str, str, Any]] = {}
        for name, path in files.items():
            self.add(name, pathlib.Path(path).name, packed[name])
        self._needs = {"num_cpus": 1, "memory": MEMORY + COPIES * sum(len(content) for content in packed.values())}
        self._task = ray.remote(max_retries=0, **self._needs)(_on_node)
        self._pending: set[Any] = set()
        self._closed = threading.Event()

    @property
    def size(self) -> int:
        """Number of calls that can run at the same time."""
        most = [min(node.get("CPU", 0), node.get("memory", 0) // self._needs["memory"]) for node in self._nodes()]
        return max(1, int(sum(most)))

    def add(self, name: str, file: str, content: np.ndarray) -> None:
        """Has nodes get one more file in further calls; of a name that is known already nothing travels again.

        Args:
            name: What calls know it by.
            file: Name of the file or directory.
            content: What `pack` made of it.
        """
        if name not in self._parcels:  # calls in other threads go on with the files that they began with
            self._parcels = {**self._parcels, name: (file, _digest(content), self._ray.put(content))}

    def packed(self, thing: object) -> bytes:
        """Returns something as bytes for a node (see `sendable`): functions of a script or a notebook travel, too."""
        return sendable(thing, self._ray.cloudpickle)

    def call(self, function: str, *arguments: Any) -> Any:
        """Calls ``module:name`` on a node, with the places of the files there and these arguments; may be called from threads.

        A call whose node or process is lost begins again elsewhere, `RETRIES` times.

        Raises:
            MachineError: If no node can run it, or it was lost each time.
            PlanError: If an argument cannot be sent.
            XaicError: What the function raised.
        """
        ray, said = self._ray, ""
        for _ in range(1 + RETRIES):
            if self._closed.is_set():
                raise KeyboardInterrupt
            pending = None
            try:
                self._check_nodes()
                parcels = self._parcels
                names = {name: (file, digest) for name, (file, digest, _) in parcels.items()}
                job = self.packed((function, arguments, names, _versions(self._modules)))
                pending = self._task.remote(job, *(parcel for _, _, parcel in parcels.values()))
                self._pending.add(pending)
                answer, error = ray.get(pending)
            except ray.exceptions.TaskCancelledError:
                raise KeyboardInterrupt from None
            except ray.exceptions.RayTaskError as fault:
                raise _not_ours(fault) from None
            except ray.exceptions.RayError as fault:
                if self._closed.is_set():
                    raise KeyboardInterrupt from None
                said = first_line(fault)
                continue
            finally:
                self._pending.discard(pending)
            if error is not None:
                raise error
            return answer
        raise MachineError(
            f"a call was lost {1 + RETRIES} times with its node or its process ({said})", "nodes with more memory"
        )

    def map(self, function: str, jobs: Sequence[Sequence[Any]]) -> list[Any]:
        """Calls a function once for every job, at the same time, and returns their results in order."""
        context = contextvars.copy_context()  # threads belong to the call that starts them (see `keras_xaic.usual`)
        with concurrent.futures.ThreadPoolExecutor(max(1, len(jobs))) as pool:
            try:
                return list(pool.map(lambda job: context.copy().run(self.call, function, *job), jobs))
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Ends the calls that are running."""
        self._closed.set()
        for pending in list(self._pending):
            with contextlib.suppress(Exception):
                self._ray.cancel(pending, force=True)

    def _nodes(self) -> list[dict[str, float]]:
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]

    def _check_nodes(self) -> None:
        """Refuses what would wait for ever."""
        wanted = self._needs["memory"]
        nodes = self._nodes()
        if not any(node.get("CPU", 0) >= 1 and node.get("memory", 0) >= wanted for node in nodes):
            most = max((node.get("memory", 0) for node in nodes if node.get("CPU", 0) >= 1), default=0)
            found = f"no node of the cluster has a CPU and {wanted / 1e9:.1f} GB of memory; the largest has {most / 1e9:.1f} GB"
            raise MachineError(found, "", "Start Ray with more memory, or add a node")


@contextlib.contextmanager
def joined(address: str, files: Mapping[str, PathLike], modules: Sequence[str] = MODULES) -> Iterator[Cluster]:
    """Yields a cluster for the length of the block; running calls end with it, and a Ray that was started for it.

    Args:
        address: Of a Ray cluster that this machine is a node of; ``auto``: the one that runs here, else one of this machine
            alone that is started.
        files: As for `Cluster`.
        modules: As for `Cluster`.

    Raises:
        MachineError: If there is none, or Ray is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise MachineError("a cluster needs Ray, which is not installed", "", "pip install 'keras-xaic[cluster]'")
    with contextlib.ExitStack() as stack:
        # Nothing is told to anybody, GPUs stay visible, and a thread that asks after the end does not start another Ray.
        for name in ("RAY_USAGE_STATS_ENABLED", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "RAY_ENABLE_AUTO_CONNECT"):
            if name not in os.environ:
                os.environ[name] = "0"
                stack.callback(os.environ.pop, name, None)
        import ray

        stack.callback(_restore_signals, {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)})
        if ray.is_initialized():
            cluster = Cluster(ray, files, modules)  # the user's own, which stays
        else:
            _start(ray, address, stack)
            cluster = Cluster(ray, files, modules)
        stack.callback(cluster.close)
        yield cluster


def _start(ray: Any, address: str, stack: contextlib.ExitStack) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    stack.callback(ray.shutdown)  # also of what an interruption leaves half done
    try:
        try:
            ray.init(address=address, **quiet)
        except ConnectionError:
            if address != "auto":
                raise
            place = stack.enter_context(temporary_directory("/tmp"))  # elsewhere names of sockets may get too long
            stack.callback(_end_all, place)
            stack.callback(ray.shutdown)
            ray.init(address="local", include_dashboard=False, _temp_dir=str(place), **quiet)
        with contextlib.suppress(AttributeError):
            ray._private.worker._worker_logs_enabled = False  # log lines of a node that is lost; we say what matters
    except Exception as fault:
        raise MachineError(
            f"the cluster {address} cannot be joined ({first_line(fault)})",
            "auto, or HOST:PORT of a Ray cluster that this machine is a node of",
            "Check the address, and that `ray start` made this machine a node of it",
        ) from None


def _end_all(place: pathlib.Path) -> None:
    """Ends what is left of a Ray that was started here with its files in `place`: its agents stay for a minute otherwise."""
    until = time.monotonic() + 5
    while time.monotonic() < until and _end_those_at(place):
        time.sleep(0.1)  # one that was just being started may not have been seen


def _end_those_at(place: pathlib.Path) -> bool:
    """Returns whether there were any: they have logs open, while the names that they take hide arguments and environment."""
    spec = importlib.util.find_spec("ray")
    package = os.fsencode(next(iter((spec and spec.submodule_search_locations) or ()), "ray::"))
    found = False
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_bytes()
            is_ray = b"ray" in command.partition(b"\0")[0] or package in command  # agents take a name a moment after they start
            if is_ray and any(place in pathlib.Path(os.readlink(file)).parents for file in (process / "fd").iterdir()):
                os.kill(int(process.name), signal.SIGKILL)
                found = True
    return found


def _restore_signals(before: Mapping[int, Any]) -> None:
    if threading.current_thread() is threading.main_thread():
        for number, handler in before.items():
            signal.signal(number, handler)


def _not_ours(fault: BaseException) -> XaicError:
    """Returns what is said where a node could not even begin: the package is missing there, say."""
    return MachineError(
        f"a node of the cluster cannot run keras-xaic ({str(fault).strip().splitlines()[-1]})",
        f"keras-xaic {__version__} on every node",
        "pip install 'keras-xaic[cluster]' there",
    )


def _versions(modules: Sequence[str] = MODULES) -> dict[str, str]:
    """What has to be the same on all nodes, for the same values."""
    found = {"Python": ".".join(platform.python_version_tuple()[:2]), "keras-xaic": __version__}
    return {**found, **{name: importlib.import_module(name).__version__ for name in modules}}


def _on_node(job: bytes, *parcels: np.ndarray) -> tuple[Any, Optional[XaicError]]:
    """Does a call; in a process of a node."""
    try:
        function, arguments, names, versions = received(job)
        own = _versions([name for name in MODULES if name in versions])
        wrong = [f"{name} {own[name]}, not {version}" for name, version in versions.items() if own[name] != version]
        if wrong:
            return None, MachineError(f"node {socket.gethostname()} has {', '.join(wrong)}", "the same versions on every node")
        known = zip(names.items(), parcels)
        places = {name: _unpacked(file, digest, parcel) for (name, (file, digest)), parcel in known}
        module, name = function.split(":")
        return getattr(importlib.import_module(module), name)(places, *arguments), None
    except XaicError as error:
        return None, error
    except Exception as error:
        return None, machine_error(error) or XaicError(f"{type(error).__name__}: {first_line(error)}")


def sendable(thing: object, how: Any = pickle) -> bytes:
    """Returns something as bytes for another process (see `received`).

    Args:
        thing: What is sent.
        how: What packs it: the module `pickle`, or one that also takes functions of scripts, notebooks and other functions.

    Raises:
        PlanError: If it cannot be sent.
    """
    try:
        return bytes(how.dumps(thing))
    except Exception as error:
        raise _unsendable(error) from None


def received(sent: bytes) -> Any:
    """Returns what `sendable` sent.

    Raises:
        PlanError: If it needs what this process cannot find.
    """
    try:
        return pickle.loads(sent)
    except (ImportError, AttributeError) as error:
        raise _unsendable(error) from None


def _unsendable(error: BaseException) -> PlanError:
    found = f"a setting cannot be sent to the processes of a search or a cluster ({type(error).__name__}: {first_line(error)})"
    expected = "metrics, losses, optimizers and callbacks from the top level of a module that every process can import"
    return PlanError(found, expected, "Move yours into such a module, or work in one process")


_stack = contextlib.ExitStack()


@functools.cache
def own_place() -> pathlib.Path:
    """Returns the directory of this process of a node; another process of ours removes it when this one is dead."""
    return _stack.enter_context(temporary_directory())


_known: dict[tuple[str, str], str] = {}


def _unpacked(file: str, digest: str, parcel: np.ndarray) -> str:
    """Returns where a file lies in this process, unpacked once."""
    if (file, digest) not in _known:
        place = own_place() / f"{len(_known)}"
        unpack(parcel, place)
        _known[file, digest] = str(place / file)
    return _known[file, digest]


def _digest(content: np.ndarray) -> str:
    return hashlib.sha256(content.data).hexdigest()


def pack(path: PathLike, most: Optional[int] = None) -> np.ndarray:
    """Returns a file or directory as the bytes of an archive, uint8.

    Args:
        path: What is packed.
        most: Bytes that it may have; None: any number.

    Raises:
        MachineError: If it has more.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(path, pathlib.Path(path).name)
    if most is not None and buffer.tell() > most:
        raise MachineError(f"{path} has {buffer.tell() / 1e9:.1f} GB", f"at most {most / 1e9:.1f} GB to come back from a node")
    return np.frombuffer(buffer.getbuffer(), np.uint8)


def unpack(content: np.ndarray, place: pathlib.Path) -> None:
    """Writes what `pack` made into a directory."""
    with tarfile.open(fileobj=io.BytesIO(content.data)) as archive:
        safe: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(place, **safe)
