// Runs of one label in a row, and where a hash table of labels starts to look for one.
#pragma once

#include "../native/arrays.hpp"

#include <string.h>

// 2**64 divided by the golden ratio, odd: spreads neighbouring labels over the table (Knuth, TAOCP 3, 6.4).
constexpr uint64_t SPREAD = 0x9E3779B97F4A7C15;

// The first slot to look for a label in, of a table whose number of slots is a power of two.
template <class T> inline int64_t first_slot(T label, int64_t slots) {
    return static_cast<int64_t>((static_cast<uint64_t>(label) * SPREAD) >> 32) & (slots - 1);
}

// Write the end of each run of one label in a row of n > 0 labels; return the number of runs. `ends` has room for n.
template <class T> inline int64_t runs_of(const T *row, int64_t n, int64_t *ends) {
    constexpr int lanes = 16;
    using Labels = T __attribute__((vector_size(lanes * sizeof(T))));
    using Bits = bool __attribute__((ext_vector_type(lanes)));
    int64_t runs = 0, x = 1;
    for (; x < n && n > lanes; x += lanes) {  // compare a number of labels at once with those before them
        const int64_t start = min(x, n - lanes);
        Labels before, labels;
        memcpy(&before, row + start - 1, sizeof before);
        memcpy(&labels, row + start, sizeof labels);
        const Bits differ = __builtin_convertvector(labels != before, Bits);
        uint16_t bits;
        memcpy(&bits, &differ, sizeof bits);
        for (bits >>= x - start; bits; bits &= bits - 1) ends[runs++] = x + __builtin_ctz(bits);
    }
    for (; x < n; x++) {
        ends[runs] = x;  // without a branch, which would be mispredicted at most ends
        runs += row[x] != row[x - 1];
    }
    ends[runs] = n;
    return runs + 1;
}
