"""Commands that make a model small; each calls one public function."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Optional

import typer

from keras_xaic.budget import Budget
from keras_xaic.cli.given import check_data, check_given
from keras_xaic.cli.groups import command
from keras_xaic.cli.options import READING, REPORT, DataOption, MethodOptions, Model, Out, Overwrite, SearchArguments, Seed
from keras_xaic.cli.terminal import Terminal
from keras_xaic.errors import PlanError, require_one
from keras_xaic.isolation import copy_worker
from keras_xaic.objectives import parse_conditions
from keras_xaic.ownership import Mark, check_directory
from keras_xaic.settings import SYSTEMS, DataOptions, Device, FileOptions, Training
from keras_xaic.units import format_bytes

LIMITS = ("flash", "download", "ram", "max_drop", "macs", "latency", "max_slowdown", "min_similarity")
RECIPE = tuple(field.name for field in dataclasses.fields(MethodOptions) if field.name != "plan")


@command(json=REPORT, only={Budget: LIMITS, FileOptions: ("io", "metadata")})
def compress(
    terminal: Terminal,
    budget: Budget,
    method: MethodOptions,
    training: Training,
    device: Device,
    options: DataOptions,
    model: pathlib.Path = Model,
    data: pathlib.Path = DataOption,
    out: pathlib.Path = Out,
    overwrite: bool = Overwrite,
) -> None:
    """Make MODEL fit the budget, write the bundle and verify it.

    Example: [bold]xaic compress resnet8.h5 --data cifar10.npz --flash 64kB --max-drop 1.5 --epochs 3 --out small/[/bold]
    """
    from keras_xaic.edge.interpreters import check_interpreters
    from keras_xaic.recipes import get_baselines, recipe_file

    check_interpreters(device.asked)
    chosen = method.chosen()
    get_baselines(device.baselines)
    files = [*method.files, *map(recipe_file, device.baselines)]
    check_given(model, data, out=out, kind="bundle", overwrite=overwrite, others=files)
    terminal.progress("load", 0, 1, "TensorFlow, model and data")
    from keras_xaic.pipeline import compress as run
    from keras_xaic.tflite.convert import CONVERTER

    copy_worker(CONVERTER)
    report = run(
        model,
        data,
        out=out,
        budget=budget,
        recipe=chosen,
        training=training,
        device=device,
        options=options,
        overwrite=overwrite,
        progress=terminal.progress,
    )
    terminal.show_report(report, out)


@command(only={MethodOptions: RECIPE, DataOptions: READING})
def plan(
    terminal: Terminal,
    budget: Budget,
    method: MethodOptions,
    options: DataOptions,
    model: pathlib.Path = Model,
    relevance: pathlib.Path = typer.Option(..., "--relevance", help="Directory or relevance.npz that `xaic explain` wrote."),
    out: pathlib.Path = typer.Option("plan.json", "--out", help="File to write."),
    data: Optional[pathlib.Path] = typer.Option(
        None,
        "--data",
        help="Measures on it what bit-widths do, and how good the planned model is before training.",
        show_default=False,
    ),
    seed: int = Seed,
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace a plan that is there.", rich_help_panel="Output"),
) -> None:
    """Say what would be done to MODEL under a budget, and its cost; nothing is trained.

    Example: [bold]xaic plan resnet8.h5 --relevance why/ --flash 48kB --out plan.json[/bold]
    """
    from keras_xaic.planning.plan import check_place
    from keras_xaic.relevance import Relevance

    chosen = method.chosen()
    check_place(out, overwrite, inputs=[model, relevance, data, *method.files])
    Relevance.load(relevance)
    check_given(model, data)
    from keras_xaic.pipeline import preview

    found = preview(
        model,
        relevance,
        budget=budget,
        recipe=chosen,
        data=data,
        options=options,
        seed=seed,
        out=out,
        overwrite=overwrite,
        progress=terminal.progress,
    )
    terminal.show_preview(found, out)


@command(only={Device: ("target",), DataOptions: (*READING, "metric")})
def export(
    terminal: Terminal,
    device: Device,
    file: FileOptions,
    options: DataOptions,
    model: pathlib.Path = typer.Argument(
        ..., help="A Keras model or a bundle directory.", metavar="MODEL|DIR", show_default=False
    ),
    data: pathlib.Path = DataOption,
    out: pathlib.Path = Out,
    precision: Optional[str] = typer.Option(
        None,
        "--precision",
        help="int8 or int16; or, without micro/, dynamic-range, weight-only, float16 or float32; default: what the "
        "bundle's plan says, else int8.",
        show_default=False,
    ),
    float_layers: list[str] = typer.Option([], "--float-layers", help="PATTERN: layers that stay float32; may be repeated."),
    overwrite: bool = Overwrite,
) -> None:
    """Write the bundle from a model that is compressed already; no training.

    Example: [bold]xaic export small/ --data cifar10.npz --out again/[/bold]
    """
    check_given(model, data, out=out, kind="bundle", overwrite=overwrite, bundles=True)
    from keras_xaic.pipeline import export as run
    from keras_xaic.tflite.convert import CONVERTER

    copy_worker(CONVERTER)
    bundle = run(
        model,
        out,
        calibration=data,
        target=device.target,
        precision=precision,  # type: ignore[arg-type]
        float_layers=[name for one in float_layers for name in one.split(",") if name],
        file=file,
        options=options,
        overwrite=overwrite,
    )
    from keras_xaic.tflite import metadata_bytes

    content = bundle.model.read_bytes()
    of_it = f", {format_bytes(metadata_bytes(content))} of it metadata" if file.metadata else ""
    terminal.last(f"{bundle.path}: model.tflite {format_bytes(len(content))}{of_it}")


@command(
    only={
        Budget: LIMITS,
        MethodOptions: RECIPE,
        Training: ("epochs", "seed", "train_frozen"),
        Device: ("target",),
        FileOptions: ("io", "metadata"),
    }
)
def search(
    terminal: Terminal,
    effort: SearchArguments,
    budget: Budget,
    method: MethodOptions,
    training: Training,
    device: Device,
    options: DataOptions,
    model: pathlib.Path = typer.Argument(
        ..., help="A Keras model; with --pick also the directory of a search.", metavar="MODEL|DIR", show_default=False
    ),
    data: pathlib.Path = DataOption,
    out: pathlib.Path = Out,
) -> None:
    """Find the front of bytes, metric, speed and RAM; the same command again continues.

    Every trial is an `xaic compress`; front.html shows them, each with its command.

    Example: [bold]xaic search resnet8.h5 --data cifar10.npz --out front/ --trials 30[/bold]
    """
    is_search = effort.pick is not None and model.is_dir() and Mark.read(model) is not None
    if effort.pick is not None:
        parse_conditions(effort.pick)
    if is_search:
        check_directory(out, "bundle", inputs=[model, data])
        check_data(data)
    else:
        chosen = method.chosen()
        check_given(model, data, out=out, kind="search", others=method.files)
    terminal.progress("load", 0, 1, "TensorFlow, model and data")
    from keras_xaic.searching import pick, read_search
    from keras_xaic.searching import search as run

    if is_search:
        terminal.show_verification(pick(model, data, out, str(effort.pick), options=options, progress=terminal.progress))
        return
    run(
        model,
        data,
        out,
        effort,
        budget=budget,
        recipe=chosen,  # type: ignore[arg-type]
        training=training,
        device=device,
        options=options,
        progress=terminal.progress,
    )
    found = read_search(out)
    if effort.pick is None:
        terminal.show_search(found, out)
        return
    terminal.show_search(found, out, last=False)
    terminal.show_verification(
        pick(out, data, out / "picked", effort.pick, options=options, overwrite=True, progress=terminal.progress)
    )


@command(json=REPORT, only={Device: ("target",), DataOptions: ("scale", "offset", "allow_unsafe")})
def slim(
    terminal: Terminal,
    device: Device,
    options: DataOptions,
    file: pathlib.Path = typer.Argument(
        ..., help="Any .tflite file; or a SavedModel directory.", metavar="FILE.tflite", show_default=False
    ),
    out: pathlib.Path = Out,
    data: Optional[pathlib.Path] = typer.Option(
        None, "--data", help="Inputs to compare with, beside random inputs and edge values.", show_default=False
    ),
    bare: bool = typer.Option(
        False, "--bare", help="Leave out signatures, names of inputs and outputs, and metadata, too.", rich_help_panel="Output"
    ),
    overwrite: bool = Overwrite,
) -> None:
    """Make any .tflite file smaller, without changing a bit of what it computes.

    Example: [bold]xaic slim model.tflite --out slim/[/bold]
    """
    from keras_xaic.cli.given import check_given_file

    check_given_file(file, data, out, overwrite)
    terminal.progress("load", 0, 1, "TensorFlow")
    from keras_xaic.pipeline import slim as run

    report = run(
        file,
        out,
        data=data,
        target=device.target,
        bare=bare,
        options=options,
        overwrite=overwrite,
        progress=terminal.progress,
    )
    terminal.show_slim(report, out)


@command()
def project(
    terminal: Terminal,
    bundle: pathlib.Path = typer.Argument(..., help="A bundle with a micro/.", metavar="DIR", show_default=False),
    system: str = typer.Option(
        ..., "--system", help=f"Build system: {', '.join(SYSTEMS)}.", show_default=False, autocompletion=lambda: list(SYSTEMS)
    ),
    out: pathlib.Path = Out,
    overwrite: bool = Overwrite,
) -> None:
    """Write a firmware project around the model of a bundle, with a self-test.

    Example: [bold]xaic project small/ --system zephyr --out firmware/[/bold]
    """
    require_one("--system", system, SYSTEMS, PlanError)
    check_directory(out, "project", overwrite=overwrite, inputs=[bundle])
    terminal.progress("load", 0, 1, "TensorFlow")
    from keras_xaic.pipeline.board_projects import write_project

    terminal.last(
        f"{write_project(bundle, system, out, overwrite=overwrite)}: a project for {system}; its README.md says how to build it"
    )


MOST_DOWNLOAD = 500_000_000
"""Bytes of a download container."""


@command()
def unpack(
    terminal: Terminal,
    file: pathlib.Path = typer.Argument(..., help="A download container, model.xaic.", metavar="FILE.xaic", show_default=False),
    out: pathlib.Path = typer.Option(..., "--out", help="File to write.", show_default=False),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace a .tflite that is there."),
) -> None:
    """Turn a download container back into the .tflite it was made from, byte for byte.

    Example: [bold]xaic unpack model.xaic --out model.tflite[/bold]
    """
    from keras_xaic.download import unpack_download
    from keras_xaic.files import write_atomic
    from keras_xaic.json_files import read_bytes
    from keras_xaic.ownership import check_file

    container = read_bytes(file, MOST_DOWNLOAD, "a download container, e.g. model.xaic of a bundle")
    size, ours = -1, False
    if out.is_file():
        with out.open("rb") as there:
            size, ours = out.stat().st_size, there.read(8)[4:] == b"TFL3"
    check_file(out, "a .tflite file", ours, True, inputs=[file])
    content = unpack_download(container)
    if size != len(content) or out.read_bytes() != content:  # else the same command wrote it
        check_file(out, "a .tflite file", ours, overwrite, inputs=[file])
        write_atomic(out, content)
    terminal.last(f"{out}: {format_bytes(len(content))}")
