"""Kernels for float32 on the CPU, in C++: built on this machine at first use, kept for the next."""
