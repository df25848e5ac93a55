/* A driver whose one device is the processor: its memory is the process's own. For tests of what is asked of NCCL and when; nothing is
 * computed on it. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int cuInit(unsigned int flags) { return flags != 0; }

int cuDeviceGetCount(int *count) {
  const char *said = getenv("FTHOST_TEST_DEVICES");
  *count = said ? atoi(said) : 1;
  return 0;
}

int cuDeviceGet(int *device, int index) {
  *device = index;
  return 0;
}

int cuDevicePrimaryCtxRetain(void **context, int device) {
  *context = (void *)(intptr_t)(device + 1);
  return 0;
}

static _Thread_local void *current;

int cuCtxSetCurrent(void *context) {
  current = context;
  return 0;
}

/* Everything below needs a context, as the driver's own does: 201 is CUDA_ERROR_INVALID_CONTEXT. */
int cuStreamCreate(void **stream, unsigned int flags) {
  *stream = (void *)0x5;
  return current == NULL ? 201 : flags != 1;
}

int cuStreamSynchronize(void *stream) { return current == NULL ? 201 : stream != (void *)0x5; }

int cuMemAlloc_v2(uint64_t *at, size_t bytes) {
  *at = (uint64_t)(uintptr_t)malloc(bytes);
  return current == NULL ? 201 : *at == 0;
}

int cuMemFree_v2(uint64_t at) {
  free((void *)(uintptr_t)at);
  return 0;
}

int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *stream) {
  memcpy((void *)(uintptr_t)to, from, bytes);
  return current == NULL ? 201 : stream != (void *)0x5;
}

int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *stream) {
  memcpy(to, (const void *)(uintptr_t)from, bytes);
  return current == NULL ? 201 : stream != (void *)0x5;
}

int cuGetErrorString(int error, const char **text) {
  *text = error == 201 ? "invalid device context" : "a failure";
  return 0;
}
