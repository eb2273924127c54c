"""Trials and relevance on the nodes of a Ray cluster: the same values as on one machine, whatever happens to a node."""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import pickle
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import keras_xaic as xaic
from keras_xaic import cluster, edge
from keras_xaic._keras import keras, layers
from keras_xaic.data import Parts
from keras_xaic.edge import sharing
from keras_xaic.pipeline import explain, explaining
from keras_xaic.pipeline.run_settings import RunSettings
from keras_xaic.pipeline.tuning import Tuned
from keras_xaic.pipeline.workspace import Shared
from keras_xaic.recipes import RECIPES
from keras_xaic.relevance.tried import Tried
from keras_xaic.searching import search, study, trial, workers
from keras_xaic.searching.database import sqlite_url
from keras_xaic.searching.study import STUDY
from keras_xaic.settings import AttributionOptions
from tests.docs.test_commands import IN_SCRIPTS, ROOT, shown, words_of
from tests.nets import saved

optuna = pytest.importorskip("optuna")
TINY = pathlib.Path(edge.__file__).parent / "tiny.tflite"
PAGE = ROOT / "docs" / "several-machines.md"
ADDRESS, URL = "10.0.0.1:6379", "postgresql://user@host/database"
QUICK = {"search": ["--trials", "2", "--epochs", "0", "--target", "mobile"]}
"""What makes a command short: of two options the last one counts."""
HOW = {"training": xaic.Training(epochs=0), "device": xaic.Device("mobile")}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cluster")
    saved(folder)
    return folder


def searched(place, out, trials, **effort):
    """What every trial was asked, and what came out of it."""
    search(place / "m.keras", place / "d.npz", out, xaic.SearchOptions(trials=trials, **effort), **HOW)
    found = optuna.load_study(study_name=STUDY, storage=sqlite_url(out / "study.db"))
    return [(one.params, one.values) for one in found.get_trials(deepcopy=False) if one.values is not None]


def explained(place, out, **how):
    attribution = AttributionOptions("deeplift.rescale", pictures=0, batch_size=32, per_class=True, **how)
    return explain(place / "m.keras", place / "d.npz", out, attribution=attribution).relevance


class Here(cluster.Cluster):
    """A cluster whose nodes are this process, which like any node's does one call at a time; what travels travels."""

    size = 3
    busy = threading.Lock()

    def __init__(self, files):
        self.files = {name: (pathlib.Path(path).name, cluster.pack(path)) for name, path in files.items()}

    def add(self, name, file, content):
        self.files.setdefault(name, (file, content))

    def packed(self, thing):
        return pickle.dumps(thing)

    def call(self, function, *arguments):
        names = {name: (file, cluster._digest(parcel)) for name, (file, parcel) in self.files.items()}
        job = pickle.dumps((function, arguments, names, cluster._versions()))
        with self.busy:
            answer, error = cluster._on_node(job, *(parcel for _, parcel in self.files.values()))
        if error is not None:
            raise error
        return pickle.loads(pickle.dumps(answer))

    def close(self):
        pass


@pytest.fixture
def here(monkeypatch):
    for module in (workers, explaining, sharing):
        monkeypatch.setattr(module, "joined", lambda address, files, modules=(): contextlib.nullcontext(Here(files)))


@pytest.mark.slow
def test_a_cluster_tries_what_one_machine_tries(place, here, tmp_path, monkeypatch):
    def tried(setting, number, flash, entries, rivals):
        made = pathlib.Path(setting.out) / "trials" / str(number)
        made.mkdir()
        (made / "model.tflite").write_text(f"{flash} {entries}")
        assert pathlib.Path(setting.data).read_bytes() == (place / "d.npz").read_bytes()
        return trial.Tried({"flash": float(flash), "metric": flash / 1e6}, True, (1, 2, 0.5))

    for module in (study, trial):
        monkeypatch.setattr(module, "run_trial", tried)
    monkeypatch.setattr(study, "smallest_and_largest", lambda setting: (200, 2000))
    alone = searched(place, tmp_path / "alone", 6)
    assert searched(place, tmp_path / "cluster", 6, cluster="auto") == alone
    assert len(searched(place, tmp_path / "several", 3, cluster="auto", workers=2)) in (3, 4)
    for number, (params, _) in enumerate(alone):
        entries = {name: value for name, value in params.items() if name != "flash"}
        for out in ("alone", "cluster"):
            kept = tmp_path / out / "trials" / str(number) / "model.tflite"
            assert kept.read_text() == f"{params['flash']} {entries}"


