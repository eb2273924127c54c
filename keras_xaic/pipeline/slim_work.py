"""The steps of `xaic slim`: a file is written again, and what is written is proved against the file that was given."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

import numpy as np

from keras_xaic import unpacking
from keras_xaic.bundle import Bundle
from keras_xaic.device_files import write_check_scripts, write_decoder
from keras_xaic.edge.equality import Original, Proof
from keras_xaic.edge.inspect_file import TensorInfo, read_file
from keras_xaic.edge.installed import deployed_interpreters, judge
from keras_xaic.edge.interpreters import UnusableInterpreter
from keras_xaic.edge.measured import latency_entry
from keras_xaic.edge.process import Limits
from keras_xaic.edge.running import measure_arena, race, run_file
from keras_xaic.edge.structure import check_given_file
from keras_xaic.errors import DataError, EdgeError, ExportError
from keras_xaic.files import save_arrays, write_atomic
from keras_xaic.isolation import ChildDied, run_isolated
from keras_xaic.json_files import read_bytes
from keras_xaic.progress import Progress
from keras_xaic.report.schema import EqualityFacts, LatencyFacts
from keras_xaic.settings import DataOptions

MOST = 500_000_000
"""Bytes of a .tflite file."""
TIMED = 20
"""Invocations of each file that are timed."""
CHECKED = 16
"""Samples in ``check/``."""
MICRO_DECODED = 128 * 1024
"""Bytes of weights that TensorFlow Lite Micro may unpack for one operator."""
MEMORY = 4_000_000_000
"""Bytes of address space of the child process that writes files, beside 40 times their size."""
_FOREIGN = "keras_xaic.tflite.foreign"


@dataclass
class Work:
    """One file on its way: what every step made of it, what each saved, and what could not be done."""

    bundle: Bundle
    name: str
    bare: bool
    limits: Limits
    progress: Progress
    content: bytes = field(default=b"", init=False)
    saved: dict[str, int] = field(default_factory=dict, init=False)
    left_out: dict[str, str] = field(default_factory=dict, init=False)
    proofs: dict[str, EqualityFacts] = field(default_factory=dict, init=False)
    notes: list[str] = field(default_factory=list, init=False)
    arena: Optional[int] = field(default=None, init=False)
    latency: dict[str, dict[str, LatencyFacts]] = field(default_factory=dict, init=False)

    @property
    def input(self) -> pathlib.Path:
        """The file as it was given, under a name that messages may show."""
        return self.bundle.path / f"{self.name}.tflite.input"

    def read(self, source: pathlib.Path, options: DataOptions) -> None:
        """Reads and checks the file."""
        self.progress("read", 0, 1, source.name)
        if source.is_dir():
            self.content = _converted(source, options)
        else:
            self.content = read_bytes(source, MOST, "a .tflite file")
            check_given_file(source)
        write_atomic(self.input, self.content)

    def write_model(self, arrays: Sequence[np.ndarray]) -> None:
        """Writes model.tflite: the smallest file that is proved to compute the same; the input itself where none is."""
        originals = self._originals(arrays)
        content = self.content
        if not originals:
            self.left_out["slimming"] = "no interpreter that is installed here runs the file, so nothing could be proved"
        else:
            try:
                content = self._slimmed(originals)
            except (ExportError, ChildDied) as error:
                self.left_out["slimming"] = error.found
        if len(content) >= len(self.content):
            content, self.saved = self.content, {}
        write_atomic(self.bundle.model, content)

    def _originals(self, arrays: Sequence[np.ndarray]) -> list[Original]:
        names = [name for name in deployed_interpreters() if name != "tflm"]
        found = []
        first = _judge()
        for number, name in enumerate(sorted(names, key=lambda name: name != first)):
            self.progress("run the original", number, len(names), name)
            try:
                found.append(self._original(name, arrays))
            except EdgeError as error:
                self.proofs[name] = EqualityFacts(refused=_said(error, self.input))
        self.progress("run the original", len(names), len(names))
        return found

    def _original(self, name: str, arrays: Sequence[np.ndarray]) -> Original:
        return Original(self.input, name, inputs=arrays, signatures=not self.bare and name != "tflm", limits=self.limits)

    def _slimmed(self, originals: Sequence[Original]) -> bytes:
        """Returns the file after all steps; where these change what it computes, after those that do not."""
        made = self._step("slim_foreign", self.content, self.bare)
        proofs = self._compare(originals, made["content"])
        if any(proof.differing for proof in proofs):
            steps, kept = list(made["saved"])[1:], []  # the first is that the file is written at all
            for step in steps:
                without = [other for other in steps if other != step and other not in kept]
                trial = self._step("slim_foreign", self.content, self.bare, without)
                wrong = [proof for proof in self._compare(originals, trial["content"]) if not proof.holds]
                if wrong:
                    self.left_out[step] = _why(wrong[0])
                else:
                    kept.append(step)
            made = self._step("slim_foreign", self.content, self.bare, [step for step in steps if step not in kept])
            proofs = self._compare(originals, made["content"])
        wrong = [proof for proof in proofs if not proof.holds]
        if wrong:
            self.left_out["slimming"] = _why(wrong[0])
            made = {"content": self.content, "saved": {}}
            proofs = self._compare(originals, self.content)
        self.saved = made["saved"]
        self.proofs.update({proof.interpreter: EqualityFacts(**proof.as_dict()) for proof in proofs})
        return bytes(made["content"])

    def _compare(self, originals: Sequence[Original], content: bytes) -> list[Proof]:
        proofs = []
        with self._trial(content) as trial:
            for number, original in enumerate(originals):
                self.progress("compare", number, len(originals), original.interpreter)
                try:
                    proofs.append(original.compare(trial))
                except EdgeError as error:
                    case = _said(error, trial)
                    proofs.append(Proof(original.interpreter, original.version, 0, 0, (case,)))
            self.progress("compare", len(originals), len(originals))
        return proofs

    @contextlib.contextmanager
    def _trial(self, content: bytes) -> Iterator[pathlib.Path]:
        """Yields a file with this content, which is no part of the bundle."""
        trial = self.bundle.path / "trial.tflite"
        write_atomic(trial, content)
        try:
            yield trial
        finally:
            trial.unlink()

    def write_download(self) -> None:
        """Writes model.xaic, after unpacking it again."""
        self.progress("pack", 0, 1, "model.xaic")
        content = self.bundle.model.read_bytes()
        try:
            packed = bytes(self._step("container_foreign", content)["content"])
            if unpacking.unpack(packed) != content:
                raise ExportError("it does not give model.tflite back")
        except (ExportError, unpacking.Damaged) as error:
            self.left_out["model.xaic"] = getattr(error, "found", str(error))
        else:
            write_atomic(self.bundle.download, packed)
            write_decoder(self.bundle.decoder)

    def write_micro(self, arrays: Sequence[np.ndarray]) -> None:
        """Writes ``micro/`` where TensorFlow Lite Micro runs the file."""
        if "tflm" not in deployed_interpreters():
            self.left_out["micro/"] = "tflm is not installed here, so nothing could be proved"
            return
        self.progress("micro", 0, 1, "tflm")
        try:
            original = self._original("tflm", arrays)
            for decoded in (MICRO_DECODED, 0):
                content = bytes(self._step("micro_foreign", self.content, decoded)["content"])
                (proof,) = self._compare([original], content)
                if proof.holds:
                    break
            else:
                raise ExportError(_why(proof))
            with self._trial(content) as trial:
                self.arena = measure_arena(trial, timeout=self.limits.timeout).minimum
            made = self._step("micro_kit_foreign", content, self.arena)
        except (EdgeError, ExportError) as error:
            self.left_out["micro/"] = _said(error, self.input)
        else:
            self.bundle.micro.mkdir()
            for name, part in made.items():
                write_atomic(self.bundle.micro / name, part)
            self.proofs["tflm"] = EqualityFacts(**proof.as_dict())

    def write_check(self, arrays: Sequence[np.ndarray]) -> None:
        """Writes ``check/``: samples, what the file that was given makes of them, and the script that compares on a device."""
        equal = [name for name, proof in self.proofs.items() if proof.equal and name != "tflm"]
        if not equal:
            self.left_out["check/"] = "no interpreter that devices have runs the file here"
            return
        info = read_file(self.input)
        try:
            if not info.inputs or any(one.shape[:1] != (1,) or not one.bits for one in info.inputs):
                raise DataError("inputs that are not one sample of numbers")
            samples = list(arrays)[:CHECKED] or [_real_values(one) for one in info.inputs]
            given = run_file(self.input, samples, interpreter=equal[0], timeout=self.limits.timeout).outputs
        except (DataError, EdgeError) as error:
            self.left_out["check/"] = _said(error, self.input)
            return
        self.bundle.check.mkdir()
        save_arrays(self.bundle.check / "inputs.npz", {f"x{i}": array for i, array in enumerate(samples)})
        save_arrays(self.bundle.check / "expected.npz", {f"y{i}": array for i, array in enumerate(given)})
        write_check_scripts(self.bundle.check)

    def time_both(self) -> None:
        """Times the file that was given and model.tflite in turn, and looks what delegates take of them."""
        for name in [name for name, proof in self.proofs.items() if proof.equal and name != "tflm"]:
            self.progress("time", 0, 1, name)
            files = {"original": self.input, "slim": self.bundle.model}
            try:
                timed = race(files, interpreter=name, runs=TIMED, timeout=self.limits.timeout)
            except EdgeError:  # with inputs of its own size it does not run
                continue
            facts = {which: LatencyFacts(**latency_entry(*one)) for which, one in timed.items()}
            self.latency[name] = facts
            before, after = (facts[which].delegated_macs for which in files)
            if before is not None and after is not None and after < before:
                self.notes.append(
                    f"On {name} the delegate computes {after:.0%} of model.tflite, {before:.0%} of the file given."
                )

    def _step(self, name: str, *arguments: object) -> dict[str, Any]:
        return run_isolated(
            f"{_FOREIGN}:{name}",
            *arguments,
            timeout=self.limits.timeout + len(self.content) / 20_000,
            memory=MEMORY + 40 * len(self.content),
            what="writing the file again",
            preload=_FOREIGN,
        )


def _converted(source: pathlib.Path, options: DataOptions) -> bytes:
    if not (source / "saved_model.pb").is_file():
        raise DataError(f"{source} is a directory without saved_model.pb", "a .tflite file, or a SavedModel")
    if not options.allow_unsafe:
        raise DataError(
            f"{source} is a SavedModel, which runs its own code when it is converted",
            "a .tflite file",
            "If you trust it: {allow_unsafe=True}",
        )
    made = run_isolated(f"{_FOREIGN}:convert_foreign", str(source), what="TensorFlow's converter", preload=_FOREIGN)
    return bytes(made["content"])


def _judge() -> Optional[str]:
    try:
        return judge()
    except EdgeError:
        return None


def _said(error: Any, path: pathlib.Path) -> str:
    said = str(error.found).replace(path.name, "it")
    return said if not isinstance(error, UnusableInterpreter) else f"{said} {error.fix}"


def _why(proof: Proof) -> str:
    """Returns why a file is not proved to be equal, as the end of a sentence."""
    if proof.differing:
        return f"{proof.interpreter} would compute something else: {', '.join(proof.differing)}"
    return f"{proof.interpreter} gives something else each time even with the file that was given"


def _real_values(tensor: TensorInfo) -> np.ndarray:
    """Returns random samples for an input, as real values."""
    rng, shape = np.random.default_rng(0), (CHECKED, *tensor.shape[1:])
    if len(tensor.scales):
        limits = np.iinfo(tensor.dtype)
        codes = rng.integers(limits.min, limits.max, shape, endpoint=True) - tensor.zero_points[0]
        return np.asarray(codes * tensor.scales[0], np.float32)
    is_float = tensor.dtype.startswith(("float", "bfloat"))
    return (rng.random(shape) if is_float else rng.integers(0, 2, shape)).astype(np.float32)
