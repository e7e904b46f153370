// The inner loops of 2-D resampling; documented in kernels.py.
#include "weights.hpp"

namespace {

// A part of an image, and the size of the whole.
struct Window {
    int64_t left, top, columns, rows, width, height;
};

bool finite(double x, double y) { return isfinite(x) & isfinite(y); }

// Values of integers are rounded half up and clipped.
template <class T> T stored(double value) {
    if constexpr (static_cast<T>(0.5) != 0) {
        return static_cast<T>(value);
    } else {
        constexpr int64_t LEVELS = int64_t{1} << (8 * sizeof(T)), LOW = static_cast<T>(-1) < 0 ? -LEVELS / 2 : 0;
        return static_cast<T>(min(max(floor(value + 0.5), double{LOW}), double{LOW + LEVELS - 1}));
    }
}

// Offsets of the pixels of a span from the first one of the window. Return false if one of them is not in the window.
bool locate(const Span &span, int64_t start, int64_t count, int64_t n, int64_t border, int64_t stride, Line &line) {
    line.count = span.count;
    for (int64_t k = 0; k < span.count; k++) {
        int64_t pixel = border_pixel(span.first + k, n, border), at = pixel - start;
        if (pixel >= 0 && !(0 <= at && at < count)) return false;
        line.at[k] = pixel < 0 ? -1 : at * stride;
    }
    weights_of(span, line.weight);
    return true;
}

template <int CHANNELS, class T>
bool copy(const T *pixels, int64_t channels, const double *xy, int64_t count, int64_t border, const T *constant,
          const Window &window, T *out) {
    if (CHANNELS) channels = CHANNELS;
    for (int64_t i = 0; i < count; i++, out += channels) {
        const double x = xy[i], y = xy[count + i];
        const T *from = constant;
        if (finite(x, y)) {
            int64_t column = border_pixel(span(x, 1).first, window.width, border);
            int64_t row = border_pixel(span(y, 1).first, window.height, border);
            if (column >= 0 && row >= 0) {
                column -= window.left;
                row -= window.top;
                if (!(0 <= column && column < window.columns && 0 <= row && row < window.rows)) return false;
                from = pixels + (row * window.columns + column) * channels;
            }
        }
        for (int64_t c = 0; c < channels; c++) out[c] = from[c];
    }
    return true;
}

template <class T>
bool interpolate(const T *pixels, int64_t channels, const double *xy, int64_t count, int64_t support, int64_t border,
                 const double *constant, const Window &window, T *out) {
    const int64_t stride = window.columns * channels;
    for (int64_t i = 0; i < count; i++, out += channels) {
        const double x = xy[i], y = xy[count + i];
        Span across = {}, down = {};
        bool missing = !finite(x, y);
        if (!missing) {
            across = span(x, support);
            down = span(y, support);
            missing = border == CONSTANT && (across.first >= window.width || down.first >= window.height ||
                                             across.first + across.count <= 0 || down.first + down.count <= 0);
        }
        if (missing) {
            for (int64_t c = 0; c < channels; c++) out[c] = static_cast<T>(constant[c]);
            continue;
        }
        const int64_t column = across.first - window.left, row = down.first - window.top;
        if (across.count == 2 && down.count == 2 && column >= 0 && row >= 0 && column + 2 <= window.columns &&
            row + 2 <= window.rows) {
            // The same as below, three times as fast.
            const double u = across.fraction, v = down.fraction;
            const T *north = pixels + row * stride + column * channels, *south = north + stride;
            for (int64_t c = 0; c < channels; c++) {
                double upper = (1.0 - u) * north[c] + u * north[channels + c];
                double lower = (1.0 - u) * south[c] + u * south[channels + c];
                out[c] = stored<T>((1.0 - v) * upper + v * lower);
            }
            continue;
        }
        Line columns, rows;
        if (!locate(across, window.left, window.columns, window.width, border, channels, columns)) return false;
        if (!locate(down, window.top, window.rows, window.height, border, stride, rows)) return false;
        for (int64_t c = 0; c < channels; c++)
            out[c] = stored<T>(weighted<true>(pixels + c, rows, columns, constant[c]));
    }
    return true;
}

}  // namespace

EXPORT void resampling_extent(const double *xy, int64_t count, int64_t support, int64_t width, int64_t height,
                              bool bounded, int64_t *needed) {
    Pixels columns = {INT64_MAX, INT64_MIN}, rows = columns;
    for (int64_t i = 0; i < count; i++) {
        const double x = xy[i], y = xy[count + i];
        if (!finite(x, y)) continue;
        const Span across = span(x, support), down = span(y, support);
        if (bounded && (across.first >= width || across.first + across.count <= 0 || down.first >= height ||
                        down.first + down.count <= 0))
            continue;
        columns = {min(columns.first, across.first), max(columns.last, across.first + across.count - 1)};
        rows = {min(rows.first, down.first), max(rows.last, down.first + down.count - 1)};
    }
    needed[0] = columns.first;
    needed[1] = columns.last;
    needed[2] = rows.first;
    needed[3] = rows.last;
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
        const Window window = {left, top, columns, rows, width, height}; \
        const auto kernel = channels == 1 ? copy<1, T> : channels == 3 ? copy<3, T> : copy<0, T>; \
        return kernel(pixels, channels, xy, count, border, constant, window, out); \
    }
COPY(uint8_t, u1) COPY(uint16_t, u2) COPY(uint32_t, u4) COPY(uint64_t, u8)

#define INTERPOLATE(T, code) \
    EXPORT bool resampling_interpolate_##code(const T *pixels, int64_t rows, int64_t columns, int64_t channels, \
                                              const double *xy, int64_t count, int64_t support, int64_t border, \
                                              const double *constant, int64_t left, int64_t top, int64_t width, \
                                              int64_t height, T *out) { \
        return interpolate(pixels, channels, xy, count, support, border, constant, \
                           {left, top, columns, rows, width, height}, out); \
    }
INTERPOLATE(uint8_t, u1) INTERPOLATE(int8_t, i1) INTERPOLATE(uint16_t, u2) INTERPOLATE(int16_t, i2)
INTERPOLATE(float, f4) INTERPOLATE(double, f8)
