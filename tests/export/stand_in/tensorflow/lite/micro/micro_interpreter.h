#pragma once
#include <cmath>
#include <cstdlib>

#include "tensorflow/lite/micro/int8_interpreter.h"

namespace tflite {
struct MicroInterpreter : Int8Interpreter<4, 3> {
  template <class Resolver>
  MicroInterpreter(const Model*, const Resolver& resolver, uint8_t*, size_t)
      : Int8Interpreter(0.00784313772f, -1, 0.0235294122f, -1) {
    if (resolver.count != 1) std::abort();
  }
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
