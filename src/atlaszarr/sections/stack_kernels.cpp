// The inner loops of a stack of sections, one row of voxels at a time; documented in stack_kernels.py.
#include <string.h>

#include "../resampling/coverage.hpp"
#include "../resampling/weights.hpp"

namespace {

// Rows are computed in pieces of this many voxels, in arrays on the stack: some 17 kB, within the first cache.
constexpr int PIECE = 256;

struct Geometry {
    const double *depth_row, *edges;
    const int32_t *nearest, *neighbour;
    int64_t intervals;
    const int64_t (*sizes)[2];
    const double (*affines)[2][4];
    const int32_t *field_of;
    int64_t sections;
    Array<const double, 5> fields;

    bool blends() const {
        for (int64_t j = 0; j < intervals; j++)
            if (neighbour[j] >= 0) return true;
        return false;
    }

    // The edges up to a depth, which is in interval `edges_up_to(depth) - 1`; all edges if it is NaN.
    int64_t edges_up_to(double depth) const {
        int64_t first = 0, end = intervals + 1;
        while (first < end) {
            const int64_t middle = (first + end) / 2;
            if (depth < edges[middle])
                end = middle;
            else
                first = middle + 1;
        }
        return first;
    }
};

// Voxels along x: absolute index of the first one (z, y, x), its index in the block (i, j, k), and their number.
struct Voxels {
    double z, y, x;
    int64_t i, j, k;
    int count;

    Voxels(const int64_t *start, int64_t i, int64_t j, int64_t k, int64_t columns)
        : z(start[0] + i), y(start[1] + j), x(start[2] + k), i(i), j(j), k(k),
          count(static_cast<int>(min(columns - k, int64_t{PIECE}))) {}
};

// The values of a row of an affine at voxels; monotonic along x, also after rounding.
struct Values {
    double start, step, x;

    Values(const double *row, const Voxels &voxels)
        : start(row[0] * voxels.z + row[1] * voxels.y + row[3]), step(row[2]), x(voxels.x) {}
    double operator[](int k) const { return start + step * (x + k); }
};

// The section of each voxel, -1 for none, and its point in the section's image, NaN without a section.
struct Points {
    // Vectors are written whole, also beyond the last voxel: most runs of voxels in the same section are short.
    int32_t section[PIECE + LANES];
    double x[PIECE + LANES], y[PIECE + LANES];

    void set(int k, double at_x, double at_y, int32_t s, const int64_t *size) {
        const bool within_x = inside(at_x, size[0]), within_y = inside(at_y, size[1]), within = within_x & within_y;
        section[k] = within ? s : -1;
        x[k] = within ? at_x : NAN;
        y[k] = within ? at_y : NAN;
    }

    void set_affine(int first, int end, const Values at_x, const Values at_y, int32_t s, const int64_t *of) {
        const int64_t size[2] = {of[0], of[1]};
        const int written = (end - first + LANES - 1) / LANES * LANES;
#pragma clang loop vectorize_width(4) interleave(disable)
        for (int k = first; k < first + written; k++) set(k, at_x[k], at_y[k], s, size);
    }

