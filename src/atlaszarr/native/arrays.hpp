// Arrays as the kernels see them: C-contiguous, of a fixed number of axes, indexed from 0 and not checked.
#pragma once

#include <math.h>
#include <stdint.h>

#if defined(_WIN32)
#define EXPORT extern "C" __declspec(dllexport)
#else
#define EXPORT extern "C" __attribute__((visibility("default")))
#endif

// Define a function for each dtype: M(type, code), where the code is that of numpy.dtype.str.
#define FOR_INTEGERS(M) \
    M(uint8_t, u1) M(int8_t, i1) M(uint16_t, u2) M(int16_t, i2) M(uint32_t, u4) M(int32_t, i4) M(uint64_t, u8) \
    M(int64_t, i8)
#define FOR_NUMBERS(M) FOR_INTEGERS(M) M(float, f4) M(double, f8)

template <class T, int N> struct Array {
    T *data;
    int64_t shape[N];

    // The part at an index of the first axis.
    Array<T, N - 1> operator[](int64_t i) const {
        Array<T, N - 1> part;
        int64_t size = 1;
        for (int k = 1; k < N; k++) {
            part.shape[k - 1] = shape[k];
            size *= shape[k];
        }
        part.data = data + i * size;
        return part;
    }

    template <class... I> T &operator()(I... index) const {
        static_assert(sizeof...(I) == N);
        const int64_t at[N] = {static_cast<int64_t>(index)...};
        int64_t offset = 0;
        for (int k = 0; k < N; k++) offset = offset * shape[k] + at[k];
        return data[offset];
    }
};

template <class T> struct Array<T, 1> {
    T *data;
    int64_t shape[1];

    T &operator[](int64_t i) const { return data[i]; }
    T &operator()(int64_t i) const { return data[i]; }
};

// As Python's: the first of equal values, also of two of which one is NaN.
template <class T> inline T min(T a, T b) { return b < a ? b : a; }
template <class T> inline T max(T a, T b) { return b > a ? b : a; }
