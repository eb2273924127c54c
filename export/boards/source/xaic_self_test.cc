// Written by keras-xaic; see xaic_self_test.h.
#include "xaic_self_test.h"

#include <cmath>
#include <cstdio>

#include "xaic_predict.h"
#include "xaic_samples.h"

namespace {
{{BUFFERS}}
float* const kOutputs[XAIC_OUTPUTS] = { {{BUFFER_NAMES}} };

bool IsExpected(float given, float expected, float tolerance) {
  if (std::isnan(expected)) return std::isnan(given);
  return given == expected || std::fabs(given - expected) <= tolerance;
}
}  // namespace

extern "C" int xaic_self_test(void (*print)(const char* line)) {
  char line[96];
  int wrong = 0;
  for (int sample = 0; sample < XAIC_SAMPLES; ++sample) {
    int code = xaic_reset();
    if (code == XAIC_PREDICT_OK) code = xaic_predict_all(kXaicInputs[sample], kOutputs);
    if (code != XAIC_PREDICT_OK) {
      std::snprintf(line, sizeof(line), "sample %d: not run, code %d of xaic_predict.h", sample, code);
      print(line);
      ++wrong;
      continue;
    }
    const char* said = "as expected";
    for (int output = 0; output < XAIC_OUTPUTS; ++output) {
      for (size_t i = 0; i < kXaicSizes[output]; ++i) {
        if (!IsExpected(kOutputs[output][i], kXaicExpected[sample][output][i], kXaicTolerances[output])) said = "DIFFERENT";
      }
    }
    wrong += said[0] == 'D';
    std::snprintf(line, sizeof(line), "sample %d: %s", sample, said);
    print(line);
  }
  std::snprintf(line, sizeof(line), "arena: %lu of %lu bytes are used", static_cast<unsigned long>(xaic_arena_used()),
                static_cast<unsigned long>(XAIC_ARENA_BYTES));
  print(line);
  print(wrong == 0 ? "xaic self-test: PASS" : "xaic self-test: FAIL");
  return wrong;
}
