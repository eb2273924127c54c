// Runs the self-test when the board starts. Written by keras-xaic.
#include <zephyr/sys/printk.h>

#include "xaic_self_test.h"

namespace {
void Print(const char* line) { printk("%s\n", line); }
}  // namespace

int main() { return xaic_self_test(Print) == 0 ? 0 : 1; }
