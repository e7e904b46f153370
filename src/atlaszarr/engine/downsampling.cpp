// The inner loops of downsampling; the rules are documented in downsampling.py.
#include "../native/arrays.hpp"

#include <string.h>

namespace {

// The blocks of a parent and of its level, and the widths of the arrays of overlaps along z, y and x.
struct Sizes {
    int64_t channels, nz, ny, nx, mz, my, mx, wz, wy, wx;
};

// The voxels of the parent that a voxel of the level overlaps along an axis.
struct Footprint {
    int64_t start, stop, total;
    const int64_t *overlaps;

    Footprint(const int64_t *row) : start(row[0]), stop(row[1]), total(row[2]), overlaps(row + 3) {}
    int64_t overlap(int64_t j) const { return overlaps[j - start]; }
};

// The value of a sum of floating point, or rounded half to even.
template <class T, class S> T rounded(S mean) { return static_cast<T>(T(0.5) == 0 ? rint(mean) : mean); }

// Add rows to columns one after the other, each value times the weight of its row; with a mask, counted values alone.
template <bool masked, int rows, class T, class S>
void add(const T *const *row, const uint8_t *const *counted, const S *weights, int64_t n, S *__restrict columns) {
    for (int64_t x = 0; x < n; x++) {
        S sum = columns[x];
#pragma clang loop unroll(full)
        for (int i = 0; i < rows; i++) {
            S term = static_cast<S>(row[i][x]) * weights[i];
            sum += !masked || counted[i][x] ? term : 0;
        }
        columns[x] = sum;
    }
}

// Sum over z and y into columns, which is most of the work and runs along rows, and then over x.
// `scratch` has channels + 4 rows of nx, which is at least mx, since no factor is below 1.
template <class T, class S, bool masked>
void mean(const Sizes &n, const T *parent, const int64_t *zs, const int64_t *ys, const int64_t *xs,
          const uint8_t *covered, S *scratch, uint8_t *lacking, T *level) {
    S *__restrict sums = scratch + (n.channels + 1) * n.nx, *__restrict weights = sums + n.nx;
    S *__restrict totals = weights + n.nx;
    for (int64_t x = 0; x < n.mx; x++) totals[x] = static_cast<S>(xs[x * n.wx + 2]);
    auto fold = [&](const S *columns, S *__restrict folded) {
        for (int64_t x = 0; x < n.mx; x++) {
            Footprint along(xs + x * n.wx);
            S sum = 0;
            for (int64_t k = along.start; k < along.stop; k++) sum += columns[k] * static_cast<S>(along.overlap(k));
            folded[x] = sum;
        }
    };
    for (int64_t z = 0; z < n.mz; z++) {
        for (int64_t y = 0; y < n.my; y++) {
            Footprint along_z(zs + z * n.wz), along_y(ys + y * n.wy);
            memset(scratch, 0, sizeof(S) * (n.channels + 1) * n.nx);
            const int64_t across = along_y.stop - along_y.start, rows = (along_z.stop - along_z.start) * across;
            for (int64_t r = 0, group; r < rows; r += group) {
                group = rows - r < 4 ? 1 : 4;  // four at once are read and written less
                const T *row[4];
                const uint8_t *counted[4];
                S weight[4];
                for (int64_t g = 0; g < group; g++) {
                    int64_t i = along_z.start + (r + g) / across, j = along_y.start + (r + g) % across;
                    row[g] = parent + (i * n.ny + j) * n.nx;
                    counted[g] = covered + (i * n.ny + j) * n.nx;
                    weight[g] = static_cast<S>(along_z.overlap(i) * along_y.overlap(j));
                }
                S *columns = scratch;
                for (int64_t c = 0; c < n.channels; c++, columns += n.nx) {
                    (group == 4 ? add<masked, 4, T, S> : add<masked, 1, T, S>)(row, counted, weight, n.nx, columns);
                    for (int64_t g = 0; g < group; g++) row[g] += n.nz * n.ny * n.nx;
                }
                if (masked)
                    (group == 4 ? add<false, 4, uint8_t, S> : add<false, 1, uint8_t, S>)(counted, counted, weight, n.nx,
                                                                                         columns);
            }
            int64_t at = (z * n.my + y) * n.mx;
            if (masked) {
                fold(scratch + n.channels * n.nx, weights);
                for (int64_t x = 0; x < n.mx; x++) lacking[at + x] = weights[x] == 0;
            } else {
                const S total = static_cast<S>(along_z.total * along_y.total);
                for (int64_t x = 0; x < n.mx; x++) weights[x] = total * totals[x];
            }
            for (int64_t c = 0; c < n.channels; c++) {
                fold(scratch + c * n.nx, sums);
                T *__restrict made = level + c * n.mz * n.my * n.mx + at;
                for (int64_t x = 0; x < n.mx; x++)
                    made[x] = weights[x] == 0 ? T(0) : rounded<T>(sums[x] / weights[x]);
            }
        }
    }
}

// The mean of integers whose sum may exceed floating point: the sum is high * 2**32 + low.
template <class T>
void mean_of_wide(const Sizes &n, const T *parent, const int64_t *zs, const int64_t *ys, const int64_t *xs,
                  const uint8_t *covered, uint8_t *lacking, T *level) {
    for (int64_t c = 0; c < n.channels; c++) {
        for (int64_t at = 0; at < n.mz * n.my * n.mx; at++) {
            Footprint along_z(zs + at / n.mx / n.my * n.wz), along_y(ys + at / n.mx % n.my * n.wy);
            Footprint along_x(xs + at % n.mx * n.wx);
            int64_t high = 0, low = 0, total = 0;
            for (int64_t i = along_z.start; i < along_z.stop; i++) {
                for (int64_t j = along_y.start; j < along_y.stop; j++) {
                    const int64_t line = (i * n.ny + j) * n.nx, share = along_z.overlap(i) * along_y.overlap(j);
                    const T *row = parent + c * n.nz * n.ny * n.nx + line;
                    for (int64_t k = along_x.start; k < along_x.stop; k++) {
                        if (covered && !covered[line + k]) continue;
                        const int64_t weight = share * along_x.overlap(k);
                        total += weight;
                        high += static_cast<int64_t>(row[k] >> 31 >> 1) * weight;  // a shift by 32 of any type
                        low += static_cast<int64_t>(row[k] & 0xFFFFFFFF) * weight;
                    }
                }
            }
            if (total == 0) {
                lacking[at] = 1;
                continue;
            }
            int64_t quotient = high / total, rest = high % total;
            if (rest < 0) quotient--, rest += total;
            low += rest << 32;
            const uint64_t whole = (static_cast<uint64_t>(quotient) << 32) + low / total;
            const int64_t odd = whole & 1, twice = 2 * (low % total);
            level[c * n.mz * n.my * n.mx + at] = static_cast<T>(whole + (twice + odd > total));
        }
    }
}

// The rows of a parent that hold 2 x 2 of its voxels; a row counts twice where there is no other.
template <class T> struct Rows {
    const T *row[4];

    Rows(const Sizes &n, const T *parent, int64_t pz, int64_t py, int64_t c, int64_t z, int64_t y) {
        for (int i = 0; i < 4; i++) {
            int64_t k = min(pz * z + i / 2 * (pz - 1), n.nz - 1), j = min(py * y + i % 2 * (py - 1), n.ny - 1);
            row[i] = parent + ((c * n.nz + k) * n.ny + j) * n.nx;
        }
    }
};

// The type of the sum of eight numbers, and that of their mean: see `_reduce_by_mean`.
template <class T> struct Wider;
template <> struct Wider<uint8_t> { using sum = uint16_t; using mean = float; };
template <> struct Wider<int8_t> { using sum = int16_t; using mean = float; };
template <> struct Wider<uint16_t> { using sum = uint32_t; using mean = float; };
template <> struct Wider<int16_t> { using sum = int32_t; using mean = float; };
template <> struct Wider<uint32_t> { using sum = uint64_t; using mean = double; };
template <> struct Wider<int32_t> { using sum = int64_t; using mean = double; };
template <> struct Wider<uint64_t> { using sum = unsigned __int128; using mean = double; };
template <> struct Wider<int64_t> { using sum = __int128; using mean = double; };

// The sums of up to eight numbers: of all, and of those that are covered.
template <class T, bool masked> struct Sums {
    using S = typename Wider<T>::sum;
    using F = typename Wider<T>::mean;
    S all = 0, covered = 0, count = 0;

    void add(T value, uint8_t counted) {
        all += value;
        covered += value & -static_cast<S>(counted);
        count += counted;
    }
    // Two numbers side by side are read as one, and added without a shuffle, in whatever order they lie.
    void add_two(const T *row, const uint8_t *mask) {
        S two;
        uint16_t counted = 0;
        memcpy(&two, row, sizeof two);
        if (masked) memcpy(&counted, mask, sizeof counted);
        add(static_cast<T>(two), counted & 0xFF);
        add(static_cast<T>(two >> 8 * sizeof(T)), counted >> 8);
    }
    // Of the covered numbers, and of all if none is covered; rounded half to even.
    T mean(int) const {
        T whole = static_cast<T>(static_cast<S>(all + 3 + (all >> 3 & 1)) >> 3);
        // Numbers of 64 bits are never masked: see `_reduce_by_mean`. For a sum of 128 bits as floating point, the compiler
        // would link a library of its own, whose sin, cos and memcpy replace those of the C library.
        if constexpr (sizeof(T) < 8)
            if (masked && count) return static_cast<T>(rint(static_cast<F>(covered) / static_cast<F>(count)));
        return whole;
    }
};

// Floating point is summed in the order of `mean`.
template <class T, bool masked> struct SumsOfFloats {
    double even = 0, odd = 0, covered_even = 0, covered_odd = 0;
    int32_t count = 0;

    void add(T value, uint8_t counted) {
        even += value;
        covered_even += counted ? value : 0;
        count += counted;
    }
    void add_two(const T *row, const uint8_t *mask) {
        add(row[0], masked ? mask[0] : 0);
        odd += row[1];
        if (masked) covered_odd += mask[1] ? row[1] : 0;
        if (masked) count += mask[1];
    }
    T mean(int added) const {
        return static_cast<T>(masked && count ? (covered_even + covered_odd) / count : (even + odd) / added);
    }
};
template <bool masked> struct Sums<float, masked> : SumsOfFloats<float, masked> {};
template <bool masked> struct Sums<double, masked> : SumsOfFloats<double, masked> {};

template <class T, bool masked, int rows>
void mean_of_rows(const T *const row[4], const uint8_t *const mask[4], int64_t n, T *__restrict made) {
    for (int64_t x = 0; x < n / 2; x++) {
        Sums<T, masked> sums;
        for (int i = 0; i < rows; i++) sums.add_two(row[i] + 2 * x, mask[i] + 2 * x);
        made[x] = sums.mean(2 * rows);
    }
    if (n % 2) {
        Sums<T, masked> sums;
        for (int k = 0; k < (T(0.5) == 0 ? 2 : 1); k++)
            for (int i = 0; i < rows; i++) sums.add(row[i][n - 1], masked ? mask[i][n - 1] : 0);
        made[n / 2] = sums.mean(rows);
    }
}

// The mean of 2 x 2 x 2 voxels: of those that are covered, and of all where none is covered.
// An integer alone along an axis counts twice: same mean. Floating point does not: twice the largest is infinite.
template <class T, bool masked>
void mean_of_eight(const Sizes &n, const T *parent, int64_t pz, int64_t py, const uint8_t *covered, T *level) {
    constexpr bool integers = T(0.5) == 0;
    for (int64_t c = 0; c < n.channels; c++) {
        for (int64_t z = 0; z < n.mz; z++) {
            for (int64_t y = 0; y < n.my; y++, level += n.mx) {
                Rows<T> rows(n, parent, pz, py, c, z, y);
                Rows<uint8_t> masks(n, covered, pz, py, 0, z, y);
                const bool two_z = pz * z + pz - 1 < n.nz && pz == 2, two_y = py * y + py - 1 < n.ny && py == 2;
                if (integers || (two_z && two_y)) {
                    mean_of_rows<T, masked, 4>(rows.row, masks.row, n.nx, level);
                } else if (two_z || two_y) {
                    if (two_z) rows.row[1] = rows.row[2], masks.row[1] = masks.row[2];
                    mean_of_rows<T, masked, 2>(rows.row, masks.row, n.nx, level);
                } else {
                    mean_of_rows<T, masked, 1>(rows.row, masks.row, n.nx, level);
                }
            }
        }
    }
}

// Break a tie by the size of the difference between the halves along each axis; true for background.
inline bool loses(int64_t size_z, int64_t size_y, int64_t size_x, uint8_t odd_z, uint8_t odd_y, uint8_t odd_x) {
    if (size_z == 0 && size_y == 0 && size_x == 0) return odd_z ^ odd_y ^ odd_x;
    if (size_z >= size_y && size_z >= size_x) return odd_z;
    return size_y >= size_x ? odd_y : odd_x;
}

template <class T, int... I> struct Indices {};

// As many labels as are computed at once.
template <class T> struct Lanes {
    static constexpr int count = 32 / sizeof(T);
    using type = T __attribute__((vector_size(32)));

    // The voxels at 2 x + offset of a row.
    template <int... I> static type strided(const T *row, int offset, Indices<int, I...>) {
        type one, other;
        memcpy(&one, row, sizeof one);
        memcpy(&other, row + count, sizeof other);
        return offset ? __builtin_shufflevector(one, other, (2 * I + 1)...)
                      : __builtin_shufflevector(one, other, (2 * I)...);
    }
};

// Of 2 x 2 x 2 voxels, the label other than 0 that occurs most, the smallest of equals, for a number of them at once.
template <class T> struct Eight {
    using Labels = typename Lanes<T>::type;
    using Counts = decltype(Labels{} == Labels{});  // signed; true is -1
    static constexpr int count = Lanes<T>::count;

    // The voxels at even columns of four rows, then those at odd columns.
    static void split(const T *const row[4], Labels cells[8]) {
        for (int i = 0; i < 8; i++)
            cells[i] = Lanes<T>::strided(row[i % 4], i / 4, __make_integer_seq<Indices, int, count>{});
    }

    // Sort numbers by Batcher's network (Knuth, TAOCP 3, 5.3.4).
    template <class V> static void sort(V cells[8]) {
        constexpr int pairs[19][2] = {{0, 1}, {2, 3}, {4, 5}, {6, 7}, {0, 2}, {1, 3}, {4, 6}, {5, 7}, {1, 2}, {5, 6},
                                      {0, 4}, {1, 5}, {2, 6}, {3, 7}, {2, 4}, {3, 5}, {1, 2}, {3, 4}, {5, 6}};
#pragma clang loop unroll(full)
        for (int n = 0; n < 19; n++) {
            V &a = cells[pairs[n][0]], &b = cells[pairs[n][1]], low = __builtin_elementwise_min(a, b);
            b = __builtin_elementwise_max(a, b);
            a = low;
        }
    }

    // The foreground wins a vote if it is more than half of the voxels, or half of them unless it is `lost`.
    static void mode(const T *const row[4], bool vote, int8_t odd_z, int8_t odd_y, const uint8_t *odd_x, T *made) {
        Labels differ = {};
        for (int i = 0; i < 4; i++) {
            Labels one, other;
            memcpy(&one, row[i], sizeof one);
            memcpy(&other, row[i] + count, sizeof other);
            differ |= (one ^ row[0][0]) | (other ^ row[0][0]);
        }
        if (!__builtin_reduce_or(differ)) {  // most blocks are within one region
            Labels all = Labels{} + row[0][0];
            memcpy(made, &all, sizeof all);
            return;
        }
        Labels cells[8];
        split(row, cells);
        if constexpr (sizeof(T) == 8 && T(-1) > 0) {  // of 64 bits, only signed numbers are compared by one instruction
            constexpr T shift = T(1) << 63;
            for (Labels &cell : cells) cell ^= shift;
            sort(reinterpret_cast<Counts *>(cells));
            for (Labels &cell : cells) cell ^= shift;
        } else {
            sort(cells);  // now equal labels follow each other
        }
        Labels best = {}, last = {};
        Counts most = {}, run = {}, foreground = {};
#pragma clang loop unroll(full)
        for (int i = 0; i < 8; i++) {
            Counts positive = cells[i] != 0;
            foreground -= positive;
            run = (run & (cells[i] == last)) - positive;
            best = run > most ? cells[i] : best;
            most = __builtin_elementwise_max(run, most);
            last = cells[i];
        }
        if (vote) {
            Counts removed = foreground < 4, tied = foreground == 4;
            if (__builtin_reduce_or(tied)) removed |= tied & lost(row, odd_z, odd_y, odd_x);
            best = removed ? Labels{} : best;
        }
        memcpy(made, &best, sizeof best);
    }

    // Where the foreground loses a tie.
    static Counts lost(const T *const row[4], int8_t odd_z, int8_t odd_y, const uint8_t *odd_x) {
        Labels cells[8];
        split(row, cells);
        Counts low_z = {}, low_y = {}, low_x = {};
#pragma clang loop unroll(full)
        for (int i = 0; i < 8; i++) {
            Counts voxel = -(cells[i] != 0);
            if (!(i & 2)) low_z += voxel;
            if (!(i & 1)) low_y += voxel;
            if (!(i & 4)) low_x += voxel;
        }
        // `low` of 4 are in the low half: each difference is twice the size below.
        Counts size_z = __builtin_elementwise_abs(low_z - 2), size_y = __builtin_elementwise_abs(low_y - 2);
        Counts size_x = __builtin_elementwise_abs(low_x - 2);
        uint8_t bytes __attribute__((vector_size(count)));
        memcpy(&bytes, odd_x, count);
        Counts along_z = Counts{} + odd_z, along_y = Counts{} + odd_y, along_x = __builtin_convertvector(bytes, Counts);
        Counts across = size_y >= size_x ? along_y : along_x;
        across = ((size_z >= size_y) & (size_z >= size_x)) ? along_z : across;
        return ((size_z | size_y | size_x) != 0 ? across : along_z ^ along_y ^ along_x) != 0;
    }
};

// Take the mode of 2 x 2 x 2 voxels. A voxel alone along an axis counts twice: same majority.
template <class T>
void mode_of_eight(const Sizes &n, const T *parent, int64_t pz, int64_t py, bool vote, const uint8_t *odd_z,
                   const uint8_t *odd_y, const uint8_t *odd_x, T *level) {
    constexpr int count = Lanes<T>::count;
    for (int64_t c = 0; c < n.channels; c++) {
        for (int64_t z = 0; z < n.mz; z++) {
            for (int64_t y = 0; y < n.my; y++, level += n.mx) {
                Rows<T> rows(n, parent, pz, py, c, z, y);
                int64_t x = 0;
                for (; 2 * (x + count) <= n.nx; x += count) {
                    const T *const row[4] = {rows.row[0] + 2 * x, rows.row[1] + 2 * x, rows.row[2] + 2 * x,
                                             rows.row[3] + 2 * x};
                    Eight<T>::mode(row, vote, odd_z[z], odd_y[y], odd_x + x, level + x);
                }
                if (x < n.mx) {  // the end of the row, and its last voxel again and again
                    T padded[4][2 * count], made[count];
                    uint8_t odd[count] = {};
                    for (int i = 0; i < 4; i++)
                        for (int k = 0; k < 2 * count; k++) padded[i][k] = rows.row[i][min(2 * x + k, n.nx - 1)];
                    const T *const row[4] = {padded[0], padded[1], padded[2], padded[3]};
                    memcpy(odd, odd_x + x, n.mx - x);
                    Eight<T>::mode(row, vote, odd_z[z], odd_y[y], odd, made);
                    memcpy(level + x, made, (n.mx - x) * sizeof(T));
                }
            }
        }
    }
}

// The part of a parent voxel in the low half of a footprint, less the part in the high half.
inline int64_t low_less_high(int64_t before, int64_t weight, int64_t total) {
    int64_t after = total - before - weight;
    return max(-weight, min(after - before, weight));
}

// The labels of a footprint, and the weight of each.
template <class T> struct Election {
    const Sizes &n;
    bool vote;
    T *labels;
    int64_t *weights;

    bool loses_tie(const T *parent, const Footprint &z, const Footprint &y, const Footprint &x, uint8_t odd_z,
                   uint8_t odd_y, uint8_t odd_x) const {
        int64_t along_z = 0, along_y = 0, along_x = 0, before_z = 0;
        for (int64_t i = z.start; i < z.stop; i++) {
            const int64_t weight_z = z.overlap(i), tilt_z = low_less_high(before_z, weight_z, z.total);
            int64_t before_y = 0;
            for (int64_t j = y.start; j < y.stop; j++) {
                const int64_t weight_y = y.overlap(j), tilt_y = low_less_high(before_y, weight_y, y.total);
                int64_t before_x = 0;
                for (int64_t k = x.start; k < x.stop; k++) {
                    const int64_t weight_x = x.overlap(k);
                    if (parent[(i * n.ny + j) * n.nx + k] != 0) {
                        along_z += tilt_z * weight_y * weight_x;
                        along_y += weight_z * tilt_y * weight_x;
                        along_x += weight_z * weight_y * low_less_high(before_x, weight_x, x.total);
                    }
                    before_x += weight_x;
                }
                before_y += weight_y;
            }
            before_z += weight_z;
        }
        return loses(max(along_z, -along_z), max(along_y, -along_y), max(along_x, -along_x), odd_z, odd_y, odd_x);
    }

    // The weights of two labels, without branches; returns whether a footprint has no others.
    bool weigh_two(const T *parent, const Footprint &z, const Footprint &y, const Footprint &x) const {
        const T first = labels[0], second = labels[1];
        int64_t of_first = 0, of_second = 0;
        for (int64_t i = z.start; i < z.stop; i++) {
            for (int64_t j = y.start; j < y.stop; j++) {
                const T *row = parent + (i * n.ny + j) * n.nx;
                const int64_t share = z.overlap(i) * y.overlap(j);
#pragma clang loop vectorize(disable) unroll(disable)  // mostly three voxels
                for (int64_t k = x.start; k < x.stop; k++) {
                    const int64_t weight = share * x.overlap(k);
                    of_first += row[k] == first ? weight : 0;
                    of_second += row[k] == second ? weight : 0;
                }
            }
        }
        weights[0] = of_first;
        weights[1] = of_second;
        return of_first + of_second == z.total * y.total * x.total;
    }

    // The weights of all labels; returns their number.
    int64_t weigh(const T *parent, const Footprint &z, const Footprint &y, const Footprint &x) const {
        int64_t at = 0, count = 0;
        for (int64_t i = z.start; i < z.stop; i++) {
            for (int64_t j = y.start; j < y.stop; j++) {
                const T *row = parent + (i * n.ny + j) * n.nx;
                const int64_t share = z.overlap(i) * y.overlap(j);
                for (int64_t k = x.start; k < x.stop; k++) {
                    const T label = row[k];
                    if (at >= count || labels[at] != label) {  // not the same as the previous label
                        for (at = 0; at < count && labels[at] != label;) at++;
                        if (at == count) labels[at] = label, weights[at] = 0, count++;
                    }
                    weights[at] += share * x.overlap(k);
                }
            }
        }
        return count;
    }

    // The label of a footprint whose smallest and largest label differ.
    T elect(const T *parent, const Footprint &z, const Footprint &y, const Footprint &x, T smallest, T largest,
            uint8_t odd_z, uint8_t odd_y, uint8_t odd_x) const {
        labels[0] = smallest;
        labels[1] = largest;
        const int64_t count = weigh_two(parent, z, y, x) ? 2 : weigh(parent, z, y, x);  // most have two
        int64_t background = 0, best = -1;
        for (int64_t at = 0; at < count; at++) {
            if (labels[at] == 0)
                background = weights[at];
            else if (best < 0 || weights[at] > weights[best] ||
                     (weights[at] == weights[best] && labels[at] < labels[best]))
                best = at;
        }
        const int64_t foreground = z.total * y.total * x.total - background;
        if (vote && foreground < background) return 0;
        if (vote && foreground == background && loses_tie(parent, z, y, x, odd_z, odd_y, odd_x)) return 0;
        return labels[best];
    }
};

// Take the mode row by row; only labels of footprints with several are weighed. `smallest` and `largest` have room for
// a row.
template <class T>
void mode(const Sizes &n, const T *parent, const int64_t *zs, const int64_t *ys, const int64_t *xs, bool vote,
          const uint8_t *odd_z, const uint8_t *odd_y, const uint8_t *odd_x, T *__restrict smallest,
          T *__restrict largest, T *labels, int64_t *weights, T *level) {
    const Election<T> election = {n, vote, labels, weights};
    for (int64_t c = 0; c < n.channels; c++, parent += n.nz * n.ny * n.nx) {
        for (int64_t z = 0; z < n.mz; z++) {
            for (int64_t y = 0; y < n.my; y++, level += n.mx) {
                Footprint along_z(zs + z * n.wz), along_y(ys + y * n.wy);
                const size_t bytes = n.nx * sizeof(T);
                memcpy(smallest, parent + (along_z.start * n.ny + along_y.start) * n.nx, bytes);
                memcpy(largest, smallest, bytes);
                for (int64_t i = along_z.start; i < along_z.stop; i++) {
                    for (int64_t j = along_y.start; j < along_y.stop; j++) {
                        const T *row = parent + (i * n.ny + j) * n.nx;
                        for (int64_t x = 0; x < n.nx; x++) {
                            smallest[x] = min(smallest[x], row[x]);
                            largest[x] = max(largest[x], row[x]);
                        }
                    }
                }
                for (int64_t x = 0; x < n.mx; x++) {
                    Footprint along_x(xs + x * n.wx);
                    T low = smallest[along_x.start], high = largest[along_x.start];
                    for (int64_t k = along_x.start + 1; k < along_x.stop; k++) {
                        low = min(low, smallest[k]);
                        high = max(high, largest[k]);
                    }
                    level[x] = low == high ? low
                                           : election.elect(parent, along_z, along_y, along_x, low, high, odd_z[z],
                                                            odd_y[y], odd_x[x]);
                }
            }
        }
    }
}

}  // namespace

