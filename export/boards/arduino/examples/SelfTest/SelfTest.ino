// Prints to the serial monitor whether the model computes here what it computed where it was made. Written by keras-xaic.
#include <xaic_predict.h>
#include <xaic_self_test.h>

void print(const char* line) { Serial.println(line); }

void setup() {
  Serial.begin(115200);
  while (!Serial && millis() < 5000) {
  }
  xaic_self_test(print);
}

void loop() {}
