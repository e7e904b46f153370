// Rows of the phantom brain; documented in phantom_kernels.py.
#include "../native/arrays.hpp"

namespace {

constexpr int CHANNELS = 3;

struct Pixels {
    int64_t first, stop;
};

// A row of pixels: its origin and the step from one pixel to the next, in um along (p, i, r).
struct Row {
    double origin[3], step[3];

    Row(const double *pixel_to_pir, int64_t y) {
        for (int k = 0; k < 3; k++) {
            step[k] = pixel_to_pir[3 * k];
            origin[k] = pixel_to_pir[3 * k + 1] * static_cast<double>(y) + pixel_to_pir[3 * k + 2];
        }
    }

    // (distance / semi-axes)^2 of pixel x: at most 1 inside the ellipsoid, which is its centre and its semi-axes.
    double squared_radius(int64_t x, const double *ellipsoid) const {
        double total = 0.0;
        for (int k = 0; k < 3; k++) {
            double u = (origin[k] + static_cast<double>(x) * step[k] - ellipsoid[k]) / ellipsoid[3 + k];
            total += u * u;
        }
        return total;
    }

    // The pixels inside the ellipsoid.
    Pixels inside(const double *ellipsoid, int64_t width) const {
        double a = 0.0, b = 0.0, c = -1.0;
        for (int k = 0; k < 3; k++) {
            double u = (origin[k] - ellipsoid[k]) / ellipsoid[3 + k], du = step[k] / ellipsoid[3 + k];
            a += du * du;
            b += u * du;
            c += u * u;
        }
        double discriminant = b * b - a * c;
        if (a == 0.0 || discriminant < 0.0) return {0, a == 0.0 && c <= 0.0 ? width : 0};
        double root = sqrt(discriminant);
        int64_t first = clipped(floor((-b - root) / a) - 1.0, width);
        int64_t stop = clipped(ceil((-b + root) / a) + 2.0, width);
        while (first < stop && squared_radius(first, ellipsoid) > 1.0) first++;
        while (stop > first && squared_radius(stop - 1, ellipsoid) > 1.0) stop--;
        return {first, stop};
    }

    // A coordinate as a pixel of the row or its end; NaN as 0.
    static int64_t clipped(double x, int64_t width) {
        if (!(x > 0.0)) return 0;
        return x < static_cast<double>(width) ? static_cast<int64_t>(x) : width;
    }
};

}  // namespace

EXPORT void phantom_tissue(double *out, int64_t rows, int64_t width, const double *pixel_to_pir, int64_t first_row,
                           const double *brain, const double *regions, int64_t region_count, const double *shifts,
                           const double *background, const double *base, const double *waves, int64_t wave_count) {
    for (int64_t y = 0; y < rows; y++) {
        Row row(pixel_to_pir, first_row + y);
        double *pixels = out + y * width * CHANNELS;
        for (int64_t x = 0; x < width; x++)
            for (int c = 0; c < CHANNELS; c++) pixels[CHANNELS * x + c] = background[c];
        Pixels tissue = row.inside(brain, width);
        if (tissue.first == tissue.stop) continue;
        for (int64_t x = tissue.first; x < tissue.stop; x++)
            for (int c = 0; c < CHANNELS; c++) pixels[CHANNELS * x + c] = base[c];
        for (int64_t w = 0; w < wave_count; w++) {
            double sine[CHANNELS], cosine[CHANNELS], turn_sine[CHANNELS], turn_cosine[CHANNELS];
            for (int c = 0; c < CHANNELS; c++) {
                const double *wave = waves + (c * wave_count + w) * 5, *k = wave + 1;
                double turn = k[0] * row.step[0] + k[1] * row.step[1] + k[2] * row.step[2];
                double angle = k[0] * row.origin[0] + k[1] * row.origin[1] + k[2] * row.origin[2] + wave[4] +
                               static_cast<double>(tissue.first) * turn;
                sine[c] = wave[0] * sin(angle), cosine[c] = wave[0] * cos(angle);
                turn_sine[c] = sin(turn), turn_cosine[c] = cos(turn);
            }
            for (int64_t x = tissue.first; x < tissue.stop; x++)
                for (int c = 0; c < CHANNELS; c++) {
                    pixels[CHANNELS * x + c] += sine[c];
                    double next = sine[c] * turn_cosine[c] + cosine[c] * turn_sine[c];
                    cosine[c] = cosine[c] * turn_cosine[c] - sine[c] * turn_sine[c];
                    sine[c] = next;
                }
        }
        for (int64_t n = 0; n < region_count; n++) {
            Pixels region = row.inside(regions + 6 * n, width);
            for (int64_t x = region.first; x < region.stop; x++)
                for (int c = 0; c < CHANNELS; c++) pixels[CHANNELS * x + c] += shifts[CHANNELS * n + c];
        }
    }
}

EXPORT void phantom_expression(double *out, int64_t rows, int64_t width, const double *pixel_to_pir, int64_t first_row,
                               const double *regions, int64_t region_count, const double *levels) {
    for (int64_t y = 0; y < rows; y++) {
        Row row(pixel_to_pir, first_row + y);
        double *pixels = out + y * width * CHANNELS;
        for (int64_t k = 0; k < width * CHANNELS; k++) pixels[k] = 0.0;
        for (int64_t n = 0; n < region_count; n++) {
            if (levels[n] == 0.0) continue;
            const double *ellipsoid = regions + 6 * n;
            Pixels region = row.inside(ellipsoid, width);
            for (int64_t x = region.first; x < region.stop; x++) {
                double heat = levels[n] * (1.0 - row.squared_radius(x, ellipsoid));
                pixels[CHANNELS * x] = 255.0 * heat * (2.0 - heat);
                pixels[CHANNELS * x + 1] = 255.0 * heat * heat;
                pixels[CHANNELS * x + 2] = 160.0 * heat * (1.0 - heat);
            }
        }
    }
}
