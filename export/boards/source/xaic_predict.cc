// Written by keras-xaic; see xaic_predict.h.
#if defined(ARDUINO) && defined(__has_include)
#if __has_include(<TensorFlowLite.h>)
#include <TensorFlowLite.h>
#endif
#endif

#include "xaic_predict.h"

#include <cmath>
#include <cstdint>
#include <limits>

#include "model_data.h"
#include "tensorflow/lite/c/common.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace {

constexpr size_t kInputSizes[XAIC_INPUTS] = { {{INPUT_SIZES}} };
constexpr size_t kOutputSizes[XAIC_OUTPUTS] = { {{OUTPUT_SIZES}} };

alignas(16) uint8_t arena[XAIC_ARENA_BYTES];
tflite::MicroInterpreter* interpreter = nullptr;

// Values that are no codes (whole numbers for an embedding, say) have the scale 0 in the file.
float ScaleOf(const TfLiteTensor* tensor) { return tensor->params.scale > 0.0f ? tensor->params.scale : 1.0f; }

template <typename Code>
void Quantize(const float* values, const TfLiteTensor* tensor, Code* codes, size_t count) {
  const double low = std::numeric_limits<Code>::min(), high = std::numeric_limits<Code>::max();
  const float scale = ScaleOf(tensor);
  for (size_t i = 0; i < count; ++i) {
    const double code = static_cast<double>(std::round(values[i] / scale)) + tensor->params.zero_point;
    codes[i] = !(code > low) ? std::numeric_limits<Code>::min() : code > high ? std::numeric_limits<Code>::max() : static_cast<Code>(code);
  }
}

template <typename Code>
void Dequantize(const Code* codes, const TfLiteTensor* tensor, float* values, size_t count) {
  const float scale = ScaleOf(tensor);
  for (size_t i = 0; i < count; ++i) {
    values[i] = static_cast<float>(static_cast<double>(codes[i]) - tensor->params.zero_point) * scale;
  }
}

bool Write(const float* values, TfLiteTensor* tensor, size_t count) {
  switch (tensor->type) {
    case kTfLiteInt8: Quantize(values, tensor, tensor->data.int8, count); return true;
    case kTfLiteUInt8: Quantize(values, tensor, tensor->data.uint8, count); return true;
    case kTfLiteInt16: Quantize(values, tensor, tensor->data.i16, count); return true;
    case kTfLiteInt32: Quantize(values, tensor, tensor->data.i32, count); return true;
    case kTfLiteFloat32:
      for (size_t i = 0; i < count; ++i) tensor->data.f[i] = values[i];
      return true;
    default: return false;
  }
}

bool Read(const TfLiteTensor* tensor, float* values, size_t count) {
  switch (tensor->type) {
    case kTfLiteInt8: Dequantize(tensor->data.int8, tensor, values, count); return true;
    case kTfLiteUInt8: Dequantize(tensor->data.uint8, tensor, values, count); return true;
    case kTfLiteInt16: Dequantize(tensor->data.i16, tensor, values, count); return true;
    case kTfLiteInt32: Dequantize(tensor->data.i32, tensor, values, count); return true;
    case kTfLiteFloat32:
      for (size_t i = 0; i < count; ++i) values[i] = tensor->data.f[i];
      return true;
    default: return false;
  }
}

}  // namespace

extern "C" int xaic_setup(void) {
  if (interpreter != nullptr) return XAIC_PREDICT_OK;
  const tflite::Model* model = tflite::GetModel(g_model_data);
  if (model->version() != TFLITE_SCHEMA_VERSION) return XAIC_WRONG_SCHEMA;
  static tflite::MicroMutableOpResolver<{{OPS_COUNT}}> resolver;
{{OPS_ADD_CALLS}}
  static tflite::MicroInterpreter made(model, resolver, arena, XAIC_ARENA_BYTES);
  if (made.AllocateTensors() != kTfLiteOk) return XAIC_NO_MEMORY;
  interpreter = &made;
  return XAIC_PREDICT_OK;
}

extern "C" int xaic_predict_all(const float* const* inputs, float* const* outputs) {
  const int ready = xaic_setup();
  if (ready != XAIC_PREDICT_OK) return ready;
  for (size_t i = 0; i < XAIC_INPUTS; ++i) {
    if (!Write(inputs[i], interpreter->input(i), kInputSizes[i])) return XAIC_WRONG_TYPE;
  }
  if (interpreter->Invoke() != kTfLiteOk) return XAIC_NOT_RUN;
  for (size_t i = 0; i < XAIC_OUTPUTS; ++i) {
    if (!Read(interpreter->output(i), outputs[i], kOutputSizes[i])) return XAIC_WRONG_TYPE;
  }
  return XAIC_PREDICT_OK;
}
{{SINGLE_CODE}}
extern "C" int xaic_reset(void) {
  const int ready = xaic_setup();
  if (ready != XAIC_PREDICT_OK) return ready;
  return interpreter->Reset() == kTfLiteOk ? XAIC_PREDICT_OK : XAIC_NOT_RUN;
}

extern "C" size_t xaic_arena_used(void) { return xaic_setup() == XAIC_PREDICT_OK ? interpreter->arena_used_bytes() : 0; }
