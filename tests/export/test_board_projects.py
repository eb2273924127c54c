"""Projects for boards: manifests as their build systems read them, and sources that compile and compute right.

The interpreter is a stand-in with TensorFlow Lite Micro's names: one int8 FULLY_CONNECTED without bias, as in tiny.tflite.
"""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess

import numpy as np
import pytest
from typer.testing import CliRunner

from keras_xaic.bundle import Bundle
from keras_xaic.cli.app import app
from keras_xaic.device_files import device_files
from keras_xaic.edge import available_interpreters
from keras_xaic.edge.doctor import KERNEL, TINY
from keras_xaic.errors import DataError, EdgeError, ExportError, PlanError, XaicWarning
from keras_xaic.pipeline import board_projects
from keras_xaic.pipeline.board_projects import SOURCES, write_project
from keras_xaic.tflite.flatbuffer import load, pack, schema
from keras_xaic.tflite.micro_kit import write_micro

STAND_IN = pathlib.Path(__file__).parent / "stand_in"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle") / "small"
    (folder / "check").mkdir(parents=True)
    write_micro(folder / "micro", TINY.read_bytes(), arena_bytes=1500)
    x = np.random.default_rng(0).uniform(-1, 1, (6, 4)).astype(np.float32)
    np.savez(folder / "check" / "inputs.npz", x0=x)
    np.savez(folder / "check" / "expected.npz", y0=(x @ KERNEL).astype(np.float32))
    return folder


@pytest.fixture(scope="module")
def made(bundle):
    return {system: write_project(bundle, system, bundle.parent / system) for system in SOURCES}


def compiled(project, *files, output=None):
    options = ["-o", output] if output else ["-fsyntax-only"]
    command = ["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{STAND_IN}", f"-I{project}", *options, *files]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True)


needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")


@needs_compiler
def test_the_self_test_passes_and_sees_what_is_wrong(made, tmp_path):
    project = shutil.copytree(made["cmake"], tmp_path / "firmware")
    sources = sorted(project.glob("*.cc"))
    assert len(sources) == 4
    done = compiled(project, *sources, output=tmp_path / "run")
    assert done.returncode == 0, done.stderr
    run = subprocess.run([tmp_path / "run"], capture_output=True, text=True)
    assert run.stdout.splitlines() == [
        *(f"sample {i}: as expected" for i in range(4)),
        "arena: 1234 of 3936 bytes are used",
        "xaic self-test: PASS",
    ]
    assert run.returncode == 0
    samples = project / "xaic_samples.h"
    samples.write_text(re.sub(r"(out_2_0\[\] = \{\n\s+)[^,]+", r"\g<1>9.5f", samples.read_text()))
    compiled(project, *sources, output=tmp_path / "run")
    run = subprocess.run([tmp_path / "run"], capture_output=True, text=True)
    assert run.returncode == 1
    assert "sample 2: DIFFERENT" in run.stdout
    assert run.stdout.endswith("xaic self-test: FAIL\n")


@needs_compiler
def test_the_sources_of_all_systems_are_the_same_and_their_own_compile(made):
    def shared(project, system):
        folder, ending = SOURCES[system]
        found = {path.name.replace(ending, ".cc"): path.read_text() for path in (project / folder).glob("*_*.*")}
        return {name: text for name, text in found.items() if name.startswith(("xaic_", "model_data"))}

    assert len(shared(made["cmake"], "cmake")) == 7
    for system, project in made.items():
        assert shared(project, system) == shared(made["cmake"], "cmake"), system
    for main in (made["esp-idf"] / "main" / "main.cc", made["zephyr"] / "src" / "main.cc"):
        done = compiled(main.parent, main)
        assert done.returncode == 0, done.stderr


def properties(path):
    return dict(line.split("=", 1) for line in path.read_text().splitlines() if line)


