// Sums of the values of an image by label; documented in block_sums.py.
#include "../engine/runs.hpp"

#include <string.h>

namespace {

// Columns of the counts.
enum { VOXELS, COVERED, EXPRESSION_COVERED, EXPRESSING, PAIRED, GREY, COUNTS };

// Voxels that are summed at once: their squares of 8 bits, or values of 16 bits, add up to less than 2**32.
constexpr int64_t AT_ONCE = 1 << 16;
// Voxels of a run in the expression view that are counted at once, in arrays on the stack.
constexpr int64_t COUNTED_AT_ONCE = 256;

// Voxels of one label in a row, on one side of the midline.
struct Run {
    int64_t begin, end;
    int64_t group;  // 2 * index of the label + side
};

// What was found in the rows before `row`: labels, and the runs since the last call.
struct State {
    int64_t row, labels, runs;
};

template <class T> struct Labels {
    T *ids;
    int64_t *table;  // the index of a label in each slot, -1 for none
    int64_t slots;

    // The slot of a label, or the free slot for it.
    int64_t slot_of(T label) const {
        int64_t slot = first_slot(label, slots);
        while (table[slot] >= 0 && ids[table[slot]] != label) slot = (slot + 1) & (slots - 1);
        return slot;
    }
};

// Find the runs of the next rows, until a row might have more labels or runs than there is room for.
template <class T>
void find_runs(const T *labels, int64_t rows, int64_t columns, int64_t midline, T *ids, int64_t room, int64_t *table,
               int64_t slots, int64_t *ends, Run *runs, int64_t most, State *state) {
    const Labels<T> known = {ids, table, slots};
    memset(table, 0xff, static_cast<size_t>(slots) * sizeof *table);
    for (int64_t k = 0; k < state->labels; k++) table[known.slot_of(ids[k])] = k;
    state->runs = 0;
    for (; state->row < rows && state->labels + columns <= room && state->runs + columns <= most; state->row++)
        for (int side = 0; side < 2; side++) {
            int64_t begin = state->row * columns + (side ? midline : 0), n = side ? columns - midline : midline;
            if (n == 0) continue;
            const T *row = labels + begin;
            int64_t count = runs_of(row, n, ends);
            for (int64_t k = 0, start = 0; k < count; start = ends[k++]) {
                T label = row[start];
                if (label == 0) continue;
                int64_t slot = known.slot_of(label);
                if (table[slot] < 0) {
                    ids[state->labels] = label;
                    table[slot] = state->labels++;
                }
                runs[state->runs++] = {begin + start, begin + ends[k], 2 * table[slot] + side};
            }
        }
}

int64_t count_of(const uint8_t *mask, int64_t n) {
    int64_t count = 0;
    for (int64_t x = 0; x < n; x++) count += mask[x];
    return count;
}

// Add the values of a run in one channel, of which `covered` are inside, to their number, sum and sum of squares.
template <class T>
void add_moments(const T *row, const uint8_t *inside, int64_t n, int64_t covered, int64_t &values, uint64_t *moments) {
    using Squares = decltype(sizeof(T) == 1 ? uint32_t() : uint64_t());
    values += covered;
    for (int64_t first = 0; first < n; first += AT_ONCE) {
        int64_t stop = min(first + AT_ONCE, n);
        uint32_t total = 0;
        Squares squares = 0;
        for (int64_t x = first; x < stop; x++) {
            uint32_t value = inside[x] ? row[x] : 0;
            total += value;
            squares += value * value;
        }
        moments[0] += total;
        moments[1] += squares;
    }
}

// As above, of floating point: number, mean and sum of squared deviations, combined by the formula of Chan, Golub and
// LeVeque (1979).
template <class T>
void add_float_moments(const T *row, const uint8_t *inside, int64_t n, int64_t &values, double *moments) {
    int64_t count = 0;
    double total = 0.0;
    for (int64_t x = 0; x < n; x++) {
        bool is_value = inside[x] && row[x] == row[x];
        count += is_value;
        total += is_value ? row[x] : 0.0;
    }
    if (count == 0) return;
    double mean = total / count, deviations = 0.0;
    for (int64_t x = 0; x < n; x++) {
        double deviation = row[x] - mean;
        deviations += inside[x] && row[x] == row[x] ? deviation * deviation : 0.0;
    }
    int64_t before = values, both = before + count;
    double step = mean - moments[0];
    if (__builtin_isfinite(step)) {
        moments[0] += step * count / both;
        moments[1] += deviations + step * step * before * count / both;
    } else {
        moments[0] += mean;
        moments[1] = NAN;
    }
    values = both;
}

void add_moments(const float *row, const uint8_t *inside, int64_t n, int64_t, int64_t &values, double *moments) {
    add_float_moments(row, inside, n, values, moments);
}

void add_moments(const double *row, const uint8_t *inside, int64_t n, int64_t, int64_t &values, double *moments) {
    add_float_moments(row, inside, n, values, moments);
}

// The grey level of a voxel is the sum of its channels as whole numbers, or the rounded mean of three.
struct Levels {
    uint32_t of[COUNTED_AT_ONCE];

    template <class T> void add(const T *row, int64_t n, uint8_t *) {
        for (int64_t x = 0; x < n; x++) of[x] += row[x];
    }

