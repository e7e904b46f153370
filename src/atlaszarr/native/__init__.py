"""Compiled kernels: how their C++ sources are built into a library, and how the other packages call it."""
