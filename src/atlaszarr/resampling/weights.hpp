// Interpolation along one axis: the pixels that are used, their weights, and the pixels beyond a border.
// The definitions are in weights.py.
#pragma once
#include "../native/arrays.hpp"

// The numbers of BORDERS in weights.py.
enum Border : int64_t { CONSTANT, REPLICATE, REFLECT, REFLECT_101, WRAP };

// The widest support: Lanczos.
constexpr int WIDEST = 8;
// Coordinates are clipped to this absolute value, a whole number that int64 holds.
constexpr double MAX_COORDINATE = 0x1p60;

// Several coordinates at a time, for instructions on vectors. All functions that take them are inlined, so that it does
// not matter how a processor passes them.
#pragma clang diagnostic ignored "-Wpsabi"
constexpr int LANES = 4;
typedef double Lanes __attribute__((vector_size(LANES * sizeof(double))));

// The pixels first, ..., last along an axis that a coordinate is interpolated from, and the distance of the coordinate
// from the pixel before it, in [0, 1). Pixels are whole numbers in float64, which holds them all. X is double or Lanes.
template <class X> struct Span {
    X first, last, fraction;
};

// Offsets of pixels along an axis, -1 for the constant, and their weights.
struct Line {
    int64_t at[WIDEST], count;
    double weight[WIDEST];
};

// The pixel nearest to a coordinate, the even one of two equally near, as in OpenCV's remap. It is in the image, for a
// coordinate inside the image: 0 <= pixel < n if -1/2 <= x < n - 1/2.
inline int64_t nearest_pixel(double x) { return static_cast<int64_t>(rint(x)); }

// The pixels for a finite coordinate; only one if it is at the centre of a pixel, so that no pixel has the weight 0.
template <int SUPPORT, class X> inline Span<X> span(X x) {
    // For a smaller fraction, OpenCV uses only the middle pixel of Lanczos: the epsilon of float32.
    constexpr double ON_PIXEL = 0x1p-23;
    const X none = {};
    x = min(max(x, none - MAX_COORDINATE), none + MAX_COORDINATE);
    if constexpr (SUPPORT == 1) {
        const X pixel = __builtin_elementwise_rint(x);
        return {pixel, pixel, none};
    } else {
        const X before = __builtin_elementwise_floor(x), fraction = x - before;
        // The coordinate is slightly below a whole number: the fraction, or a distance in `weigh`, is rounded to it.
        const auto below = SUPPORT == 8 ? fraction + 3.0 >= 4.0 : fraction >= 1.0;
        const auto on_pixel = below | (SUPPORT == 8 ? fraction < ON_PIXEL : fraction == 0.0);
        const X column = below ? before + 1.0 : before;
        return {on_pixel ? column : column - (SUPPORT / 2 - 1.0), on_pixel ? column : column + SUPPORT / 2.0,
                on_pixel ? none : fraction};
    }
}

// The weights of the pixels of a span, in order; they sum to 1.
// Cubic: R. Keys, Cubic convolution interpolation for digital image processing, 1981, with a = -3/4, as in OpenCV.
// Lanczos: sinc(t) sinc(t / 4) at t = fraction + 3 - k, divided by the sum. sin(pi t) differs only in sign between the
// k, and sin(pi t / 4) follows from one sine and one cosine by the addition theorem.
template <int SUPPORT> inline void weigh(const Span<double> &span, Line &line) {
    constexpr double A = -0.75, PI = 3.141592653589793;
    // sin(k pi / 4) and cos(k pi / 4) in float64, of k pi / 4 in float64.
    constexpr double SIN[8] = {0.0, 0.7071067811865475, 1.0, 0.7071067811865476,
                               1.2246467991473532e-16, -0.7071067811865475, -1.0, -0.7071067811865477};
    constexpr double COS[8] = {1.0, 0.7071067811865476, 6.123233995736766e-17, -0.7071067811865475,
                               -1.0, -0.7071067811865477, -1.8369701987210297e-16, 0.7071067811865474};
    const double u = span.fraction;
    double *weights = line.weight;
    line.count = span.first == span.last ? 1 : SUPPORT;
    if (line.count == 1) {
        weights[0] = 1.0;
    } else if constexpr (SUPPORT == 2) {
        weights[0] = 1.0 - u;
        weights[1] = u;
    } else if constexpr (SUPPORT == 4) {
        weights[0] = ((A * (u + 1) - 5 * A) * (u + 1) + 8 * A) * (u + 1) - 4 * A;
        weights[1] = ((A + 2) * u - (A + 3)) * u * u + 1;
        weights[2] = ((A + 2) * (1 - u) - (A + 3)) * (1 - u) * (1 - u) + 1;
        weights[3] = 1 - weights[0] - weights[1] - weights[2];
    } else {
        const double angle = (u + 3) * PI / 4, sine = sin(angle), cosine = cos(angle);
        double total = 0.0;
        for (int k = 0; k < 8; k++) {
            const double t = u + 3 - k, weight = (sine * COS[k] - cosine * SIN[k]) / (t * t);
            weights[k] = k % 2 ? -weight : weight;
            total += weights[k];
        }
        for (int k = 0; k < 8; k++) weights[k] /= total;
    }
}

