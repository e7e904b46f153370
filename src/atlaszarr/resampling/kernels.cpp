// The inner loops of 2-D resampling; documented in kernels.py.
#include <string.h>

#include "weights.hpp"

namespace {

// A part of an image, and the size of the whole.
struct Window {
    int64_t left, top, columns, rows, width, height;
};

// Values of integers are rounded half up and clipped.
template <class T> T stored(double value) {
    if constexpr (static_cast<T>(0.5) != 0) {
        return static_cast<T>(value);
    } else {
        constexpr int64_t LEVELS = int64_t{1} << (8 * sizeof(T)), LOW = static_cast<T>(-1) < 0 ? -LEVELS / 2 : 0;
        return static_cast<T>(min(max(floor(value + 0.5), double{LOW}), double{LOW + LEVELS - 1}));
    }
}

// Whether both are neither infinite nor NaN.
template <class X> inline auto finite(X x, X y) { return (x - x == 0.0) & (y - y == 0.0); }

// Whether the pixels for a coordinate all lie beyond an image; its first column and row have the same index.
template <class X>
inline auto beyond(const Span<X> &across, const Span<X> &down, double first, double width, double height) {
    return (across.first >= width) | (down.first >= height) | (across.last < first) | (down.last < first);
}

// The pixels of a span, as offsets from the first one of the window. Return false if one of them is not in the window.
template <int SUPPORT>
bool locate(const Span<double> &span, int64_t start, int64_t count, int64_t n, int64_t border, int64_t stride,
            Line &line) {
    const int64_t first = static_cast<int64_t>(span.first);
    weigh<SUPPORT>(span, line);
    for (int64_t k = 0; k < line.count; k++) {
        const int64_t pixel = border_pixel(first + k, n, border), at = pixel - start;
        if (pixel >= 0 && !(0 <= at && at < count)) return false;
        line.at[k] = pixel < 0 ? -1 : at * stride;
    }
    return true;
}

// CHANNELS is the number of channels, for faster code, or 0.
template <int CHANNELS, class T>
bool copy(const T *pixels, int64_t channels, const double *xy, int64_t count, int64_t border, const T *constant,
          const Window &window, T *out) {
    if (CHANNELS) channels = CHANNELS;
    const double left = window.left, right = left + window.columns, top = window.top, bottom = top + window.rows;
    for (int64_t i = 0; i < count; i++, out += channels) {
        double x = rint(xy[i]), y = rint(xy[count + i]);
        const auto in_window = [&] { return (left <= x) & (x < right) & (top <= y) & (y < bottom); };
        bool sampled = in_window();
        if (!sampled && finite(x, y)) {
            x = border_pixel(static_cast<int64_t>(span<1>(x).first), window.width, border);
            y = border_pixel(static_cast<int64_t>(span<1>(y).first), window.height, border);
            sampled = x >= 0 && y >= 0;
            if (sampled && !in_window()) return false;
        }
        const T *from = constant;
        if (sampled) {
            const int64_t row = static_cast<int64_t>(y - top), column = static_cast<int64_t>(x - left);
            from = pixels + (row * window.columns + column) * channels;
        }
        for (int64_t c = 0; c < channels; c++) out[c] = from[c];
    }
    return true;
}

template <int CHANNELS, int SUPPORT, class T>
bool interpolate(const T *pixels, int64_t channels, const double *xy, int64_t count, int64_t border,
                 const double *constant, const Window &window, T *out) {
    constexpr int GROUP = CHANNELS ? CHANNELS : 1;
    if (CHANNELS) channels = CHANNELS;
    const int64_t stride = window.columns * channels;
    for (int64_t i = 0; i < count; i++, out += channels) {
        const double x = xy[i], y = xy[count + i];
        const Span<double> across = span<SUPPORT>(x), down = span<SUPPORT>(y);
        if (!finite(x, y) || (border == CONSTANT && beyond(across, down, 0.0, window.width, window.height))) {
            for (int64_t c = 0; c < channels; c++) out[c] = static_cast<T>(constant[c]);
            continue;
        }
        if (SUPPORT == 2 && (across.first < across.last) & (down.first < down.last)) {
            // The same as below, three times as fast.
            const int64_t column = static_cast<int64_t>(across.first) - window.left;
            const int64_t row = static_cast<int64_t>(down.first) - window.top;
            if (column >= 0 && row >= 0 && column + 2 <= window.columns && row + 2 <= window.rows) {
                const double u = across.fraction, v = down.fraction;
                const T *north = pixels + row * stride + column * channels, *south = north + stride;
                for (int64_t c = 0; c < channels; c++) {
                    const double upper = (1.0 - u) * north[c] + u * north[channels + c];
                    const double lower = (1.0 - u) * south[c] + u * south[channels + c];
                    out[c] = stored<T>((1.0 - v) * upper + v * lower);
                }
                continue;
            }
        }
        Line columns, rows;
        if (!locate<SUPPORT>(across, window.left, window.columns, window.width, border, channels, columns) ||
            !locate<SUPPORT>(down, window.top, window.rows, window.height, border, stride, rows))
            return false;
        for (int64_t c = 0; c < channels; c += GROUP) {
            double values[GROUP];
            weighted<GROUP, true>(pixels + c, rows, columns, constant + c, values);
            for (int k = 0; k < GROUP; k++) out[c + k] = stored<T>(values[k]);
        }
    }
    return true;
}

// The extent of the pixels that are needed.
template <int SUPPORT>
void extent(const double *xy, int64_t count, int64_t width, int64_t height, bool bounded, int64_t *needed) {
    const double start = bounded ? 0.0 : -INFINITY, right = bounded ? width : INFINITY;
    const double bottom = bounded ? height : INFINITY;
    // Largest values of -column, column, -row and row.
    Lanes most[4];
    for (Lanes &lanes : most) lanes = Lanes{} - 2 * MAX_COORDINATE;
    const auto add = [&](Lanes x, Lanes y) {
        const Span<Lanes> across = span<SUPPORT>(x), down = span<SUPPORT>(y);
        const auto counted = finite(x, y) & ~beyond(across, down, start, right, bottom);
        const Lanes ends[4] = {-across.first, across.last, -down.first, down.last};
        for (int k = 0; k < 4; k++) most[k] = counted ? max(most[k], ends[k]) : most[k];
    };
    Lanes x, y;
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        memcpy(&x, xy + i, sizeof x);
        memcpy(&y, xy + count + i, sizeof y);
        add(x, y);
    }
    for (; i < count; i++) add(Lanes{} + xy[i], Lanes{} + xy[count + i]);
    for (int k = 0; k < 4; k++) {
        double end = most[k][0];
        for (int lane = 1; lane < LANES; lane++) end = max(end, most[k][lane]);
        needed[k] = static_cast<int64_t>(k % 2 ? end : -end);
    }
}

}  // namespace

