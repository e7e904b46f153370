// The extent of a block of a plane that an affine maps inside the image; documented in coverage.py.
#include "coverage.hpp"

namespace {

struct Range {
    int64_t first, end;
};

// The first x in [first, end) with line + step x >= bound or, if falling, < bound; `end` if no x has it.
int64_t bisect(double line, double step, double bound, bool falling, Range x) {
    while (x.first < x.end) {
        int64_t middle = (x.first + x.end) >> 1;
        if ((line + step * middle < bound) == falling)
            x.end = middle;
        else
            x.first = middle + 1;
    }
    return x.first;
}

// The range of x for which low <= line + step x < high.
Range between(double line, double step, double low, double high, Range x) {
    if (step >= 0) return {bisect(line, step, low, false, x), bisect(line, step, high, false, x)};
    return {bisect(line, step, high, true, x), bisect(line, step, low, true, x)};
}

}  // namespace

EXPORT void coverage_extent(const double (*matrix)[3], int64_t width, int64_t height, int64_t top, int64_t bottom,
                            int64_t left, int64_t right, double (*bounds)[2]) {
    const int64_t size[2] = {width, height};
    for (int64_t y = top; y < bottom; y++) {
        Range x = {left, right};
        double line[2];
        for (int axis = 0; axis < 2; axis++) {
            line[axis] = matrix[axis][1] * y + matrix[axis][2];
            x = between(line[axis], matrix[axis][0], -0.5, size[axis] - 0.5, x);
        }
        if (x.first >= x.end) continue;
        for (int axis = 0; axis < 2; axis++) {
            const double step = matrix[axis][0], a = line[axis] + step * x.first, b = line[axis] + step * (x.end - 1);
            bounds[axis][0] = min(min(bounds[axis][0], a), b);
            bounds[axis][1] = max(max(bounds[axis][1], a), b);
        }
    }
}