// The weighted sum of pixels for each of some channels, first along x, then along y.
template <int CHANNELS, bool CONSTANTS, class T>
inline void weighted(const T *pixels, const Line &rows, const Line &columns, const double *constant, double *values) {
    for (int c = 0; c < CHANNELS; c++) values[c] = 0.0;
    for (int64_t k = 0; k < rows.count; k++) {
        double line[CHANNELS] = {};
        for (int64_t m = 0; m < columns.count; m++) {
            if (CONSTANTS && (rows.at[k] < 0 || columns.at[m] < 0)) {
                for (int c = 0; c < CHANNELS; c++) line[c] += columns.weight[m] * constant[c];
            } else {
                const T *at = pixels + rows.at[k] + columns.at[m];
                for (int c = 0; c < CHANNELS; c++) line[c] += columns.weight[m] * static_cast<double>(at[c]);
            }
        }
        for (int c = 0; c < CHANNELS; c++) values[c] += rows.weight[k] * line[c];
    }
}

// The number of pixels after which those of an image of n pixels repeat, beyond a border that reflects or wraps.
inline int64_t border_period(int64_t n, int64_t border) {
    return border == WRAP ? n : border == REFLECT ? 2 * n : 2 * n - 2;
}

// Python's i % n.
inline int64_t modulo(int64_t i, int64_t n) {
    int64_t rest = i % n;
    return rest < 0 ? rest + n : rest;
}

// The pixel of 0, ..., n - 1 that replaces pixel i beyond a border; -1 for the constant.
// As in OpenCV, for a row abcdef: replicate aaa|abcdef|fff, reflect cba|abcdef|fed, reflect_101 dcb|abcdef|edc, wrap
// def|abcdef|abc.
inline int64_t border_pixel(int64_t i, int64_t n, int64_t border) {
    if (0 <= i && i < n) return i;
    if (border == CONSTANT) return -1;
    if (n <= 1) return 0;
    if (border == REPLICATE) return i < 0 ? 0 : n - 1;
    const int64_t period = border_period(n, border);
    i = modulo(i, period);
    if (i < n) return i;
    return border == REFLECT ? period - 1 - i : period - i;
}

struct Pixels {
    int64_t first, last;
};

// The first and the last pixel that replace those of a range; {0, -1} if the constant replaces all.
inline Pixels border_range(int64_t first, int64_t last, int64_t n, int64_t border) {
    if (border == CONSTANT && (last < 0 || first >= n)) return {0, -1};
    if (border == CONSTANT || border == REPLICATE || n <= 1)
        return {min(max(first, int64_t{0}), n - 1), min(max(last, int64_t{0}), n - 1)};
    const int64_t a = border_pixel(first, n, border), b = border_pixel(last, n, border);
    Pixels found = {min(a, b), max(a, b)};
    // Pixels are in order between repetitions of the pixels 0 and n - 1.
    const int64_t period = border_period(n, border);
    if (last - modulo(last, period) >= first) found.first = 0;
    if (last - modulo(last - (n - 1), period) >= first) found.last = n - 1;
    return found;
}