def test_manifests_have_what_their_build_systems_ask_for(made):
    library = properties(made["arduino"] / "library.properties")
    assert {"name", "version", "author", "maintainer", "sentence", "paragraph", "category", "url", "architectures"} <= set(
        library
    )
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]{0,15}", library["name"])  # what arduino-lint asks for at its strictest
    assert not re.search("arduino|library", library["name"], re.I)
    assert not re.search("arduino", library["maintainer"], re.I)
    assert library["url"].startswith("https://")
    assert re.fullmatch(r"\d+\.\d+\.\d+", library["version"])
    assert library["category"] == "Data Processing"
    for header in library["includes"].split(","):
        assert (made["arduino"] / "src" / header).is_file()
    assert (made["arduino"] / "examples" / "SelfTest" / "SelfTest.ino").is_file()  # a sketch is called as its directory

    cmake = {system: (made[system] / "CMakeLists.txt").read_text() for system in ("cmake", "esp-idf", "zephyr")}
    assert "include($ENV{IDF_PATH}/tools/cmake/project.cmake)\nproject(" in cmake["esp-idf"]
    assert (
        cmake["zephyr"].index("find_package(Zephyr REQUIRED")
        < cmake["zephyr"].index("project(")
        < cmake["zephyr"].index("target_")
    )
    for place in (
        made["cmake"] / "CMakeLists.txt",
        made["esp-idf"] / "main" / "CMakeLists.txt",
        made["zephyr"] / "CMakeLists.txt",
    ):
        named = re.findall(r"[\w/]+\.cc\b", re.sub(r"#.*", "", place.read_text()))
        assert len(set(named)) == 4
        assert [name for name in named if not (place.parent / name).is_file()] == []
    kconfig = (made["zephyr"] / "prj.conf").read_text()
    assert all(re.fullmatch(r"#.*|CONFIG_[A-Z0-9_]+=(y|n|\d+)", line) for line in kconfig.splitlines())
    assert "CONFIG_TENSORFLOW_LITE_MICRO=y" in kconfig

    yaml = pytest.importorskip("yaml")
    component = yaml.safe_load((made["esp-idf"] / "main" / "idf_component.yml").read_text())
    assert set(component["dependencies"]) == {"idf", "espressif/esp-tflite-micro"}
    west = yaml.safe_load((made["zephyr"] / "west.yml").read_text())["manifest"]
    assert set(west) <= {"defaults", "remotes", "projects", "group-filter", "self", "version"}
    assert {one["remote"] for one in west["projects"]} <= {one["name"] for one in west["remotes"]}
    assert west["group-filter"] == ["+optional"]


@pytest.mark.slow
def test_the_component_manager_of_esp_idf_takes_the_manifest(made):
    manager = pytest.importorskip("idf_component_tools.manager", reason="pip install idf-component-manager")
    manifest = manager.ManifestManager(str(made["esp-idf"] / "main"), "main").validate().load()
    assert {str(one.name) for one in manifest.requirements} == {"idf", "espressif/esp-tflite-micro"}


@pytest.mark.slow
def test_west_takes_the_manifest(made):
    west = pytest.importorskip("west.manifest", reason="pip install west")
    zephyrs = """
manifest:
  group-filter: [-optional]
  projects:
    - {name: tflite-micro, url: "https://example.org/tflite-micro", groups: [optional]}
"""
    read = west.Manifest.from_data((made["zephyr"] / "west.yml").read_text(), importer=lambda project, path: zephyrs)
    (zephyr,) = read.get_projects(["zephyr"])
    assert zephyr.url == "https://github.com/zephyrproject-rtos/zephyr"
    (wanted,) = read.get_projects(["tflite-micro"])
    assert read.is_active(wanted)  # although Zephyr's own manifest turns its optional modules off


# Commands of ESP-IDF and of Zephyr as their documentation has them, around the stand-in of the interpreter.
_PARTS = {
    "esp-idf": (
        "tools/cmake/project.cmake",
        """
function(idf_component_register)
  cmake_parse_arguments(IT "" "" "SRCS;INCLUDE_DIRS;REQUIRES;PRIV_REQUIRES" ${ARGN})
  if(IT_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "unknown: ${IT_UNPARSED_ARGUMENTS}")
  endif()
  add_library(component STATIC ${IT_SRCS})
  target_include_directories(component PUBLIC ${IT_INCLUDE_DIRS} $ENV{STAND_IN})
endfunction()
macro(project name)
  _project(${name} LANGUAGES C CXX)
  set(CMAKE_CXX_STANDARD 17)
  add_subdirectory(main)
endmacro()
""",
    ),
    "zephyr": (
        "ZephyrConfig.cmake",
        """
enable_language(C CXX)
set(CMAKE_CXX_STANDARD 17)
add_library(app STATIC)
target_include_directories(app PUBLIC $ENV{STAND_IN})
add_library(compiler-cpp INTERFACE)
set_target_properties(compiler-cpp PROPERTIES no_threadsafe_statics -fno-threadsafe-statics)
function(zephyr_compile_options)
  target_compile_options(app PRIVATE ${ARGN})
endfunction()
""",
    ),
}