def test_what_a_node_made_for_all_trials_another_node_finds(place, here, tmp_path, monkeypatch):
    run = RunSettings(RECIPES["auto"], xaic.Budget(), HOW["training"], HOW["device"], xaic.DataOptions())
    setting = trial.Setting(str(place / "m.keras"), str(place / "d.npz"), str(tmp_path), run, ("flash",))
    (tmp_path / "trials").mkdir()

    def tried(setting, number, *_):
        (pathlib.Path(setting.out) / "trials" / str(number)).mkdir()
        shared = Shared(pathlib.Path(setting.out) / "shared")
        for rule in ("lrp.epsilon", *(["deeplift.rescale"] if number else [])):
            make, save = functools.partial(str, rule), lambda made, path: path.write_text(made)
            assert shared.cached("relevance.json", rule, make, save, pathlib.Path.read_text) == rule
        return trial.Tried({"flash": 1.0}, True, (shared.used, shared.made, 0.0))

    def work(run):
        for number in range(3):  # each time in another process
            trial._here.cache_clear()
            cluster._known.clear()
            for module in (trial, cluster):
                monkeypatch.setattr(module, "own_place", functools.partial(pathlib.Path, tmp_path, f"node {number}"))
            counts.append(run(setting, number, 1000, {}, ()).shared[:2])

    counts = []
    monkeypatch.setattr(trial, "run_trial", tried)
    workers.work_on_cluster(work, xaic.SearchOptions(cluster="auto"), setting, lambda: None)
    assert counts == [(0, 1), (1, 1), (2, 0)]


def test_relevance_of_a_cluster_is_that_of_one_process(place, here, tmp_path):
    whole, added = explained(place, tmp_path / "one"), explained(place, tmp_path / "three", cluster="auto")
    same(whole, added)


