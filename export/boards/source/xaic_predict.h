// Written by keras-xaic. Real values in, real values out; codes, scales and zero points stay inside.
#ifndef XAIC_PREDICT_H_
#define XAIC_PREDICT_H_

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define XAIC_INPUTS {{INPUTS}}
#define XAIC_OUTPUTS {{OUTPUTS}}
{{SIZES}}
// {{ARENA_SAID}}
#ifndef XAIC_ARENA_BYTES
#define XAIC_ARENA_BYTES {{ARENA_BYTES}}
#endif

enum {
  XAIC_PREDICT_OK = 0,
  XAIC_WRONG_SCHEMA = 1,  // this TensorFlow Lite Micro reads another version of the format
  XAIC_NO_MEMORY = 2,     // XAIC_ARENA_BYTES is too small, or an operator is missing
  XAIC_NOT_RUN = 3,       // the interpreter says why in its log
  XAIC_WRONG_TYPE = 4     // an input or output is of a type that this file does not know
};

// Makes the model ready; the first call of the functions below does it, too.
int xaic_setup(void);

// Runs the model: inputs[i] has XAIC_INPUT_<i>_SIZE values, as the model was trained on them; outputs[i] takes XAIC_OUTPUT_<i>_SIZE.
int xaic_predict_all(const float* const* inputs, float* const* outputs);
{{SINGLE}}
// Forgets what recurrent layers remember of earlier calls.
int xaic_reset(void);

// Bytes of the arena that are used.
size_t xaic_arena_used(void);

#ifdef __cplusplus
}
#endif
#endif  // XAIC_PREDICT_H_
