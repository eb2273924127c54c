// The interpreter is another process: it gets the codes of the input on standard output, and gives those of the output.
#pragma once
#include <cstdio>
#include <cstdlib>

#include "tensorflow/lite/c/common.h"
#include "tensorflow/lite/schema/schema_generated.h"
#include "told_sizes.h"

namespace tflite {
struct MicroInterpreter {
  int8_t in[TOLD_IN], out[TOLD_OUT];
  TfLiteTensor input_, output_;
  template <class Resolver>
  MicroInterpreter(const Model*, const Resolver&, uint8_t*, size_t) {
    input_.type = output_.type = kTfLiteInt8;
    input_.params = {TOLD_IN_SCALE, TOLD_IN_ZERO};
    output_.params = {TOLD_OUT_SCALE, TOLD_OUT_ZERO};
    input_.data.int8 = in;
    output_.data.int8 = out;
  }
  TfLiteStatus AllocateTensors() { return kTfLiteOk; }
  TfLiteStatus Reset() { return kTfLiteOk; }
  size_t arena_used_bytes() const { return 1; }
  TfLiteTensor* input(size_t) { return &input_; }
  TfLiteTensor* output(size_t) { return &output_; }
  TfLiteStatus Invoke() {
    if (std::fwrite(in, 1, sizeof(in), stdout) != sizeof(in)) return kTfLiteError;
    std::fflush(stdout);
    return std::fread(out, 1, sizeof(out), stdin) == sizeof(out) ? kTfLiteOk : kTfLiteError;
  }
};
}  // namespace tflite
