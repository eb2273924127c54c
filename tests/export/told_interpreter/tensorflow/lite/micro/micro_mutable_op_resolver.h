#pragma once
namespace tflite {
template <unsigned N>
struct MicroMutableOpResolver {
#define TOLD(NAME) \
  void Add##NAME() {}
#include "told_operators.h"
#undef TOLD
};
}  // namespace tflite
