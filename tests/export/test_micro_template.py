"""The project template compiles: against stand-ins for TFLM's headers, which declare what main.cc uses and nothing else."""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess

import pytest

TEMPLATE = pathlib.Path(__file__).parents[2] / "export" / "micro"
FILLED = {
    "MODEL_BYTES": "4",
    "ARENA_BYTES": "2048",
    "OPS_COUNT": "2",
    "OPS_ADD_CALLS": "  resolver.AddConv2D();\n  resolver.AddSoftmax();",
}

COMMON = """
#pragma once
#include <cstddef>
#include <cstdint>
enum TfLiteStatus { kTfLiteOk, kTfLiteError };
enum TfLiteType { kTfLiteFloat32 = 1, kTfLiteInt8 = 9 };
union TfLitePtrUnion { float* f; char* raw; int8_t* int8; };
struct TfLiteQuantizationParams { float scale; int32_t zero_point; };
struct TfLiteTensor { TfLiteType type; TfLitePtrUnion data; TfLiteQuantizationParams params; size_t bytes; };
"""
SCHEMA = """
#pragma once
#include <cstdint>
#define TFLITE_SCHEMA_VERSION 3
namespace tflite {
struct Model { uint32_t version() const { return 3; } };
inline const Model* GetModel(const void* buffer) { return static_cast<const Model*>(buffer); }
}
"""
RESOLVER = """
#pragma once
#include "tensorflow/lite/c/common.h"
namespace tflite {
template <unsigned int count> struct MicroMutableOpResolver {
  unsigned int added = 0;
  TfLiteStatus AddConv2D() { return ++added > count ? kTfLiteError : kTfLiteOk; }
  TfLiteStatus AddSoftmax() { return ++added > count ? kTfLiteError : kTfLiteOk; }
};
}
"""
INTERPRETER = """
#pragma once
#include "tensorflow/lite/c/common.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"
namespace tflite {
struct MicroInterpreter {
  template <unsigned int count>
  MicroInterpreter(const Model*, const MicroMutableOpResolver<count>& resolver, uint8_t* arena, size_t size)
      : ready(resolver.added == count && reinterpret_cast<uintptr_t>(arena) % 16 == 0 && size == 2048) {
    tensor = {kTfLiteInt8, {nullptr}, {0.5f, -7}, 3};
    tensor.data.int8 = values;
  }
  TfLiteStatus AllocateTensors() { return ready ? kTfLiteOk : kTfLiteError; }
  TfLiteStatus Invoke() { for (int8_t& v : values) v = static_cast<int8_t>(v * 2); return kTfLiteOk; }
  size_t inputs_size() const { return 1; }
  size_t outputs_size() const { return 1; }
  TfLiteTensor* input(size_t) { return &tensor; }
  TfLiteTensor* output(size_t) { return &tensor; }
  size_t arena_used_bytes() const { return 1500; }
  bool ready;
  int8_t values[3] = {1, 2, 3};
  TfLiteTensor tensor;
};
}
"""
LOG = "#pragma once\nvoid MicroPrintf(const char* format, ...);\n"
LOG_SOURCE = """
#include <cstdarg>
#include <cstdio>
void MicroPrintf(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vprintf(format, arguments);
  va_end(arguments);
  putchar('\\n');
}
"""


@pytest.fixture
def project(tmp_path):
    """The template, filled in, with a model of four bytes beside a stand-in for TFLM's source tree."""
    where = tmp_path / "micro"
    shutil.copytree(TEMPLATE, where)
    for file in where.iterdir():
        text = file.read_text()
        for key, value in FILLED.items():
            text = text.replace("{{" + key + "}}", value)
        assert "{{" not in text, file.name
        file.write_text(text)
    (where / "model_data.h").write_text(
        "#pragma once\nextern const unsigned char g_model_data[];\nextern const unsigned int g_model_data_size;\n"
    )
    (where / "model_data.cc").write_text(
        '#include "model_data.h"\nalignas(16) const unsigned char g_model_data[] = {1, 2, 3, 4};\n'
        "const unsigned int g_model_data_size = 4;\n"
    )
    lite = tmp_path / "tree" / "tensorflow" / "lite"
    for name, text in {
        "c/common.h": COMMON,
        "schema/schema_generated.h": SCHEMA,
        "micro/micro_mutable_op_resolver.h": RESOLVER,
        "micro/micro_interpreter.h": INTERPRETER,
        "micro/micro_log.h": LOG,
        "micro/micro_log.cc": LOG_SOURCE,
        "micro/system_setup.h": "#pragma once\nnamespace tflite { inline void InitializeTarget() {} }\n",
        "micro/kernels/some_test.cc": "#error tests are not part of the library\n",
    }.items():
        (lite / name).parent.mkdir(parents=True, exist_ok=True)
        (lite / name).write_text(text)
    return where


def test_only_the_agreed_placeholders_are_used():
    used = set()
    for file in TEMPLATE.iterdir():
        used |= set(re.findall(r"\{\{(\w+)\}\}", file.read_text()))
    assert used == set(FILLED)


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
def test_main_compiles_without_warnings_and_runs(project):
    program = project / "program"
    tree = project.parent / "tree"
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-fno-rtti", "-fno-exceptions", f"-isystem{tree}"]
    sources = [project / "main.cc", project / "model_data.cc", tree / "tensorflow/lite/micro/micro_log.cc"]
    subprocess.run(["g++", *flags, *map(str, sources), "-o", str(program)], check=True, timeout=120)
    said = subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout
    # The input is the zero point -7 in every place, and the stand-in doubles it.
    assert said.splitlines() == ["output 0: -14", "output 1: -14", "output 2: -14", "model 4 bytes, arena 1500 of 2048 bytes"]


@pytest.mark.skipif(shutil.which("cmake") is None or shutil.which("g++") is None, reason="no cmake or g++")
def test_cmake_builds_it_with_a_tree(project):
    tree, build = project.parent / "tree", project / "build"
    configure = ["cmake", "-S", str(project), "-B", str(build)]
    refused = subprocess.run(configure, capture_output=True, text=True, timeout=120)
    assert refused.returncode != 0
    assert "holds no tensorflow/lite/micro" in refused.stderr
    subprocess.run([*configure, f"-DTFLM_TREE={tree}"], check=True, capture_output=True, timeout=120)
    done = subprocess.run(["cmake", "--build", str(build)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in done.stderr
    assert subprocess.run([str(build / "xaic_model")], capture_output=True, text=True, check=True).stdout.startswith("output 0")