@pytest.mark.slow
def test_a_cluster_computes_relevance_by_the_rules_that_were_searched_for(place, here, tmp_path, monkeypatch):
    chosen = {"weights": "lrp.gamma", "filters": "deeplift.rescale", "bits": "magnitude"}
    tried = tuple(Tried(use, rule, "mean_abs", (), (), None, chosen=True) for use, rule in chosen.items())
    monkeypatch.setattr(explaining, "search_rules", lambda *_, **__: Tuned(tried))
    found = []
    for name, address in (("one", None), ("three", "auto")):
        how = AttributionOptions("auto", pictures=0, batch_size=32, per_class=True, cluster=address)
        found.append(explain(place / "m.keras", place / "d.npz", tmp_path / name, attribution=how).relevance)
    same(*found)
    whole, added = found
    assert (added.rule, added.filter_rule, added.bits_rule, added.tried) == ("lrp.gamma", *list(chosen.values())[1:], tried)
    for key, scores in whole.filters.items():
        np.testing.assert_allclose(added.filters[key], scores, rtol=1e-5, atol=1e-5 * np.abs(scores).max())


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A file, and 50 samples that it gets right about as often as chance."""
    folder = tmp_path_factory.mktemp("bundle")
    random, info = np.random.default_rng(0), edge.read_file(TINY)
    shape, classes = info.inputs[0].shape[1:], info.outputs[0].shape[-1]
    (folder / "small").mkdir()
    shutil.copy(TINY, folder / "small" / "model.tflite")
    x, y = random.normal(size=(50, *shape)).astype(np.float32), random.normal(size=(50, classes)).astype(np.float32)
    np.savez(folder / "d.npz", x_train=x[:5], y_train=y[:5], x_test=x, y_test=y)
    return folder


@pytest.mark.parametrize("metric", ["mse", "mae", "r2"])
def test_metric_values_of_a_cluster_are_those_of_one_process(bundle, here, metric):
    options, seen = xaic.DataOptions(task="regression", metric=metric), []
    given = (bundle / "small", bundle / "d.npz")
    alone = xaic.verify(*given, options=options)
    shared = xaic.verify(*given, options=options, cluster="auto", progress=lambda *state: seen.append(state))
    assert shared.edge_metric == alone.edge_metric  # the same bits
    assert np.array_equal(shared.outputs, alone.outputs)
    assert len(shared.outputs) == shared.samples == 50
    assert shared.latency_ms().keys() == alone.latency_ms().keys()
    assert seen == [(edge.judge(), 0, 50), (edge.judge(), 50, 50)]


def test_samples_of_several_inputs_are_shared_in_order(here, monkeypatch):
    def run(path, inputs, *, interpreter, **how):
        assert how == {"scale": 2.0}
        outputs = [inputs[0] * 2 + inputs[1], inputs[1]]
        return edge.EdgeResult(interpreter, "1", outputs, outputs)

    monkeypatch.setattr(sharing, "run_file", run)
    inputs = Parts([np.arange(10.0), np.arange(10.0) * 100])
    first = {edge.judge(): run("", [one[:1] for one in inputs.arrays], interpreter=edge.judge(), scale=2.0)}
    given = ("auto", {edge.judge(): TINY}, inputs, first, {"scale": 2.0}, lambda *_: None)
    result = sharing.run_on_nodes(*given)[edge.judge()]
    assert [one.tolist() for one in result.outputs] == [(np.arange(10.0) * 102).tolist(), (np.arange(10.0) * 100).tolist()]
    assert [len(one) for one in result.raw] == [10, 10]


def test_what_fails_on_a_node_is_said_of_the_interpreter_and_other_versions_of_it_are_refused(bundle, here, monkeypatch):
    real, calls = sharing.run_file, []

    def run(*given, **how):
        calls.append(how["interpreter"])
        if len(calls) == 2:
            raise xaic.EdgeError(f"{how['interpreter']} crashed on a node")
        return real(*given, **how)

    monkeypatch.setattr(sharing, "run_file", run)
    with pytest.raises(xaic.EdgeError, match="crashed on a node"):
        edge.verify(bundle / "small", bundle / "d.npz", cluster="auto", options=xaic.DataOptions(task="regression"))
    assert len(calls) == 3  # the others have their parts all the same
    with pytest.raises(xaic.MachineError, match=r"node .* has .*, not 0\.1\. Expected the same versions"):
        sharing.part_of({}, edge.judge(), "0.1", [], {})


def test_what_cannot_be_run_is_said_before_a_cluster_is_joined(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(sharing, "joined", None)
    (tmp_path / "model.tflite").write_bytes(TINY.read_bytes()[:-200])
    with pytest.raises(xaic.EdgeError, match="damaged"):
        xaic.verify(tmp_path, bundle / "d.npz", cluster="auto")
    with pytest.raises(xaic.PlanError, match="cluster is 'here'"):
        xaic.verify(bundle / "small", bundle / "d.npz", cluster="here")


class Lossy:
    """What `Cluster` uses of Ray, on which every call is lost at first."""

    class exceptions:
        class RayError(Exception):
            pass

        class TaskCancelledError(RayError):
            pass

        class RayTaskError(RayError):
            pass

    cloudpickle, lost, always = pickle, 0, False

    def __init__(self):
        self.seen = set()

    def put(self, thing):
        return thing

    def nodes(self):
        return [{"Alive": True, "Resources": {"CPU": 2, "memory": 1e10}}, {"Alive": False, "Resources": {"CPU": 8}}]

    def remote(self, **needs):
        assert needs["num_cpus"] == 1
        return lambda function: SimpleNamespace(remote=lambda *given: _Call(function, given))

    def get(self, call):
        again = call.given[0] in self.seen
        self.seen.add(call.given[0])
        if self.always or not again:
            self.lost += 1
            raise self.exceptions.RayError("The node died.")
        return call.function(*call.given)


@dataclass(eq=False)
class _Call:
    function: Any
    given: tuple


def test_parts_of_an_evaluation_whose_node_is_lost_are_done_again(bundle, monkeypatch):
    ray = Lossy()
    monkeypatch.setattr(
        sharing, "joined", lambda address, files, modules: contextlib.nullcontext(cluster.Cluster(ray, files, modules))
    )
    options = xaic.DataOptions(task="regression")
    given = (bundle / "small", bundle / "d.npz")
    shared = xaic.verify(*given, options=options, cluster="auto")
    assert ray.lost == 2  # each of two parts
    assert np.array_equal(shared.outputs, xaic.verify(*given, options=options).outputs)
    ray.always = True
    with pytest.raises(xaic.MachineError, match=r"a call was lost 4 times .*The node died.*\. Expected nodes with more memory"):
        xaic.verify(*given, options=options, cluster="auto")


def same(whole, added):
    assert added.samples == whole.samples == 256
    assert set(added.per_class) == {0, 1, 2}
    for one, other in [(whole, added), *((whole.per_class[n], added.per_class[n]) for n in range(3))]:
        for key, scores in one.weights.items():
            np.testing.assert_allclose(other.weights[key], scores, rtol=1e-5, atol=1e-5 * np.abs(scores).max())
        assert other.layers == pytest.approx(one.layers, rel=1e-5)


def test_a_model_in_memory_cannot_be_sent(place, tmp_path):
    model = keras.Sequential([keras.Input((12,)), layers.Dense(3)])
    with pytest.raises(xaic.PlanError, match="its path"):
        explain(model, place / "d.npz", tmp_path / "out", attribution=AttributionOptions(cluster="auto"))


@pytest.mark.parametrize("wrong", ["", "auto:", "10.0.0.1", "http://10.0.0.1:80/", 6379])
def test_what_is_no_address_is_refused(wrong):
    for kind in (xaic.SearchOptions, AttributionOptions):
        with pytest.raises(xaic.PlanError, match="cluster is"):
            kind(cluster=wrong)


def test_without_ray_it_is_asked_for(place, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(xaic.MachineError, match="needs Ray") as caught, cluster.joined("auto", {}):
        pass
    assert "keras-xaic[cluster]" in str(caught.value)


def test_the_environment_is_as_it_was_when_a_cluster_is_left(monkeypatch):
    within = []
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: True))
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(cluster, "Cluster", lambda *_: SimpleNamespace(close=lambda: within.append(dict(os.environ))))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    before = dict(os.environ)
    with cluster.joined("auto", {}):
        pass
    assert (within[0]["RAY_ENABLE_AUTO_CONNECT"], within[0]["RAY_USAGE_STATS_ENABLED"]) == ("0", "1")
    assert dict(os.environ) == before


def test_a_node_of_other_versions_says_so_and_what_fails_there_is_one_line(place, monkeypatch):
    nodes = Here({"model": place / "m.keras"})
    with pytest.raises(xaic.XaicError, match=r"AttributeError: .* has no attribute 'nothing'"):
        nodes.call("keras_xaic.cluster:nothing")
    versions = iter([{"numpy": "1"}, {"numpy": "2"}])
    monkeypatch.setattr(cluster, "_versions", lambda *_: next(versions))
    with pytest.raises(xaic.MachineError, match="has numpy 2, not 1"):
        nodes.call("keras_xaic.cluster:nothing")


def test_functions_of_a_script_travel_to_a_cluster():
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'keras-xaic[cluster]'")
    sent = cluster.Cluster(ray, {}).packed(xaic.Training(loss=lambda labels, outputs: 0.25))
    assert cluster.received(sent).loss(None, None) == 0.25


def test_what_is_too_large_does_not_come_back(tmp_path):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "file").write_bytes(bytes(20_000))
    cluster.unpack(cluster.pack(tmp_path / "bundle"), tmp_path / "there")
    assert (tmp_path / "there" / "bundle" / "file").read_bytes() == bytes(20_000)
    with pytest.raises(xaic.MachineError, match="to come back"):
        cluster.pack(tmp_path / "bundle", 10_000)


def children(parent, name):
    """Processes of a parent that work on a call."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent and name in (entry / "cmdline").read_text():
                found.append(int(entry.name))
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_nodes_give_the_values_of_one_machine_and_one_may_die(place, bundle, tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'keras-xaic[cluster]'")
    from ray.cluster_utils import Cluster

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        second = nodes.add_node(num_cpus=1)
        raylets = [node.all_processes["raylet"][0].process.pid for node in (nodes.head_node, second)]
        same(explained(place, tmp_path / "one"), explained(place, tmp_path / "two", cluster=nodes.address))

        ended = []

        def end_a_part():
            until = time.monotonic() + 100
            while not ended and time.monotonic() < until:
                ended.extend(children(raylets[1], "ray::_on_node"))
                time.sleep(0.02)
            os.kill(ended[0], signal.SIGKILL)

        ender = threading.Thread(target=end_a_part)
        ender.start()
        given, options = (bundle / "small", bundle / "d.npz"), xaic.DataOptions(task="regression")
        shared = xaic.verify(*given, options=options, cluster=nodes.address)
        ender.join()
        assert ended  # the process was at a part, which another one did again
        alone = xaic.verify(*given, options=options)
        assert shared.edge_metric == alone.edge_metric
        assert np.array_equal(shared.outputs, alone.outputs)

        at_work = []

        def kill():
            until = time.monotonic() + 300
            while not at_work and time.monotonic() < until:
                at_work.extend(children(raylets[1], "ray::_on_node"))
                time.sleep(0.2)
            nodes.remove_node(second, allow_graceful=False)

        killer = threading.Thread(target=kill)
        killer.start()
        found = searched(place, tmp_path / "cluster", 2, cluster=nodes.address, workers=2)
        killer.join()
        assert at_work  # the node that died was at a trial
        alone = {str(sorted(params.items())): values for params, values in searched(place, tmp_path / "alone", 2)}
        assert len(found) in (2, 3)
        compared = [(values, alone.get(str(sorted(params.items())))) for params, values in found[:2]]
        assert all(values == other for values, other in compared), compared
        trials = sorted((tmp_path / "cluster" / "trials").iterdir())
        assert [path.name for path in trials] == [str(number) for number in range(len(found))]  # the lost one ran again
        assert all((path / "model.tflite").is_file() for path in trials)
    finally:
        nodes.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_ray_of_its_own_ends_with_the_search(place, tmp_path, number):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'keras-xaic[cluster]'")
    given = [place / "m.keras", "--data", place / "d.npz", "--out", tmp_path / "out", "--trials", 99, "--cluster", "auto"]
    words = [sys.executable, "-m", "keras_xaic.cli", "search", *map(str, given)]
    (tmp_path / "tmp").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp"), "RAY_ADDRESS": ""}
    process = subprocess.Popen(
        words,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # also where tests run in the background of a shell
    )
    until = time.monotonic() + 200
    while not list((tmp_path / "out").glob("study.db")) and time.monotonic() < until:
        time.sleep(0.2)
    while not (places := places_of_rays(tmp_path / "tmp")) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.2)
    process.send_signal(number)
    said, _ = process.communicate(timeout=100)
    assert process.returncode in ((-number,) if number == signal.SIGKILL else (130,)), said
    assert "Traceback" not in said
    assert len(places) == 1
    until = time.monotonic() + 30
    while (left := at_work_in(*places)) and time.monotonic() < until:
        if number == signal.SIGKILL and all("Agent" in line for line in left):
            break  # Ray ends these itself, a minute later
        time.sleep(0.2)
    assert number == signal.SIGKILL or not left
    assert all("Agent" in line for line in left)
    assert number == signal.SIGKILL or not list((tmp_path / "tmp").iterdir())


