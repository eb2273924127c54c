// Runs the model once on TensorFlow Lite Micro and prints what it answers.
//
// Written by keras-xaic: the operators and the arena are those of this very model. Replace Fill() with your sensor's data.

#include <cstddef>
#include <cstdint>

#include "model_data.h"
#include "tensorflow/lite/c/common.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_log.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/micro/system_setup.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace {

using Resolver = tflite::MicroMutableOpResolver<{{OPS_COUNT}}>;

// Measured where the model was made, with 8-byte pointers: enough for a 32-bit device too. Once it runs, lower it to the
// number of bytes that this program prints.
constexpr size_t kArenaBytes = {{ARENA_BYTES}};
alignas(16) uint8_t arena[kArenaBytes];

void AddOperators(Resolver& resolver) {
{{OPS_ADD_CALLS}}
}

// One sample: all zeros, in the model's own units. An int8 input holds round(value / scale) + zero_point.
void Fill(TfLiteTensor* input) {
  for (size_t i = 0; i < input->bytes; ++i) {
    input->data.raw[i] = input->type == kTfLiteInt8 ? static_cast<char>(input->params.zero_point) : 0;
  }
}

void Print(const TfLiteTensor* output) {
  if (output->type == kTfLiteInt8) {
    for (size_t i = 0; i < output->bytes; ++i) {
      MicroPrintf("output %d: %d", static_cast<int>(i), static_cast<int>(output->data.int8[i]));
    }
  } else if (output->type == kTfLiteFloat32) {
    for (size_t i = 0; i < output->bytes / sizeof(float); ++i) {
      MicroPrintf("output %d: %f", static_cast<int>(i), static_cast<double>(output->data.f[i]));
    }
  }
}

}  // namespace

int main() {
  tflite::InitializeTarget();
  const tflite::Model* model = tflite::GetModel(g_model_data);
  if (model->version() != TFLITE_SCHEMA_VERSION) {
    MicroPrintf("The model has schema version %d, this TFLM reads %d", static_cast<int>(model->version()),
                TFLITE_SCHEMA_VERSION);
    return 1;
  }
  static Resolver resolver;
  AddOperators(resolver);
  static tflite::MicroInterpreter interpreter(model, resolver, arena, kArenaBytes);
  if (interpreter.AllocateTensors() != kTfLiteOk) {
    MicroPrintf("An arena of %d bytes is too small, or an operator is missing", static_cast<int>(kArenaBytes));
    return 1;
  }
  for (size_t i = 0; i < interpreter.inputs_size(); ++i) {
    Fill(interpreter.input(i));
  }
  if (interpreter.Invoke() != kTfLiteOk) {
    MicroPrintf("The model did not run");
    return 1;
  }
  for (size_t i = 0; i < interpreter.outputs_size(); ++i) {
    if (interpreter.outputs_size() > 1) {
      MicroPrintf("output tensor %d", static_cast<int>(i));  // model_data.h says which is which
    }
    Print(interpreter.output(i));
  }
  MicroPrintf("model %d bytes, arena %d of %d bytes", static_cast<int>(g_model_data_size),
              static_cast<int>(interpreter.arena_used_bytes()), static_cast<int>(kArenaBytes));
  return 0;
}