EXPORT void downsampling_overlaps(int64_t n, int64_t m, int64_t p, int64_t q, int64_t width, int64_t *overlaps) {
    for (int64_t k = 0; k < m; k++, overlaps += width) {
        const int64_t start = k * p / q, stop = min(((k + 1) * p + q - 1) / q, n);
        overlaps[0] = start;
        overlaps[1] = stop;
        overlaps[2] = min((k + 1) * p, n * q) - k * p;
        for (int64_t j = start; j < stop; j++)
            overlaps[3 + j - start] = min((j + 1) * q, (k + 1) * p) - max(j * q, k * p);
    }
}

#define MEAN(T, S, name) \
    EXPORT void downsampling_##name(const Sizes *sizes, const T *parent, const int64_t *zs, const int64_t *ys, \
                                    const int64_t *xs, const uint8_t *covered, bool masked, double *scratch, \
                                    uint8_t *lacking, T *level) { \
        auto chosen = masked ? mean<T, S, true> : mean<T, S, false>; \
        chosen(*sizes, parent, zs, ys, xs, covered, reinterpret_cast<S *>(scratch), lacking, level); \
    }
#define MEAN_IN_SINGLE(T, code) MEAN(T, float, mean_in_single_##code)
#define MEAN_IN_DOUBLE(T, code) MEAN(T, double, mean_in_double_##code)
#define FOR_SMALL(M) M(uint8_t, u1) M(int8_t, i1) M(uint16_t, u2) M(int16_t, i2)
FOR_SMALL(MEAN_IN_SINGLE)
FOR_SMALL(MEAN_IN_DOUBLE)
MEAN_IN_DOUBLE(uint32_t, u4)
MEAN_IN_DOUBLE(int32_t, i4)
MEAN_IN_DOUBLE(float, f4)
MEAN_IN_DOUBLE(double, f8)

