/* A CUDA driver that does nothing and reports success: enough of libcuda for Triton 3.6 to 3.8 to load and launch kernels. */
#include <stdint.h>

#define SUCCEEDS(name) \
  int name(void) { return 0; }

int cuPointerGetAttribute(void* out, int attribute, uint64_t pointer) {
  *(uint64_t*)out = pointer;
  return 0;
}
int cuPointerGetAttributes(unsigned count, int* attributes, void** out, uint64_t pointer) {
  for (unsigned i = 0; i < count; ++i) *(uint64_t*)out[i] = pointer;
  return 0;
}
int cuCtxGetCurrent(void** context) {
  *context = (void*)1;
  return 0;
}
int cuCtxGetDevice(int* device) {
  *device = 0;
  return 0;
}
int cuDeviceGet(int* device, int ordinal) {
  *device = 0;
  return 0;
}
int cuDevicePrimaryCtxRetain(void** context, int device) {
  *context = (void*)1;
  return 0;
}
int cuModuleLoadData(void** module, const void* image) {
  *module = (void*)2;
  return 0;
}
int cuModuleGetFunction(void** function, void* module, const char* name) {
  *function = (void*)3;
  return 0;
}
/* Attribute 0 is the most threads of a block. */
int cuFuncGetAttribute(int* value, int attribute, void* function) {
  *value = attribute == 0 ? 1024 : 0;
  return 0;
}
/* Attributes 81 and 97 are shared memory, of a processor and of a block; what else is asked for, the processors. */
int cuDeviceGetAttribute(int* value, int attribute, int device) {
  *value = attribute == 81 || attribute == 97 ? 232448 : 132;
  return 0;
}
int cuGetErrorString(int code, const char** text) {
  *text = "none";
  return 0;
}
int cuCtxGetLimit(uint64_t* value, int limit) {
  *value = 0;
  return 0;
}
int cuDriverGetVersion(int* version) {
  *version = 13000;
  return 0;
}
int cuOccupancyMaxActiveClusters(int* number, void* function, void* config) {
  *number = 132;
  return 0;
}
SUCCEEDS(cuInit)
SUCCEEDS(cuCtxSetCurrent)
SUCCEEDS(cuCtxSetLimit)
SUCCEEDS(cuFuncSetAttribute)
SUCCEEDS(cuFuncSetCacheConfig)
SUCCEEDS(cuModuleUnload)
SUCCEEDS(cuLaunchKernel)
SUCCEEDS(cuLaunchKernelEx)
SUCCEEDS(cuTensorMapEncodeTiled)
SUCCEEDS(cuTensorMapEncodeIm2col)