def open_files():
    """Process of /proc -> what it has open."""
    found = {}
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found[entry] = [pathlib.Path(os.readlink(file)) for file in (entry / "fd").iterdir()]
    return found


def places_of_rays(temporary):
    """Directories that a Ray has its logs in which was started with this directory for temporary files."""
    found = set()
    for entry, files in open_files().items():
        with contextlib.suppress(OSError):
            if f"TMPDIR={temporary}".encode() in (entry / "environ").read_bytes():
                found.update(
                    pathlib.Path(*file.parts[:3]) for file in files if "session_" in str(file) and "/logs/" in str(file)
                )
    return found


def at_work_in(place):
    """Command lines of living processes that have a file of this directory open."""
    found = []
    for entry, files in open_files().items():
        with contextlib.suppress(OSError):
            if any(place in file.parents for file in files):
                found.append((entry / "cmdline").read_text().replace("\0", " ").strip())
    return found


# Every command of the page on several machines; in this file, so that no two Rays run at the same time.


@pytest.fixture
def address():
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'keras-xaic[cluster]'")
    from ray.cluster_utils import Cluster

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        nodes.add_node(num_cpus=1)
        yield nodes.address
    finally:
        nodes.shutdown()
        assert not ray.is_initialized()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_command_of_the_page_runs(server, address, tmp_path):
    _, url = server
    saved(tmp_path)
    lines = [line.replace("$SLURM_ARRAY_TASK_ID", "1") for line in shown(PAGE)]
    assert sum(URL in line for line in lines) == 2
    ran: set[str] = set()
    for number, line in enumerate(lines):
        words = words_of(line)
        kind = re.sub(r'"?front(-1)?/"?|\d+', "", line)  # the same command elsewhere, with other numbers
        if kind in ran:
            continue
        ran.add(kind)
        place = tmp_path / str(number)
        place.mkdir()
        shutil.copy(tmp_path / "m.keras", place / "model.keras")
        shutil.copy(tmp_path / "d.npz", place / "data.npz")
        made = next(iter(tmp_path.glob("*/front/trials/0")), None)
        if made is not None:
            shutil.copytree(made, place / "small")
        words = [url if word == URL else address if word == ADDRESS else word for word in words]
        words = [word.replace("model.h5", "model.keras") for word in words] + QUICK.get(words[0], [])
        words += ["--workers", "2"] if "--workers" in words else []
        done = subprocess.run(
            [sys.executable, "-m", "keras_xaic.cli", *words],
            cwd=place,
            env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": address},
            capture_output=True,
            text=True,
            check=False,
        )
        if "mirrored" in words and done.returncode == 5:
            assert "GPU" in done.stderr  # as the page says of a machine that has none
            continue
        assert done.returncode == 0, line + done.stdout + done.stderr
    assert len(ran) == 6


def test_options_of_ray_that_the_page_shows_exist():
    scripts = pytest.importorskip("ray.scripts.scripts", reason="Ray is not installed: pip install 'keras-xaic[cluster]'")
    script = "\n".join(IN_SCRIPTS.findall(PAGE.read_text(encoding="utf-8")))
    lines = re.findall(r"\bray (start [^\n&]*)", script)
    assert len(lines) == 2
    for line in lines:
        name, *words = shlex.split(line)
        scripts.cli.commands[name].make_context(name, words)
