"""Commands that make a model small; each calls one public function."""

from __future__ import annotations

import pathlib
from typing import Optional

import typer

from keras_xaic.cli.options import (
    Activations,
    Align,
    Bits,
    Calibration,
    DataOption,
    Download,
    Flash,
    FloatLayers,
    Json,
    Macs,
    MaxDrop,
    MetricName,
    Model,
    Offset,
    Out,
    Overwrite,
    Pin,
    Protect,
    Quiet,
    Ram,
    RecipeOption,
    Rule,
    Scale,
    Seed,
    Target,
    Task,
    Unsafe,
    Zeros,
    recipe_entries,
)
from keras_xaic.cli.terminal import Terminal, failing
from keras_xaic.units import format_bytes


def compress(
    model: pathlib.Path = Model,
    data: pathlib.Path = DataOption,
    out: pathlib.Path = Out,
    recipe: str = RecipeOption,
    plan: Optional[pathlib.Path] = typer.Option(
        None, "--plan", help="A plan.json of `xaic plan`, perhaps edited, to carry out as it is.", show_default=False
    ),
    flash: Optional[str] = Flash,
    download: Optional[str] = Download,
    ram: Optional[str] = Ram,
    max_drop: float = MaxDrop,
    macs: Optional[str] = Macs,
    rule: Optional[str] = Rule,
    bits: Optional[str] = Bits,
    pin: list[str] = Pin,
    float_layers: list[str] = FloatLayers,
    zeros: list[str] = Zeros,
    align: Optional[int] = Align,
    protect: list[str] = Protect,
    activations: Optional[str] = Activations,
    epochs: Optional[int] = typer.Option(
        None,
        "--epochs",
        min=0,
        help="Passes over the training data, all stages together; default: 10, or what fits --minutes.",
        show_default=False,
    ),
    minutes: Optional[float] = typer.Option(None, "--minutes", help="Time that training may take.", show_default=False),
    seed: int = Seed,
    target: str = Target,
    baselines: str = typer.Option(
        "int8,magnitude", "--baselines", help="Comparisons to run, separated by commas; '' for none."
    ),
    calibration: int = Calibration,
    scale: float = Scale,
    offset: float = Offset,
    task: Optional[str] = Task,
    metric: Optional[str] = MetricName,
    overwrite: bool = Overwrite,
    allow_unsafe: bool = Unsafe,
    strict: bool = typer.Option(False, "--strict", help="Refuse layers that relevance has no sound rule for."),
    quiet: bool = Quiet,
    json: bool = Json,
) -> None:
    """Make MODEL fit the budget, write the bundle and verify it.

    Example: [bold]xaic compress resnet8.h5 --data cifar10.npz --flash 64kB --max-drop 1.5 --epochs 3 --out small/[/bold]
    """
    with Terminal(quiet=quiet, as_json=json) as terminal, failing(terminal):
        entries = recipe_entries(rule, bits, pin, float_layers, zeros, align, protect)
        terminal.progress("load", 0, 1, "TensorFlow, model and data")
        from keras_xaic.pipeline import compress as run
        from keras_xaic.planning import Budget

        report = run(
            model,
            data,
            recipe=recipe,
            budget=Budget(flash, download, ram, max_drop, macs),
            entries=entries,
            plan=plan,
            activations=activations,  # type: ignore[arg-type]
            out=out,
            epochs=epochs,
            minutes=minutes,
            seed=seed,
            target=target,
            baselines=[name for name in baselines.split(",") if name],
            calibration=calibration,
            scale=scale,
            offset=offset,
            task=task,
            metric=metric,
            overwrite=overwrite,
            allow_unsafe=allow_unsafe,
            strict=strict,
            progress=terminal.progress,
        )
        terminal.show_report(report, out)


def plan(
    model: pathlib.Path = Model,
    relevance: pathlib.Path = typer.Option(..., "--relevance", help="Directory or relevance.npz that `xaic explain` wrote."),
    out: pathlib.Path = typer.Option("plan.json", "--out", help="File to write."),
    data: Optional[pathlib.Path] = typer.Option(
        None,
        "--data",
        help="Measures on it what bit-widths do, and how good the planned model is before training.",
        show_default=False,
    ),
    flash: Optional[str] = Flash,
    download: Optional[str] = Download,
    ram: Optional[str] = Ram,
    mean_bits: Optional[float] = typer.Option(None, "--mean-bits", help="Limit for the mean bit-width.", show_default=False),
    max_drop: float = MaxDrop,
    macs: Optional[str] = Macs,
    rule: Optional[str] = Rule,
    bits: Optional[str] = Bits,
    pin: list[str] = Pin,
    float_layers: list[str] = FloatLayers,
    zeros: list[str] = Zeros,
    align: Optional[int] = Align,
    protect: list[str] = Protect,
    activations: Optional[str] = Activations,
    recipe: str = RecipeOption,
    seed: int = Seed,
    calibration: int = Calibration,
    scale: float = Scale,
    offset: float = Offset,
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace a plan that is there.", rich_help_panel="Output"),
    task: Optional[str] = Task,
    allow_unsafe: bool = Unsafe,
    quiet: bool = Quiet,
) -> None:
    """Say what would be done to MODEL under a budget, and its cost; nothing is trained.

    Example: [bold]xaic plan resnet8.h5 --relevance why/ --flash 48kB --out plan.json[/bold]
    """
    with Terminal(quiet=quiet) as terminal, failing(terminal):
        entries = recipe_entries(rule, bits, pin, float_layers, zeros, align, protect)
        entries.update({} if activations is None else {"activations": activations})
        from keras_xaic.pipeline import preview
        from keras_xaic.planning import Budget

        found = preview(
            model,
            relevance,
            out,
            data=data,
            recipe=recipe,
            budget=Budget(flash, download, ram, max_drop, macs, mean_bits),
            entries=entries,
            calibration=calibration,
            seed=seed,
            scale=scale,
            offset=offset,
            overwrite=overwrite,
            task=task,
            allow_unsafe=allow_unsafe,
            progress=terminal.progress,
        )
        terminal.show_preview(found, out)


