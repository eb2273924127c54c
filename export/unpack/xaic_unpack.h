/* Unpacks a download container (model.xaic, version 4) of keras-xaic into the .tflite file that it was made from.
 *
 * C99 without allocation, recursion, floating point or global state; needs <stddef.h>, <stdint.h> and <string.h> only. Nothing
 * that a container says is believed: every read and write is checked, and what is damaged ends in an error code.
 */
#ifndef XAIC_UNPACK_H_
#define XAIC_UNPACK_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
  XAIC_OK = 0,
  XAIC_NOT_A_CONTAINER = 1, /* it does not begin as one, or is cut short */
  XAIC_OTHER_VERSION = 2,   /* of a version that this decoder does not read */
  XAIC_DAMAGED = 3,         /* a checksum is wrong, or the content cannot be decoded */
  XAIC_WORK_TOO_SMALL = 4,  /* the work memory is smaller than xaic_inspect said */
  XAIC_NOT_WRITTEN = 5      /* the caller's function did not take the bytes */
} xaic_status;

/* What a container needs. */
typedef struct {
  uint32_t file_size; /* bytes of the .tflite file */
  uint32_t work_size; /* bytes of RAM while it is unpacked, the container and the file not counted */
} xaic_info;

/* Takes the next `count` bytes of the file, in order; returns 0 to go on, anything else to stop. */
typedef int (*xaic_write)(void *user, const uint8_t *bytes, size_t count);

/* Says what a container needs, from its header. */
xaic_status xaic_inspect(const uint8_t *container, size_t length, xaic_info *info);

/* Unpacks a container.
 *
 * container, length: the whole of it, in RAM or in memory-mapped flash.
 * work, work_size:   RAM of any alignment, as large as xaic_inspect says.
 * write, user:       takes the file, piece by piece of at most XAIC_PIECE bytes. NULL unpacks without writing, as a check: bytes
 *                    are given to `write` before the checksum of the file is known, so use the file only if XAIC_OK comes.
 */
xaic_status xaic_unpack(const uint8_t *container, size_t length, void *work, size_t work_size, xaic_write write, void *user);

#define XAIC_PIECE 128

#ifdef __cplusplus
}
#endif

#endif /* XAIC_UNPACK_H_ */
