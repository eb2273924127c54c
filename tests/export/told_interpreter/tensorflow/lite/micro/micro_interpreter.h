// The interpreter is another process: it gets the codes of the input on standard output, and gives those of the output.
#pragma once
#include <cstdio>
#include <cstdlib>

#include "tensorflow/lite/micro/int8_interpreter.h"
#include "told_sizes.h"

namespace tflite {
struct MicroInterpreter : Int8Interpreter<TOLD_IN, TOLD_OUT> {
  template <class Resolver>
  MicroInterpreter(const Model*, const Resolver&, uint8_t*, size_t)
      : Int8Interpreter(TOLD_IN_SCALE, TOLD_IN_ZERO, TOLD_OUT_SCALE, TOLD_OUT_ZERO) {}
  TfLiteStatus Invoke() {
    if (std::fwrite(in, 1, sizeof(in), stdout) != sizeof(in)) return kTfLiteError;
    std::fflush(stdout);
    return std::fread(out, 1, sizeof(out), stdin) == sizeof(out) ? kTfLiteOk : kTfLiteError;
  }
};
}  // namespace tflite
