"""The C++ kernels and what binds them: one shared library with a C ABI, called through ctypes."""
