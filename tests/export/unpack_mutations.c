/* Unpacks COUNT mutations of containers, each with right checksums, in memory that is exactly as large as it should be.
 *
 * unpack_mutations COUNT FILE...  ends with 0 and prints how many of each status came; a sanitizer ends it otherwise.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "xaic_unpack.h"

static uint64_t state = 88172645463325252u;

static uint32_t any(uint32_t below) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (uint32_t)(state >> 11) % below;
}

static uint32_t crc32(const uint8_t *p, size_t count) {
  uint32_t crc = 0xffffffff;
  int bit;
  while (count--) {
    crc ^= *p++;
    for (bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc;
}

static int count_bytes(void *user, const uint8_t *bytes, size_t count) {
  *(size_t *)user += count;
  return bytes == NULL || count == 0 || count > XAIC_PIECE || any(40) == 0;
}

int main(int argc, char **argv) {
  long counts[6] = {0}, number, many = argc > 2 ? atol(argv[1]) : 0;
  for (number = 0; number < many; number++) {
    FILE *file = fopen(argv[2 + any((uint32_t)argc - 2)], "rb");
    static uint8_t original[1 << 20];
    size_t length = fread(original, 1, sizeof original - 16, file), written = 0;
    uint32_t changes = any(4), crc, i;
    uint8_t *container;
    xaic_info info = {0, 0};
    xaic_status status;
    fclose(file);
    if (any(8) == 0) length = any((uint32_t)length + 1);
    container = malloc(length ? length : 1);
    memcpy(container, original, length);
    for (i = 0; i < changes && length > 0; i++) {
      uint32_t place = any(3) == 0 ? any(length < 40 ? (uint32_t)length : 40) : any((uint32_t)length);
      container[place] = any(2) ? (uint8_t)any(256) : (uint8_t)(container[place] ^ 1u << any(8));
    }
    if (length >= 4 && any(16) != 0) {
      crc = crc32(container, length - 4);
      for (i = 0; i < 4; i++) container[length - 4 + i] = (uint8_t)(crc >> 8 * i);
    }
    status = xaic_inspect(container, length, &info);
    if (status == XAIC_OK && info.work_size < 64u << 20) {
      size_t size = any(8) == 0 ? any(info.work_size + 1) : info.work_size, shift = any(8);
      uint8_t *work = malloc(size + shift);
      status = xaic_unpack(container, length, work + shift, size, any(4) ? count_bytes : NULL, &written);
      if (written > info.file_size) abort();
      free(work);
    }
    counts[status]++;
    free(container);
  }
  printf("ok %ld, not a container %ld, other version %ld, damaged %ld, too small %ld, not written %ld\n", counts[0], counts[1],
         counts[2], counts[3], counts[4], counts[5]);
  return 0;
}