    void clear(int first, int end) {
        for (int k = first; k < end; k++) {
            section[k] = -1;
            x[k] = y[k] = NAN;
        }
    }
};

// Compute the points of voxels, with the sections of an array: the nearest or the neighbour of each interval.
void find_points(const Geometry &geometry, const int32_t *section_of, const Voxels &voxels, Points &points) {
    const Values depth(geometry.depth_row, voxels);
    const int64_t intervals = geometry.intervals, direction = depth.step < 0 ? -1 : 1;
    // An interval with the index -1 is before all edges, one with the index `intervals` after them.
    int64_t interval = -1;
    double low = NAN, high = NAN;
    auto reached = [&](int k) { return low <= depth[k] && depth[k] < high; };
    auto enter = [&](int64_t index) {
        interval = index;
        low = index < 0 ? -INFINITY : geometry.edges[index];
        high = index < intervals ? geometry.edges[index + 1] : INFINITY;
    };
    for (int first = 0, end; first < voxels.count; first = end) {
        if (first > 0) enter(min(max(interval + direction, int64_t{-1}), intervals));
        if (!reached(first)) enter(geometry.edges_up_to(depth[first]) - 1);
        // The voxels before `end` are in the same interval. It is estimated, then corrected for rounding.
        const double estimate = ceil(((direction < 0 ? low : high) - depth.start) / depth.step - depth.x);
        end = estimate > first ? static_cast<int>(min(estimate, static_cast<double>(voxels.count))) : first + 1;
#pragma clang loop vectorize(disable)
        while (end > first + 1 && !reached(end - 1)) end--;
#pragma clang loop vectorize(disable)
        while (end < voxels.count && reached(end)) end++;

        const int32_t s = 0 <= interval && interval < intervals ? section_of[interval] : -1;
        const int32_t f = s < 0 ? -1 : geometry.field_of[s];
        if (s < 0) {
            points.clear(first, end);
            continue;
        }
        const int64_t *size = geometry.sizes[s];
        const Values at_x(geometry.affines[s][0], voxels), at_y(geometry.affines[s][1], voxels);
        if (f < 0) {
            points.set_affine(first, end, at_x, at_y, s, size);
        } else {
            const Array<const double, 4> field = geometry.fields[f];
            const int64_t i = min(voxels.i, field.shape[1] - 1), j = min(voxels.j, field.shape[2] - 1);
            const Array<const double, 1> x = field[0][i][j], y = field[1][i][j];
            for (int k = first; k < end; k++) {
                const int64_t column = min(voxels.k + k, field.shape[3] - 1);
                points.set(k, x[column] + at_x[k], y[column] + at_y[k], s, size);
            }
        }
    }
}

// The crop of a section's image: offset of its first pixel among the pixels of all crops, and its box.
struct Crop {
    int64_t offset, left, top, right, bottom;

