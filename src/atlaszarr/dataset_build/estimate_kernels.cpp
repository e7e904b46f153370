// Which chunks of a grid the sections of many datasets reach; documented in estimate_kernels.py.
#include "../native/arrays.hpp"

namespace {

constexpr int NONE = 0, LINEAR = 2;

struct Interval {
    double low, high;
};

struct Grid {
    double resolution;
    const int64_t *shape;
    int64_t side;
};

// The depths, in um, that section s of those of a dataset, from `first` to `end`, fills.
Interval filled(int64_t s, int64_t first, int64_t end, const double *numbers, double thickness, double step,
                int64_t fill, double max_gap) {
    double nominal = thickness * step, depth = numbers[s] * thickness;
    double reach = (fill == NONE ? thickness : nominal) / 2;
    double widest = fill == NONE ? thickness : (max_gap + 1e-6) * nominal;
    Interval depths = {depth - reach, depth + reach};
    if (s > first && depth - numbers[s - 1] * thickness <= widest) {
        double before = numbers[s - 1] * thickness;
        depths.low = fill == LINEAR ? before : (before + depth) / 2;
    }
    if (s + 1 < end && numbers[s + 1] * thickness - depth <= widest) {
        double after = numbers[s + 1] * thickness;
        depths.high = fill == LINEAR ? after : (depth + after) / 2;
    }
    return depths;
}

// Find the first and the last voxel along each axis inside the box of a slab; return whether there are any.
bool bound_slab(const double *tvr, const double *tsv, const double *size, Interval depths, const Grid &grid,
                int64_t *first, int64_t *last) {
    double low[3] = {INFINITY, INFINITY, INFINITY}, high[3] = {-INFINITY, -INFINITY, -INFINITY};
    for (int corner = 0; corner < 8; corner++) {
        double x = -0.5 + (corner & 1 ? size[0] : 0.0), y = -0.5 + (corner & 2 ? size[1] : 0.0);
        double depth = corner & 4 ? depths.high : depths.low;
        double u = tsv[0] * x + tsv[1] * y + tsv[2], v = tsv[3] * x + tsv[4] * y + tsv[5];
        for (int axis = 0; axis < 3; axis++) {
            const double *row = tvr + 4 * axis;
            double voxel = (row[0] * u + row[1] * v + row[2] * depth + row[3]) / grid.resolution - 0.5;
            low[axis] = min(low[axis], voxel);
            high[axis] = max(high[axis], voxel);
        }
    }
    for (int axis = 0; axis < 3; axis++) {
        double start = max(ceil(low[axis]), 0.0), end = min(floor(high[axis]), grid.shape[axis] - 1.0);
        if (!(start <= end)) return false;
        first[axis] = static_cast<int64_t>(start), last[axis] = static_cast<int64_t>(end);
    }
    return true;
}

// Whether row . (p, i, r, 1) lies within [low, high] at some point between the voxel centres of a chunk.
bool reaches(const int64_t *chunk, const Grid &grid, const double *row, double low, double high) {
    double middle = row[3], half = 0.0;
    for (int axis = 0; axis < 3; axis++) {
        int64_t start = chunk[axis] * grid.side, end = min(start + grid.side, grid.shape[axis]) - 1;
        middle += row[axis] * ((start + end) / 2.0 + 0.5) * grid.resolution;
        half += fabs(row[axis]) * (end - start) / 2 * grid.resolution;
    }
    return middle + half >= low && middle - half <= high;
}

}  // namespace

EXPORT void estimate_mark_chunks(int64_t datasets, const int64_t *bounds, const double *steps, const double *thickness,
                                 const double *tvr, const double *trv, const double *numbers, const double *tsv,
                                 const double *tvs, const double *sizes, double resolution, const int64_t *shape,
                                 int64_t side, int64_t fill, double max_gap, uint8_t *chunks, uint8_t *used) {
    const Grid grid = {resolution, shape, side};
    int64_t counts[3];
    for (int axis = 0; axis < 3; axis++) counts[axis] = (shape[axis] + side - 1) / side;
    for (int64_t n = 0; n < datasets; n++, tvr += 12, trv += 12, chunks += counts[0] * counts[1] * counts[2]) {
        for (int64_t s = bounds[n]; s < bounds[n + 1]; s++) {
            const double *size = sizes + 2 * s;
            Interval depths =
                filled(s, bounds[n], bounds[n + 1], numbers, thickness[n], steps[n], fill, max_gap);
            int64_t first[3], last[3];
            if (!bound_slab(tvr, tsv + 6 * s, size, depths, grid, first, last)) continue;
            double to_pixel[2][4];
            for (int i = 0; i < 2; i++) {
                const double *row = tvs + 6 * s + 3 * i;
                for (int j = 0; j < 4; j++) to_pixel[i][j] = row[0] * trv[j] + row[1] * trv[4 + j];
                to_pixel[i][3] += row[2];
            }
            for (int64_t z = first[0] / side; z <= last[0] / side; z++)
                for (int64_t y = first[1] / side; y <= last[1] / side; y++)
                    for (int64_t x = first[2] / side; x <= last[2] / side; x++) {
                        const int64_t at[3] = {z, y, x};
                        uint8_t &chunk = chunks[(z * counts[1] + y) * counts[2] + x];
                        if (used[s] && chunk) continue;
                        if (reaches(at, grid, trv + 8, depths.low, depths.high) &&
                            reaches(at, grid, to_pixel[0], -0.5, size[0] - 0.5) &&
                            reaches(at, grid, to_pixel[1], -0.5, size[1] - 0.5))
                            chunk = used[s] = 1;
                    }
        }
    }
}
