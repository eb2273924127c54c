#pragma once
#include <cmath>
#include <cstdlib>

#include "tensorflow/lite/c/common.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace tflite {
struct MicroInterpreter {
  int8_t in[4], out[3];
  TfLiteTensor input_, output_;
  template <class Resolver>
  MicroInterpreter(const Model*, const Resolver& resolver, uint8_t*, size_t) {
    if (resolver.count != 1) std::abort();
    input_.type = output_.type = kTfLiteInt8;
    input_.params = {0.00784313772f, -1};
    output_.params = {0.0235294122f, -1};
    input_.data.int8 = in;
    output_.data.int8 = out;
  }
  TfLiteStatus AllocateTensors() { return kTfLiteOk; }
  TfLiteStatus Reset() { return kTfLiteOk; }
  size_t arena_used_bytes() const { return 1234; }
  TfLiteTensor* input(size_t) { return &input_; }
  TfLiteTensor* output(size_t) { return &output_; }
  TfLiteStatus Invoke() {
    static const double kernel[4][3] = {{1, 0, -1}, {0, 1, 1}, {1, 1, 0}, {0, -1, 0.5}};
    for (int j = 0; j < 3; ++j) {
      double sum = 0;
      for (int i = 0; i < 4; ++i) sum += (in[i] + 1) * 0.00784313772 * kernel[i][j];
      const double code = std::round(sum / 0.0235294122) - 1;
      out[j] = code > 127 ? 127 : code < -128 ? -128 : static_cast<int8_t>(code);
    }
    return kTfLiteOk;
  }
};
}  // namespace tflite
