// The indices of structures of labels, and the boxes of indices; documented in structure_index.py.
#include "../engine/runs.hpp"

namespace {

// The index for no structure; larger than all others.
constexpr uint16_t NOTHING = UINT16_MAX;
// A power of two: a chunk of the Allen annotation holds at most 79 labels.
constexpr int64_t SLOTS = 256;

struct Order {
    const uint64_t *values;
    const uint16_t *indices;
    int64_t count;

    // The index of a value, by bisection.
    uint16_t of(uint64_t value) const {
        int64_t low = 0, high = count;
        while (low < high) {
            int64_t middle = (low + high) / 2;
            if (values[middle] < value)
                low = middle + 1;
            else
                high = middle;
        }
        return low < count && values[low] == value ? indices[low] : NOTHING;
    }
};

template <class T>
void look_up(const T *labels, int64_t size, Order order, uint16_t *__restrict indices, bool *__restrict present) {
    // The label that was looked up last in each slot: labels return from row to row.
    T known[SLOTS] = {};
    uint16_t of_known[SLOTS];
    for (uint16_t &index : of_known) index = NOTHING;
    T last = 0;
    uint16_t index = NOTHING;
    for (int64_t k = 0; k < size; k++) {
        if (labels[k] != last) {
            last = labels[k];
            int64_t slot = first_slot(last, SLOTS);
            if (known[slot] != last) {
                known[slot] = last;
                of_known[slot] = last > 0 ? order.of(static_cast<uint64_t>(last)) : NOTHING;
                if (of_known[slot] != NOTHING) present[of_known[slot]] = true;
            }
            index = of_known[slot];
        }
        indices[k] = index;
    }
}

}  // namespace

#define LOOK_UP(T, code)                                                                                       \
    EXPORT void structure_index_look_up_##code(const T *labels, int64_t size, const uint64_t *values,          \
                                               const uint16_t *of_values, int64_t count, uint16_t *indices,    \
                                               bool *present) {                                                \
        look_up(labels, size, Order{values, of_values, count}, indices, present);                              \
    }
FOR_INTEGERS(LOOK_UP)

EXPORT void structure_index_extents(const uint16_t *indices, int64_t nz, int64_t ny, int64_t nx, int64_t count,
                                    int64_t *extents) {
    for (int64_t z = 0; z < nz; z++)
        for (int64_t y = 0; y < ny; y++, indices += nx)
            for (int64_t x = 0, end; x < nx; x = end) {
                for (end = x + 1; end < nx && indices[end] == indices[x];) end++;
                if (indices[x] >= count) continue;
                const int64_t first[3] = {z, y, x}, last[3] = {z, y, end - 1};
                int64_t *row = extents + 7 * indices[x];
                row[0] += end - x;
                for (int k = 0; k < 3; k++) {
                    row[1 + k] = min(row[1 + k], first[k]);
                    row[4 + k] = max(row[4 + k], last[k]);
                }
            }
}
