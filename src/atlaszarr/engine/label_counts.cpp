// Count the voxels of each label; documented in label_counts.py.
#include "runs.hpp"

namespace {

// Whether all rows are counted: if not, the table is half full. `at` is where to resume: 2 * row + side of the midline,
// and the column on that side.
template <class T>
bool count(const T *rows, int64_t height, int64_t width, int64_t midline, int64_t *ends, T *labels, int64_t *counts,
           int64_t slots, int64_t *at) {
    int64_t held = 0;
    for (int64_t part = at[0], before = at[1]; part < 2 * height; part++, before = 0) {
        const int64_t side = part % 2, columns = side ? width - midline : midline;
        if (before == columns) continue;
        const T *row = rows + part / 2 * width + (side ? midline : 0);
        // First find the runs, then look them up: a single loop takes three times as long.
        const int64_t runs = runs_of(row + before, columns - before, ends), start = before;
        for (int64_t run = 0; run < runs; run++) {
            const T label = row[before];
            int64_t slot = first_slot(label, slots);
            while (labels[slot] != label && counts[2 * slot] + counts[2 * slot + 1] > 0)
                slot = (slot + 1) & (slots - 1);
            if (counts[2 * slot] + counts[2 * slot + 1] == 0) {
                if (2 * held == slots) {
                    at[0] = part;
                    at[1] = before;
                    return false;
                }
                held++;
                labels[slot] = label;
            }
            counts[2 * slot + side] += start + ends[run] - before;
            before = start + ends[run];
        }
    }
    return true;
}

}  // namespace

#define COUNT(T, code) \
    EXPORT bool label_counts_##code(const T *rows, int64_t height, int64_t width, int64_t midline, int64_t *ends, \
                                    T *labels, int64_t *counts, int64_t slots, int64_t *at) { \
        return count(rows, height, width, midline, ends, labels, counts, slots, at); \
    }
FOR_INTEGERS(COUNT)