    void divide(int64_t n) {
        for (int64_t x = 0; x < n; x++) of[x] = (of[x] + 1) / 3;
    }
};

// A voxel without a finite value that 64 bits hold has no level and is not paired.
struct FloatLevels {
    uint64_t of[COUNTED_AT_ONCE];

    template <class T> void add(const T *row, int64_t n, uint8_t *paired) {
        for (int64_t x = 0; x < n; x++) {
            bool is_level = fabs(static_cast<double>(row[x])) < 0x1p63;
            of[x] += static_cast<uint64_t>(is_level ? static_cast<int64_t>(row[x]) : 0);
            paired[x] &= is_level;
        }
    }

    void divide(int64_t n) {
        for (int64_t x = 0; x < n; x++) {
            int64_t level = static_cast<int64_t>(of[x] + 1), rest = level % 3;
            of[x] = static_cast<uint64_t>(level / 3 - (rest < 0));
        }
    }
};

template <class T> struct LevelsOf { using Type = Levels; using Moment = uint64_t; };
template <> struct LevelsOf<float> { using Type = FloatLevels; using Moment = double; };
template <> struct LevelsOf<double> { using Type = FloatLevels; using Moment = double; };

template <class T> struct Block {
    int64_t size, channels, expression_channels;
    const T *image;
    const uint8_t *covered, *expression, *expression_covered, *same_section;

    void count_expression(int64_t begin, int64_t n, int64_t *counts) const {
        const uint8_t *inside = expression_covered + begin, *same = same_section + begin;
        int64_t covered_here = count_of(inside, n);
        if (covered_here == 0) return;
        counts[EXPRESSION_COVERED] += covered_here;
        uint8_t expressing[COUNTED_AT_ONCE] = {}, paired[COUNTED_AT_ONCE];
        for (int64_t e = 0; e < expression_channels; e++) {
            const uint8_t *row = expression + e * size + begin;
            for (int64_t x = 0; x < n; x++) expressing[x] |= row[x];
        }
        for (int64_t x = 0; x < n; x++) {
            expressing[x] = inside[x] & (expressing[x] != 0);
            paired[x] = expressing[x] & same[x];
        }
        counts[EXPRESSING] += count_of(expressing, n);
        if (count_of(paired, n) == 0) return;
        typename LevelsOf<T>::Type levels = {};
        for (int64_t c = 0; c < channels; c++) levels.add(image + c * size + begin, n, paired);
        if (channels == 3) levels.divide(n);
        counts[PAIRED] += count_of(paired, n);
        uint64_t total = 0;
        for (int64_t x = 0; x < n; x++) total += paired[x] ? levels.of[x] : 0;
        counts[GREY] = static_cast<int64_t>(static_cast<uint64_t>(counts[GREY]) + total);
    }

    void add(Run run, int64_t *counts, int64_t *values, typename LevelsOf<T>::Moment *moments) const {
        int64_t n = run.end - run.begin, covered_here = count_of(covered + run.begin, n);
        counts += run.group * COUNTS;
        counts[VOXELS] += n;
        counts[COVERED] += covered_here;
        if (expression_channels > 0)
            for (int64_t begin = run.begin; begin < run.end; begin += COUNTED_AT_ONCE)
                count_expression(begin, min(run.end - begin, COUNTED_AT_ONCE), counts);
        if (covered_here == 0) return;
        for (int64_t c = 0; c < channels; c++) {
            int64_t at = run.group * channels + c;
            add_moments(image + c * size + run.begin, covered + run.begin, n, covered_here, values[at],
                        moments + 2 * at);
        }
    }
};

}  // namespace

#define FIND_RUNS(T, code)                                                                                            \
    EXPORT void block_sums_runs_##code(const T *labels, int64_t rows, int64_t columns, int64_t midline, T *ids,       \
                                       int64_t room, int64_t *table, int64_t slots, int64_t *ends, int64_t *runs,     \
                                       int64_t most, int64_t *state) {                                                \
        find_runs(labels, rows, columns, midline, ids, room, table, slots, ends, reinterpret_cast<Run *>(runs), most, \
                  reinterpret_cast<State *>(state));                                                                  \
    }
FOR_INTEGERS(FIND_RUNS)

#define ADD_RUNS(T, code)                                                                                 \
    EXPORT void block_sums_add_##code(const int64_t *runs, int64_t count, int64_t size, const T *image,   \
                                      int64_t channels, const uint8_t *covered, const uint8_t *expression, \
                                      int64_t expression_channels, const uint8_t *expression_covered,     \
                                      const uint8_t *same_section, int64_t *counts, int64_t *values,      \
                                      LevelsOf<T>::Moment *moments) {                                     \
        const Block<T> block = {size,    channels,   expression_channels, image,                          \
                                covered, expression, expression_covered,  same_section};                  \
        for (int64_t k = 0; k < count; k++, runs += 3)                                                    \
            block.add({runs[0], runs[1], runs[2]}, counts, values, moments);                              \
    }
ADD_RUNS(uint8_t, u1) ADD_RUNS(uint16_t, u2) ADD_RUNS(float, f4) ADD_RUNS(double, f8)
