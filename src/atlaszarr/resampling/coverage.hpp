// Points inside an image; documented in coverage.py.
#pragma once
#include "../native/arrays.hpp"

// Whether a coordinate lies inside an image of n pixels along an axis; false for NaN. Without a branch, for vectors.
inline bool inside(double x, int64_t n) { return (-0.5 <= x) & (x < static_cast<double>(n) - 0.5); }
