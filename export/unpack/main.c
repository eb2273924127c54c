/* Unpacks model.xaic into model.tflite: cc main.c xaic_unpack.c -o unpack && ./unpack model.xaic model.tflite */
#include <stdio.h>
#include <stdlib.h>
#include "xaic_unpack.h"

static int to_file(void *user, const uint8_t *bytes, size_t count) { return fwrite(bytes, 1, count, user) != count; }

int main(int argc, char **argv) {
  static uint8_t container[4 << 20]; /* on a device: where the download lies, in flash for example */
  xaic_info info = {0, 0};
  FILE *in = argc == 3 ? fopen(argv[1], "rb") : NULL, *out = argc == 3 ? fopen(argv[2], "wb") : NULL;
  size_t length = in != NULL ? fread(container, 1, sizeof container, in) : 0;
  xaic_status status = xaic_inspect(container, length, &info);
  void *work = status == XAIC_OK ? malloc(info.work_size) : NULL;
  if (status == XAIC_OK && work != NULL && out != NULL) status = xaic_unpack(container, length, work, info.work_size, to_file, out);
  free(work);
  printf("status %d: %lu bytes, %lu bytes of RAM\n", status, (unsigned long)info.file_size, (unsigned long)info.work_size);
  return status == XAIC_OK && out != NULL && fclose(out) == 0 ? 0 : 1;
}