    // A coordinate beyond the crop, as beyond the border of the image, takes the outermost pixel.
    int64_t column(int64_t x) const { return 3 * (min(max(x, left), right - 1) - left); }
    int64_t row(int64_t y) const { return 3 * (offset + (min(max(y, top), bottom - 1) - top) * (right - left)); }
};

template <int SUPPORT>
void sample_row(const uint8_t *flat, const Crop *crops, const Points &points, int count,
                float (*__restrict values)[3]) {
    for (int k = 0; k < count; k++) {
        if (points.section[k] < 0) continue;
        const Crop &crop = crops[points.section[k]];
        const double x = points.x[k], y = points.y[k];
        if constexpr (SUPPORT == 1) {
            const uint8_t *pixel = flat + crop.row(nearest_pixel(y)) + crop.column(nearest_pixel(x));
            for (int c = 0; c < 3; c++) values[k][c] = pixel[c];
        } else if constexpr (SUPPORT == 2) {
            const double x_before = floor(x), y_before = floor(y);
            const int64_t column = static_cast<int64_t>(x_before), row = static_cast<int64_t>(y_before);
            const float u = static_cast<float>(x - x_before), v = static_cast<float>(y - y_before);
            const int64_t west = crop.column(column), east = crop.column(column + 1);
            const uint8_t *north = flat + crop.row(row), *south = flat + crop.row(row + 1);
            for (int c = 0; c < 3; c++) {
                const float upper = north[west + c] * (1.0f - u) + north[east + c] * u;
                const float lower = south[west + c] * (1.0f - u) + south[east + c] * u;
                values[k][c] = upper * (1.0f - v) + lower * v;
            }
        } else {
            const Span<double> across = span<SUPPORT>(x), down = span<SUPPORT>(y);
            Line columns, rows;
            weigh<SUPPORT>(across, columns);
            weigh<SUPPORT>(down, rows);
            for (int64_t n = 0; n < columns.count; n++)
                columns.at[n] = crop.column(static_cast<int64_t>(across.first) + n);
            for (int64_t n = 0; n < rows.count; n++) rows.at[n] = crop.row(static_cast<int64_t>(down.first) + n);
            double sums[3];
            weighted<3, false>(flat, rows, columns, nullptr, sums);
            for (int c = 0; c < 3; c++) values[k][c] = static_cast<float>(min(max(sums[c], 0.0), 255.0));
        }
    }
}

template <int SUPPORT>
void pull_back(const int64_t *start, const Geometry &geometry, const double *depths, const uint32_t *ids,
               const uint8_t *flat, const Crop *crops, const int64_t *shape, uint8_t *image, uint32_t *label) {
    const bool blend = geometry.blends();
    const int64_t size = shape[0] * shape[1] * shape[2];
    Points points, others;
    float values[PIECE][3], blended[PIECE][3];
    for (int64_t i = 0; i < shape[0]; i++) {
        for (int64_t j = 0; j < shape[1]; j++) {
            for (int64_t first = 0; first < shape[2]; first += PIECE) {
                const Voxels voxels(start, i, j, first, shape[2]);
                const int count = voxels.count;
                find_points(geometry, geometry.nearest, voxels, points);
                sample_row<SUPPORT>(flat, crops, points, count, values);
                if (blend) {
                    find_points(geometry, geometry.neighbour, voxels, others);
                    sample_row<SUPPORT>(flat, crops, others, count, blended);
                    const Values depth(geometry.depth_row, voxels);
                    for (int k = 0; k < count; k++) {
                        const int32_t s = points.section[k], t = others.section[k];
                        if (s < 0 || t < 0) continue;
                        const float share = static_cast<float>((depth[k] - depths[s]) / (depths[t] - depths[s]));
                        for (int c = 0; c < 3; c++) values[k][c] += share * (blended[k][c] - values[k][c]);
                    }
                }
                const int64_t row = (i * shape[1] + j) * shape[2] + first;
                for (int k = 0; k < count; k++) {
                    if (points.section[k] < 0) continue;
                    label[row + k] = ids[points.section[k]];
                    for (int c = 0; c < 3; c++)
                        image[c * size + row + k] = static_cast<uint8_t>(values[k][c] + 0.5f);
                }
            }
        }
    }
}

// A block of voxels: absolute index (z, y, x) of the first one, and numbers of voxels.
struct Block {
    int64_t start[3], shape[3];
};

struct Interval {
    double low, high;
};

// The smallest and the largest value of a row of an affine over a block.
Interval extent(const double *row, const Block &block) {
    Interval found = {row[3], row[3]};
    for (int axis = 0; axis < 3; axis++) {
        const double one = row[axis] * block.start[axis];
        const double other = row[axis] * (block.start[axis] + block.shape[axis] - 1);
        found.low += min(one, other);
        found.high += max(one, other);
    }
    return found;
}

// Call a function with the sections that fill or blend the intervals which a block reaches, until it returns true.
template <class F> bool any_reached(const Geometry &geometry, const Block &block, F function) {
    // The corners bound the block up to rounding; a margin of 1 um allows for it.
    const Interval depth = extent(geometry.depth_row, block);
    const int64_t first = geometry.edges_up_to(depth.low - 1.0) - 1, end = geometry.edges_up_to(depth.high + 1.0);
    for (int64_t interval = max(first, int64_t{0}); interval < min(end, geometry.intervals); interval++) {
        const int32_t s = geometry.nearest[interval], t = geometry.neighbour[interval];
        if ((s >= 0 && function(s)) || (t >= 0 && function(t))) return true;
    }
    return false;
}

// Whether a block may sample a candidate: its depths reach an interval of it, and its points the image.
bool reaches(const Geometry &geometry, const Block &block, const uint8_t *candidate) {
    return any_reached(geometry, block, [&](int32_t s) {
        if (!candidate[s]) return false;
        if (geometry.field_of[s] >= 0) return true;
        // A margin of 2 pixels allows for rounding.
        for (int axis = 0; axis < 2; axis++) {
            const Interval points = extent(geometry.affines[s][axis], block);
            if (!(points.high > -2.0 && points.low < geometry.sizes[s][axis] + 2.0)) return false;
        }
        return true;
    });
}

void find_sampled(const Geometry &geometry, const Block &block, uint8_t *candidate, uint8_t *sampled) {
    const bool blend = geometry.blends();
    int64_t left = 0;
    for (int64_t s = 0; s < geometry.sections; s++) left += candidate[s];
    auto find = [&](int32_t s) {
        if (!candidate[s]) return;
        candidate[s] = 0;
        sampled[s] = 1;
        left--;
    };
    Points points, others;
    const int64_t *start = block.start, *shape = block.shape;
    for (int64_t i = 0; i < shape[0]; i++) {
        // Whole planes and rows that no candidate reaches are skipped: in most chunks one candidate is not sampled.
        if (!reaches(geometry, {{start[0] + i, start[1], start[2]}, {1, shape[1], shape[2]}}, candidate)) continue;
        for (int64_t j = 0; j < shape[1]; j++) {
            if (left == 0) return;
            if (!reaches(geometry, {{start[0] + i, start[1] + j, start[2]}, {1, 1, shape[2]}}, candidate)) continue;
            for (int64_t first = 0; first < shape[2]; first += PIECE) {
                const Voxels voxels(start, i, j, first, shape[2]);
                find_points(geometry, geometry.nearest, voxels, points);
                if (blend) find_points(geometry, geometry.neighbour, voxels, others);
                for (int k = 0; k < voxels.count; k++) {
                    if (points.section[k] < 0) continue;
                    find(points.section[k]);
                    if (blend && others.section[k] >= 0) find(others.section[k]);
                }
            }
        }
    }
}

}  // namespace

