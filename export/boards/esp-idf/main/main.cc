// Runs the self-test when the board starts. Written by keras-xaic.
#include <cstdio>

#include "xaic_self_test.h"

namespace {
void Print(const char* line) { std::puts(line); }
}  // namespace

extern "C" void app_main(void) { xaic_self_test(Print); }
