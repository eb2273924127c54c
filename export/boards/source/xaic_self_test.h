// Written by keras-xaic. Runs a few samples and compares with what the machine that made the model got.
#ifndef XAIC_SELF_TEST_H_
#define XAIC_SELF_TEST_H_

#ifdef __cplusplus
extern "C" {
#endif

// Returns how many samples are wrong, or could not be run; tells `print` what it finds, line by line.
int xaic_self_test(void (*print)(const char* line));

#ifdef __cplusplus
}
#endif
#endif  // XAIC_SELF_TEST_H_