def export(
    model: pathlib.Path = typer.Argument(
        ..., help="A Keras model or a bundle directory.", metavar="MODEL|DIR", show_default=False
    ),
    data: pathlib.Path = DataOption,
    out: pathlib.Path = Out,
    target: str = Target,
    precision: Optional[str] = typer.Option(
        None,
        "--precision",
        help="int8, int16, dynamic-range, weight-only, float16 or float32; default: what the bundle's plan says, else int8.",
        show_default=False,
    ),
    float_layers: str = typer.Option("", "--float-layers", help="Layers that stay float32, separated by commas."),
    lookup: bool = typer.Option(True, help="Whether 2-bit weights may lie four to a byte; GPUs and NPUs want them plain."),
    calibration: int = Calibration,
    seed: int = Seed,
    scale: float = Scale,
    offset: float = Offset,
    task: Optional[str] = Task,
    metric: Optional[str] = MetricName,
    overwrite: bool = Overwrite,
    allow_unsafe: bool = Unsafe,
    quiet: bool = Quiet,
) -> None:
    """Write the bundle from a model that is compressed already; no training.

    Example: [bold]xaic export small/ --data cifar10.npz --out again/[/bold]
    """
    with Terminal(quiet=quiet) as terminal, failing(terminal):
        from keras_xaic.pipeline import export as run

        bundle = run(
            model,
            data,
            out,
            target=target,
            precision=precision,  # type: ignore[arg-type]
            float_layers=[name for name in float_layers.split(",") if name],
            lookup=lookup,
            calibration=calibration,
            seed=seed,
            scale=scale,
            offset=offset,
            task=task,
            metric=metric,
            overwrite=overwrite,
            allow_unsafe=allow_unsafe,
            warn=terminal.warn,
        )
        terminal.last(f"{bundle.path}: model.tflite {format_bytes(bundle.model.stat().st_size)}")


def search(
    model: pathlib.Path = Model,
    data: pathlib.Path = DataOption,
    out: pathlib.Path = Out,
    trials: int = typer.Option(20, "--trials", min=1, help="Number of trials, finished ones included."),
    storage: Optional[str] = typer.Option(None, "--storage", help="Optuna storage URL, shared by machines; default: a file."),
    workers: int = typer.Option(1, "--workers", min=1, help="Processes on this machine."),
    epochs: int = typer.Option(2, "--epochs", min=0, help="Passes over the training data in each trial."),
    seed: int = Seed,
    calibration: int = Calibration,
    scale: float = Scale,
    offset: float = Offset,
    task: Optional[str] = Task,
    metric: Optional[str] = MetricName,
    allow_unsafe: bool = Unsafe,
    quiet: bool = Quiet,
) -> None:
    """Find the Pareto front of size against accuracy; the same command again continues.

    Example: [bold]xaic search resnet8.h5 --data cifar10.npz --out front/ --trials 30[/bold]
    """
    with Terminal(quiet=quiet) as terminal, failing(terminal):
        terminal.progress("load", 0, 1, "TensorFlow, model and data")
        from keras_xaic.search import search as run

        found = run(
            model,
            data,
            out,
            trials=trials,
            storage=storage,
            workers=workers,
            epochs=epochs,
            seed=seed,
            calibration=calibration,
            scale=scale,
            offset=offset,
            task=task,
            metric=metric,
            allow_unsafe=allow_unsafe,
            progress=terminal.progress,
        )
        terminal.show_search(found, out)


MOST_DOWNLOAD = 500_000_000
"""Bytes of a download container."""


def unpack(
    file: pathlib.Path = typer.Argument(..., help="A download container, model.xaic.", metavar="FILE.xaic", show_default=False),
    out: pathlib.Path = typer.Option(..., "--out", help="File to write.", show_default=False),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace a .tflite that is there."),
) -> None:
    """Turn a download container back into the .tflite it was made from, byte for byte.

    Example: [bold]xaic unpack model.xaic --out model.tflite[/bold]
    """
    with Terminal() as terminal, failing(terminal):
        from keras_xaic.download import unpack_download
        from keras_xaic.files import write_atomic
        from keras_xaic.json_files import read_bytes
        from keras_xaic.ownership import check_file

        container = read_bytes(file, MOST_DOWNLOAD, "a download container, e.g. model.xaic of a bundle")
        there = out.read_bytes() if out.is_file() else b""
        check_file(out, "a .tflite file", there[4:8] == b"TFL3", overwrite or there != b"", inputs=[file])
        content = unpack_download(container)
        if content != there:  # else the same command wrote it
            check_file(out, "a .tflite file", there[4:8] == b"TFL3", overwrite, inputs=[file])
            write_atomic(out, content)
        terminal.last(f"{out}: {format_bytes(len(content))}")