@needs_compiler
@pytest.mark.skipif(shutil.which("cmake") is None, reason="no cmake")
@pytest.mark.slow
@pytest.mark.parametrize("system", ["cmake", "esp-idf", "zephyr"])
def test_cmake_configures_and_builds_it(made, tmp_path, system):
    tree = shutil.copytree(STAND_IN, tmp_path / "tree")
    (tree / "tensorflow" / "lite" / "micro" / "filler.cc").write_text("int filler() { return 0; }\n")
    name, text = _PARTS.get(system, ("none.cmake", ""))
    (tmp_path / "parts" / name).parent.mkdir(parents=True)
    (tmp_path / "parts" / name).write_text(text)
    places = {"IDF_PATH": str(tmp_path / "parts"), "ZEPHYR_BASE": str(tmp_path / "parts"), "STAND_IN": str(tree)}
    given = [f"-DTFLM_TREE={tree}"] if system == "cmake" else []
    for command in (["-S", made[system], "-B", tmp_path / "build", *given], ["--build", tmp_path / "build"]):
        done = subprocess.run(
            ["cmake", *map(str, command)], capture_output=True, text=True, check=False, env={**os.environ, **places}
        )
        assert done.returncode == 0, done.stdout + done.stderr
    if system == "cmake":
        run = subprocess.run([tmp_path / "build" / "xaic_model"], capture_output=True, text=True, check=False)
        assert run.stdout.endswith("xaic self-test: PASS\n")


