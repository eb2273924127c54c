// A stand-in for TensorFlow Lite Micro: its names, and one int8 FULLY_CONNECTED without bias, that of tiny.tflite.
#pragma once
#include <cstddef>
#include <cstdint>

enum TfLiteStatus { kTfLiteOk, kTfLiteError };
enum TfLiteType { kTfLiteFloat32, kTfLiteInt8, kTfLiteUInt8, kTfLiteInt16, kTfLiteInt32 };
struct TfLiteTensor {
  TfLiteType type;
  struct {
    float scale;
    int32_t zero_point;
  } params;
  union {
    int8_t* int8;
    uint8_t* uint8;
    int16_t* i16;
    int32_t* i32;
    float* f;
  } data;
};
