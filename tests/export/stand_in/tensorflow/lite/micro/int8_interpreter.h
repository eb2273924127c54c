// What interpreters of tests have in common: one int8 input, one int8 output.
#pragma once
#include "tensorflow/lite/c/common.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace tflite {
template <size_t In, size_t Out>
struct Int8Interpreter {
  int8_t in[In], out[Out];
  TfLiteTensor input_, output_;
  Int8Interpreter(float in_scale, int32_t in_zero, float out_scale, int32_t out_zero) {
    input_.type = output_.type = kTfLiteInt8;
    input_.params = {in_scale, in_zero};
    output_.params = {out_scale, out_zero};
    input_.data.int8 = in;
    output_.data.int8 = out;
  }
  TfLiteStatus AllocateTensors() { return kTfLiteOk; }
  TfLiteStatus Reset() { return kTfLiteOk; }
  size_t arena_used_bytes() const { return 1234; }
  TfLiteTensor* input(size_t) { return &input_; }
  TfLiteTensor* output(size_t) { return &output_; }
};
}  // namespace tflite