@needs_compiler
def test_the_self_test_knows_infinity_and_not_a_number(bundle, tmp_path, monkeypatch):
    """Outputs of a logarithm, say."""
    folder = shutil.copytree(bundle, tmp_path / "small")
    outputs = np.array([[np.inf, -np.inf, np.nan]] * 4, np.float32)
    monkeypatch.setattr(board_projects.edge, "available_interpreters", lambda: ())
    np.savez(folder / "check" / "expected.npz", y0=outputs)
    project = write_project(folder, "cmake", tmp_path / "project")
    sources = sorted(project.glob("*.cc"))
    done = compiled(project, *sources, output=tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert subprocess.run([tmp_path / "run"], capture_output=True, text=True).stdout.count("DIFFERENT") == 4
    check = "int main() { return IsExpected(INFINITY, INFINITY, 1) && IsExpected(NAN, NAN, 1) && IsExpected(2, 1, 1) &&"
    check += " !IsExpected(1, INFINITY, 1) && !IsExpected(NAN, 1, 1) && !IsExpected(INFINITY, -INFINITY, 1) ? 0 : 1; }"
    test = project / "xaic_self_test.cc"
    test.write_text(f"{test.read_text()}\n{check}\n")
    done = compiled(project, *(one for one in sources if one.name != "main.cc"), output=tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert subprocess.run([tmp_path / "run"]).returncode == 0


def test_small_outputs_have_a_small_tolerance():
    """Of outputs around 0.0001 a thousandth would let everything pass."""
    floating = schema.TensorT()
    for largest, allowed in ((1e-4, 1e-6), (0.5, 5e-4), (300.0, 0.3), (0.0, 1e-6), (np.inf, 1e-6)):
        expected = np.array([[0.0, -largest]], np.float32)
        assert board_projects._tolerance(floating, expected) == pytest.approx(allowed, rel=1e-3)


def test_a_type_that_the_sources_do_not_know_is_refused(bundle, tmp_path):
    folder = shutil.copytree(bundle, tmp_path / "small")
    model = load(TINY.read_bytes())
    graph = model.subgraphs[0]
    graph.tensors[graph.outputs[0]].type = schema.TensorType.BOOL
    (folder / "micro" / "model.tflite").write_bytes(pack(model))
    with pytest.raises(DataError, match=r"output 0 of .* is of the type bool. Expected float32, int32, uint8, int16, int8"):
        write_project(folder, "arduino", tmp_path / "project")
    assert not (tmp_path / "project").exists()


def test_a_bundle_that_is_marked_is_no_silent_project(bundle, tmp_path):
    folder = shutil.copytree(bundle, tmp_path / "small")
    Bundle(folder).mark("tflm disagrees")
    with pytest.warns(XaicWarning, match=r"UNVERIFIED\.txt: Do not use this bundle as it is\. tflm disagrees"):
        write_project(folder, "cmake", tmp_path / "project")


@pytest.mark.skipif("tflm" not in available_interpreters(), reason="tflite-micro is not installed")
def test_a_model_that_computes_something_else_passes_no_self_test_of_its_own(bundle, tmp_path):
    folder = shutil.copytree(bundle, tmp_path / "small")
    expected, x = folder / "check" / "expected.npz", np.load(folder / "check" / "inputs.npz")["x0"]
    np.savez(expected, y0=x @ KERNEL, keras0=x @ KERNEL)
    write_project(folder, "cmake", tmp_path / "project")
    np.savez(expected, y0=x @ KERNEL, keras0=-x @ KERNEL)
    with pytest.raises(EdgeError, match=r"tflm disagrees with the Keras model on .*micro/model\.tflite"):
        write_project(folder, "cmake", tmp_path / "another")
    assert not (tmp_path / "another").exists()


def test_only_projects_of_ours_are_replaced(bundle, tmp_path):
    out = write_project(bundle, "cmake", tmp_path / "firmware")
    with pytest.raises(ExportError, match="is not empty"):
        write_project(bundle, "cmake", out)
    write_project(bundle, "arduino", out, overwrite=True)
    assert not (out / "CMakeLists.txt").exists()
    (out / "mine.c").write_text("mine")
    with pytest.raises(ExportError, match=r"mine\.c, which xaic did not write"):
        write_project(bundle, "cmake", out, overwrite=True)
    (out / "mine.c").unlink()
    edited = next(out.rglob("xaic_predict.h"))
    edited.write_text(edited.read_text() + "#define MINE 1\n")
    with pytest.raises(ExportError, match=r"xaic_predict\.h, which was changed since xaic wrote it\. .*move it away"):
        write_project(bundle, "cmake", out, overwrite=True)
    assert "MINE" in edited.read_text()
    edited.rename(tmp_path / "mine.h")
    write_project(bundle, "cmake", out, overwrite=True)


def test_what_cannot_be_a_project_is_one_line(bundle, tmp_path):
    with pytest.raises(PlanError, match="'zephyr'"):
        write_project(bundle, "zefyr", tmp_path / "out")
    with pytest.raises(DataError, match=r"holds no micro/model\.tflite"):
        write_project(tmp_path, "zephyr", tmp_path.parent / "out")
    shutil.copytree(bundle / "micro", tmp_path / "bare" / "micro")
    with pytest.raises(DataError, match="no samples"):
        write_project(tmp_path / "bare", "zephyr", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("micro/model_data.h", None, r"model_data\.h does not exist"),
        ("micro/model_data.h", b"\xff\xfe", r"model_data\.h is not UTF-8"),
        ("micro/README.md", b"\xff\xfe", r"README\.md is not UTF-8"),
        ("check/inputs.npz", {"x_train": np.zeros(3)}, r"inputs\.npz has no samples x0"),
        ("check/inputs.npz", {"x0": np.float32(1)}, r"inputs\.npz has no samples x0"),
    ],
)
def test_a_bundle_with_a_damaged_part_is_one_line(bundle, tmp_path, name, content, said):
    damaged = shutil.copytree(bundle, tmp_path / "damaged")
    if isinstance(content, dict):
        np.savez(damaged / name, **content)
    elif content is None:
        (damaged / name).unlink()
    else:
        (damaged / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        write_project(damaged, "cmake", tmp_path / "out")


def test_the_command_writes_it(bundle, tmp_path):
    out = tmp_path / "firmware"
    result = CliRunner().invoke(app, ["project", str(bundle), "--system", "esp-idf", "--out", str(out)])
    assert result.exit_code == 0, result.output
    files = [file for file in out.rglob("*") if file.is_file() and file.name != ".xaic"]
    assert len(files) == 12
    wrong = CliRunner().invoke(app, ["project", str(bundle), "--system", "esp", "--out", str(tmp_path / "other")])
    assert wrong.exit_code == 2
    assert "'esp-idf'" in wrong.output


@needs_compiler
def test_the_example_of_the_readme_compiles(made, tmp_path):
    for project in made.values():
        (code,) = re.findall(r"^```cpp\n(.*?)^```", (project / "README.md").read_text(), re.M | re.S)
        include, _, body = code.partition("\n")
        (tmp_path / "example.cc").write_text(f"{include}\nint main() {{\n{body}\nreturn code;\n}}\n")
        done = compiled(made["cmake"], tmp_path / "example.cc")
        assert done.returncode == 0, done.stderr


@needs_compiler
def test_a_program_may_use_the_decoder_of_the_download_too(made, tmp_path):
    unpack = device_files() / "unpack"
    lines = ['#include "xaic_predict.h"', f'#include "{unpack / "xaic_unpack.h"}"', "int main() { return XAIC_OK; }"]
    for number, includes in enumerate((lines[:2], lines[1::-1])):
        (tmp_path / f"both{number}.cc").write_text("\n".join([*includes, lines[2], ""]))
        done = compiled(made["cmake"], tmp_path / f"both{number}.cc")
        assert done.returncode == 0, done.stderr


def test_templates_are_filled(made):
    files = [file for project in made.values() for file in project.rglob("*") if file.is_file()]
    assert len(files) > 40
    assert [file for file in files if re.search(r"\{\{[A-Z_]+\}\}", file.read_text())] == []
