/* Unpacks model.xaic into model.tflite: cc main.c xaic_unpack.c -o unpack && ./unpack model.xaic model.tflite */
#include <stdio.h>
#include <stdlib.h>
#include "xaic_unpack.h"

static int to_file(void *user, const uint8_t *bytes, size_t count) { return fwrite(bytes, 1, count, user) != count; }

int main(int argc, char **argv) {
  static uint8_t container[4 << 20]; /* on a device: where the download lies, in flash for example */
  static char part[4096];            /* the file takes its name when it is whole */
  xaic_info info = {0, 0};
  FILE *in = argc == 3 ? fopen(argv[1], "rb") : NULL, *out = NULL;
  size_t length = in != NULL ? fread(container, 1, sizeof container, in) : 0;
  xaic_status status = xaic_inspect(container, length, &info);
  void *work = status == XAIC_OK ? malloc(info.work_size) : NULL;
  int done = 0;
  if (argc != 3 || in == NULL || length == sizeof container) {
    printf("usage: unpack model.xaic model.tflite, with a container of less than %lu bytes\n", (unsigned long)sizeof container);
    return 1;
  }
  fclose(in);
  if (work != NULL && snprintf(part, sizeof part, "%s.part", argv[2]) < (int)sizeof part) out = fopen(part, "wb");
  if (out != NULL) {
    status = xaic_unpack(container, length, work, info.work_size, to_file, out);
    done = fclose(out) == 0 && status == XAIC_OK && rename(part, argv[2]) == 0;
    if (!done) remove(part);
  }
  free(work);
  printf("status %d: %lu bytes, %lu bytes of RAM\n", status, (unsigned long)info.file_size, (unsigned long)info.work_size);
  if (status == XAIC_OK && !done) printf("%s could not be written\n", argv[2]);
  return done ? 0 : 1;
}