EXPORT void resampling_extent(const double *xy, int64_t count, int64_t support, int64_t width, int64_t height,
                              bool bounded, int64_t *needed) {
    const auto kernel = support == 1 ? extent<1> : support == 2 ? extent<2> : support == 4 ? extent<4> : extent<8>;
    kernel(xy, count, width, height, bounded, needed);
}

EXPORT void resampling_border_range(int64_t first, int64_t last, int64_t n, int64_t border, int64_t *pixels) {
    const Pixels found = border_range(first, last, n, border);
    pixels[0] = found.first;
    pixels[1] = found.last;
}

#define COPY(T, code) \
    EXPORT bool resampling_copy_##code(const T *pixels, int64_t rows, int64_t columns, int64_t channels, \
                                       const double *xy, int64_t count, int64_t border, const T *constant, \
                                       int64_t left, int64_t top, int64_t width, int64_t height, T *out) { \
        const auto kernel = channels == 1 ? copy<1, T> : channels == 3 ? copy<3, T> : copy<0, T>; \
        return kernel(pixels, channels, xy, count, border, constant, {left, top, columns, rows, width, height}, out); \
    }
COPY(uint8_t, u1) COPY(uint16_t, u2) COPY(uint32_t, u4) COPY(uint64_t, u8)

#define BY_CHANNELS(SUPPORT, T) \
    channels == 1 ? interpolate<1, SUPPORT, T> : channels == 3 ? interpolate<3, SUPPORT, T> : interpolate<0, SUPPORT, T>
#define INTERPOLATE(T, code) \
    EXPORT bool resampling_interpolate_##code(const T *pixels, int64_t rows, int64_t columns, int64_t channels, \
                                              const double *xy, int64_t count, int64_t support, int64_t border, \
                                              const double *constant, int64_t left, int64_t top, int64_t width, \
                                              int64_t height, T *out) { \
        const auto kernel = support == 2 ? BY_CHANNELS(2, T) : support == 4 ? BY_CHANNELS(4, T) : BY_CHANNELS(8, T); \
        return kernel(pixels, channels, xy, count, border, constant, {left, top, columns, rows, width, height}, out); \
    }
INTERPOLATE(uint8_t, u1) INTERPOLATE(int8_t, i1) INTERPOLATE(uint16_t, u2) INTERPOLATE(int16_t, i2)
INTERPOLATE(float, f4) INTERPOLATE(double, f8)