// The attributes of StackGeometry in stack_kernels.py, and lengths of their axes.
#define GEOMETRY_ARGUMENTS \
    const double *depth_row, const double *edges, const int32_t *nearest, const int32_t *neighbour, int64_t intervals, \
        const int64_t(*sizes)[2], const double(*affines)[2][4], const int32_t *field_of, int64_t sections, \
        const double *fields, int64_t planes, int64_t rows, int64_t columns
#define GEOMETRY \
    {depth_row, edges, nearest, neighbour, intervals, sizes, affines, field_of, sections, \
     {fields, {0, 2, planes, rows, columns}}}

EXPORT void stack_pull_back(const int64_t *start, GEOMETRY_ARGUMENTS, const double *depths, const uint32_t *ids,
                            const uint8_t *flat, const Crop *crops, int64_t support, const int64_t *shape,
                            uint8_t *image, uint32_t *label) {
    const auto narrow = support == 1 ? pull_back<1> : pull_back<2>, wide = support == 4 ? pull_back<4> : pull_back<8>;
    const auto kernel = support <= 2 ? narrow : wide;
    kernel(start, GEOMETRY, depths, ids, flat, crops, shape, image, label);
}

EXPORT void stack_field(const int64_t *start, GEOMETRY_ARGUMENTS, const int64_t *shape, int32_t *section,
                        double *out) {
    const Geometry geometry = GEOMETRY;
    const int64_t size = shape[0] * shape[1] * shape[2];
    Points points;
    for (int64_t i = 0; i < shape[0]; i++) {
        for (int64_t j = 0; j < shape[1]; j++) {
            for (int64_t k = 0; k < shape[2]; k += PIECE) {
                const Voxels voxels(start, i, j, k, shape[2]);
                const int64_t at = (i * shape[1] + j) * shape[2] + k;
                find_points(geometry, nearest, voxels, points);
                memcpy(section + at, points.section, voxels.count * sizeof *section);
                memcpy(out + at, points.x, voxels.count * sizeof *out);
                memcpy(out + size + at, points.y, voxels.count * sizeof *out);
            }
        }
    }
}

EXPORT void stack_find_sampled(const int64_t *start, const int64_t *shape, GEOMETRY_ARGUMENTS, uint8_t *candidate,
                               uint8_t *sampled) {
    find_sampled(GEOMETRY, {{start[0], start[1], start[2]}, {shape[0], shape[1], shape[2]}}, candidate, sampled);
}

EXPORT void stack_find_sampled_chunks(int64_t slab, int64_t side, const int64_t *shape, GEOMETRY_ARGUMENTS,
                                      int64_t margin, uint8_t *candidate, int64_t down, int64_t across,
                                      uint8_t *sampled) {
    const Geometry geometry = GEOMETRY;
    for (int64_t j = 0; j < down; j++) {
        for (int64_t k = 0; k < across; k++, sampled += sections) {
            const int64_t index[3] = {slab, j, k};
            Block chunk;
            for (int axis = 0; axis < 3; axis++) {
                chunk.start[axis] = index[axis] * side;
                chunk.shape[axis] = min(side, shape[axis] - chunk.start[axis]);
            }
            memset(candidate, 0, sections);
            bool any = false;
            any_reached(geometry, chunk, [&](int32_t s) {
                for (int axis = 0; axis < 2; axis++) {
                    const Interval points = extent(affines[s][axis], chunk);
                    // A margin of 1 pixel allows for rounding.
                    if (points.high + margin + 2 < 0 || points.low - margin >= sizes[s][axis]) return false;
                }
                candidate[s] = 1;
                any = true;
                return false;
            });
            if (any) find_sampled(geometry, chunk, candidate, sampled);
        }
    }
}
