"""Every command of the page on several machines runs: on a Ray of two nodes, with a database server of the test's own."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from tests.docs.test_commands import IN_SCRIPTS, ROOT, environment, shown, words_of
from tests.nets import saved

PAGE = ROOT / "docs" / "several-machines.md"
ADDRESS, URL = "10.0.0.1:6379", "postgresql://user@host/database"
QUICK = {"search": ["--trials", "2", "--epochs", "0", "--target", "mobile"]}
"""What makes a command short: of two options the last one counts."""


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
@pytest.mark.timeout(900)
def test_every_command_of_the_page_runs(server, address, tmp_path):
    pytest.importorskip("optuna")
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
            env={**environment(), "RAY_ADDRESS": address},
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
