"""Feeds a reader with damaged files, in a process of its own that is watched."""

from __future__ import annotations

import contextlib
import io
import json
import math
import pathlib
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

SECONDS = 10
MEMORY = 1_000_000_000
START = 300
"""Seconds more for the first word: TensorFlow is loaded, and whole files are made and read."""
ROOT = pathlib.Path(__file__).parents[2]
CORPUS = pathlib.Path(__file__).with_name("corpus")


@dataclass(frozen=True)
class Finding:
    """An input that a reader did not answer as it should."""

    reader: str
    number: int
    what: str
    content: bytes


def hunt(
    counts: Mapping[str, int],
    seed: int = 0,
    patience: float = 120.0,
    seconds: float = math.inf,
    tried: Counter[str] | None = None,
    turns: int = 20,
    corpus: bool = False,
) -> Iterator[Finding]:
    """Yields what is wrong with the answers of readers to damaged files.

    Readers take turns, so that an end ahead of time leaves none out.

    Args:
        counts: Number of inputs of each reader; 0 reads what is kept in the corpus instead.
        seed: Chooses the inputs.
        patience: Seconds after which a child that says nothing counts as hung.
        seconds: After which no more inputs are tried, counted from the first.
        tried: Told how many inputs each reader was given.
        turns: Parts that the inputs of each reader are given in.
        corpus: Whether every reader gets what is kept in the corpus, too.
    """
    tried = Counter() if tried is None else tried
    jobs = [(reader.name, 0, len(list(reader.iterdir())), True) for reader in sorted(CORPUS.iterdir())] if corpus else []
    for part in range(turns):
        for reader, wanted in counts.items():
            count = wanted or len(kept(reader))
            if part * count // turns < (part + 1) * count // turns:
                jobs.append((reader, part * count // turns, (part + 1) * count // turns, wanted == 0))
    end = math.inf
    while jobs and time.monotonic() < end:
        with tempfile.TemporaryDirectory() as name, (pathlib.Path(name) / "stderr").open("w+") as said:
            command = [sys.executable, "-m", "tests.fuzz.hunt", json.dumps(jobs), str(seed), name]
            child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True, cwd=ROOT)
            watch, last = _Watch(child, patience, START), None
            assert child.stdout is not None
            for line in child.stdout:
                watch.alive()
                end = min(end, time.monotonic() + seconds)
                if time.monotonic() > end:
                    watch.over = True
                    child.kill()
                    break
                last = json.loads(line)
                if last.get("what"):
                    yield Finding(last["reader"], last["number"], last["what"], bytes.fromhex(last["content"]))
                else:
                    tried[last["reader"]] += 1
            code = child.wait()
            if code == 0 or watch.over:
                return
            watch.over = True
            said.seek(0)
            how = f"{'it hung' if watch.fired else f'it died with code {code}'}: {said.read()[-300:]}"
        if last is None:
            raise RuntimeError(f"the readers cannot be started: {how}")
        yield Finding(last["reader"], last["number"], how, bytes.fromhex(last["content"]))
        dead = last["reader"], last["corpus"]
        at = [(job[0], job[3]) == dead and job[1] <= last["number"] < job[2] for job in jobs].index(True)
        reader, _, count, is_kept = jobs[at]
        jobs = [job for job in ((reader, last["number"] + 1, count, is_kept), *jobs[at + 1 :]) if job[1] < job[2]]


def kept(reader: str) -> list[pathlib.Path]:
    """Returns the inputs that once found something."""
    return sorted((CORPUS / reader).glob("*"))


class _Watch:
    """Ends a child that says nothing for too long."""

    def __init__(self, child: subprocess.Popen[str], patience: float, start: float) -> None:
        self.child, self.patience, self.fired, self.last, self.over = child, patience, False, time.monotonic() + start, False
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while not self.over:
            time.sleep(0.5)
            if time.monotonic() - self.last > self.patience and not self.over:
                self.fired = True
                self.child.kill()
                return

    def alive(self) -> None:
        """The child said something."""
        self.last = time.monotonic()


def _too_slow(*_: object) -> None:
    raise TimeoutError(f"no answer within {SECONDS} s of processor time")


def judge(reader: object, whole: bytes, damaged: bytes, how: object, path: pathlib.Path) -> str | None:
    """Returns what is wrong with the answer to one file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(damaged)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = reader.read(path)
    except reader.errors as error:
        text = str(error)
        if "\n" in text or not 0 < len(text) < 1500:
            return f"an error of {len(text)} characters in {len(text.splitlines())} lines: {text[:300]!r}"
        return None if getattr(error, "exit_code", 2) in (2, 4) else f"exit code {error.exit_code}: {text}"
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        return f"{type(error).__name__}: {str(error)[:200]} at {frames[-1].filename}:{frames[-1].lineno}, from {frames[1].name}"
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    wrong = reader.wrong(whole, damaged, how, made) if damaged != whole else None
    return wrong and f"accepted, but wrong: {wrong}"


def main(jobs: list[tuple[str, int, int, bool]], seed: int, place: pathlib.Path) -> None:
    """Feeds the readers, and says before every input which it is; in the child."""
    from tests.fuzz.readers import READERS, one_input

    seeds = {name: READERS[name].seeds(place) for name in dict.fromkeys(job[0] for job in jobs)}
    for name, wholes in seeds.items():
        for whole in wholes:
            fault = judge(READERS[name], whole, whole, None, place / name / READERS[name].file)
            READERS[name].read(place / name / READERS[name].file)  # a whole file is accepted, or nothing below means anything
            assert fault is None, fault
    signal.signal(signal.SIGVTALRM, _too_slow)
    held = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
    for name, start, end, corpus in jobs:
        reader, files = READERS[name], kept(name)
        for number in range(start, end):
            whole, how, damaged = one_input(reader, seeds[name], seed, number)
            if corpus:
                damaged = files[number].read_bytes()
            message = {"reader": name, "number": number, "content": damaged.hex(), "corpus": corpus}
            print(json.dumps(message), file=sys.__stdout__, flush=True)
            what = judge(reader, whole, damaged, None if corpus else how, place / name / reader.file)
            if what:
                print(json.dumps({**message, "what": what}), file=sys.__stdout__, flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3]))