#define MEAN_OF_WIDE(T, code) \
    EXPORT void downsampling_mean_of_wide_##code(const Sizes *sizes, const T *parent, const int64_t *zs, \
                                                 const int64_t *ys, const int64_t *xs, const uint8_t *covered, \
                                                 bool masked, uint8_t *lacking, T *level) { \
        mean_of_wide(*sizes, parent, zs, ys, xs, masked ? covered : nullptr, lacking, level); \
    }
MEAN_OF_WIDE(uint32_t, u4)
MEAN_OF_WIDE(int32_t, i4)
MEAN_OF_WIDE(uint64_t, u8)
MEAN_OF_WIDE(int64_t, i8)

#define MEAN_OF_EIGHT(T, code) \
    EXPORT void downsampling_mean_of_eight_##code(const Sizes *sizes, const T *parent, int64_t pz, int64_t py, \
                                                  const uint8_t *covered, bool masked, T *level) { \
        (masked ? mean_of_eight<T, true> : mean_of_eight<T, false>)(*sizes, parent, pz, py, covered, level); \
    }
FOR_NUMBERS(MEAN_OF_EIGHT)

#define MODE(T, code) \
    EXPORT void downsampling_mode_of_eight_##code(const Sizes *sizes, const T *parent, int64_t pz, int64_t py, \
                                                  bool vote, const uint8_t *odd_z, const uint8_t *odd_y, \
                                                  const uint8_t *odd_x, T *level) { \
        mode_of_eight(*sizes, parent, pz, py, vote, odd_z, odd_y, odd_x, level); \
    } \
    EXPORT void downsampling_mode_##code(const Sizes *sizes, const T *parent, const int64_t *zs, const int64_t *ys, \
                                         const int64_t *xs, bool vote, const uint8_t *odd_z, const uint8_t *odd_y, \
                                         const uint8_t *odd_x, T *smallest, T *largest, T *labels, \
                                         int64_t *weights, T *level) { \
        mode(*sizes, parent, zs, ys, xs, vote, odd_z, odd_y, odd_x, smallest, largest, labels, weights, level); \
    }
FOR_INTEGERS(MODE)
