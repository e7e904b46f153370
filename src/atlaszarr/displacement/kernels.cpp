// The inner loops of displacement fields; documented in kernels.py.
#include "../native/arrays.hpp"

namespace {

// Tolerance of Newton's method in pixels; rounding errors at 10^5 pixels are of this order.
constexpr double TOLERANCE = 1e-10;
constexpr int MAX_STEPS = 50;
// A step that does not reduce the distance is halved, down to this fraction.
constexpr double MIN_FRACTION = 1.0 / 64;

struct Cell {
    int64_t pixel;
    double share;
};

struct Point {
    double x, y;
};

// The pixel before a coordinate and the distance from it, which is in [0, 1] inside the grid.
Cell cell(double x, int64_t n) {
    if (n == 1) return {0, 0.0};
    double pixel = min(max(floor(x), 0.0), n - 2.0);
    return {static_cast<int64_t>(pixel), x - pixel};
}

// Interpolate from a to b; at either end exactly that value, even if the other is NaN.
double mix(double a, double b, double share) {
    if (share == 0.0) return a;
    if (share == 1.0) return b;
    return (1.0 - share) * a + share * b;
}

double bilinear(Array<const double, 2> values, int64_t row, int64_t column, double u, double v) {
    int64_t east = min(column + 1, values.shape[1] - 1), south = min(row + 1, values.shape[0] - 1);
    double upper = mix(values(row, column), values(row, east), u);
    double lower = mix(values(south, column), values(south, east), u);
    return mix(upper, lower, v);
}

// A grid of displacements, and the distance of its points from a pixel of the image.
struct Grid {
    Array<const double, 3> values;

    // The distance (X, Y) of a mapped point of the grid from a pixel of the image.
    Point miss(Point at, Point to) const {
        if (!(__builtin_isfinite(at.x) && __builtin_isfinite(at.y))) return {NAN, NAN};
        Cell column = cell(at.x, values.shape[2]), row = cell(at.y, values.shape[1]);
        return {at.x + bilinear(values[0], row.pixel, column.pixel, column.share, row.share) - to.x,
                at.y + bilinear(values[1], row.pixel, column.pixel, column.share, row.share) - to.y};
    }

    // The derivatives of a coordinate (0 X, 1 Y) of the displacement along x and along y.
    Point slope(int c, Point at) const {
        Cell column = cell(at.x, values.shape[2]), row = cell(at.y, values.shape[1]);
        int64_t east = min(column.pixel + 1, values.shape[2] - 1), south = min(row.pixel + 1, values.shape[1] - 1);
        double nw = values(c, row.pixel, column.pixel), ne = values(c, row.pixel, east);
        double sw = values(c, south, column.pixel), se = values(c, south, east);
        return {mix(ne - nw, se - sw, row.share), mix(sw - nw, se - ne, column.share)};
    }

    Point solve(Point at, Point to) const {
        Point missed = miss(at, to);
        if (!(__builtin_isfinite(missed.x) && __builtin_isfinite(missed.y))) return {NAN, NAN};
        for (int n = 0; n < MAX_STEPS; n++) {
            double distance = hypot(missed.x, missed.y);
            if (distance < TOLERANCE) break;
            Point first = slope(0, at), second = slope(1, at);
            double a = 1.0 + first.x, b = first.y, c = second.x, d = 1.0 + second.y;
            double determinant = a * d - b * c;
            if (!(fabs(determinant) > 0)) break;
            Point step = {(d * missed.x - b * missed.y) / determinant, (a * missed.y - c * missed.x) / determinant};
            Point next = {NAN, NAN};
            double share = 1.0;
            for (; share >= MIN_FRACTION; share /= 2) {
                next = miss({at.x - share * step.x, at.y - share * step.y}, to);
                if (hypot(next.x, next.y) < distance) break;
            }
            if (share < MIN_FRACTION) break;
            at = {at.x - share * step.x, at.y - share * step.y};
            missed = next;
        }
        return at;
    }
};

}  // namespace

EXPORT void displacement_interpolate(const double *values, int64_t rows, int64_t columns, int64_t top, int64_t left,
                                     int64_t height, int64_t width, const double *points, int64_t count,
                                     double *mapped) {
    Array<const double, 3> grid = {values, {2, rows, columns}};
    for (int64_t i = 0; i < count; i++) {
        double x = points[i], y = points[count + i];
        if (!(__builtin_isfinite(x) && __builtin_isfinite(y))) {
            mapped[i] = mapped[count + i] = NAN;
            continue;
        }
        Cell column = cell(x, width), row = cell(y, height);
        for (int c = 0; c < 2; c++)
            mapped[c * count + i] = points[c * count + i] + bilinear(grid[c], row.pixel - top, column.pixel - left,
                                                                     column.share, row.share);
    }
}

EXPORT void displacement_invert(const double *values, int64_t height, int64_t width, const double *guess,
                                int64_t rows, int64_t columns, double *mapped) {
    Grid grid = {{values, {2, height, width}}};
    for (int64_t i = 0; i < rows; i++) {
        Point at = {NAN, NAN};
        for (int64_t j = 0; j < columns; j++) {
            Point to = {static_cast<double>(j), static_cast<double>(i)};
            Point start = {guess[0] * j + (guess[1] * i + guess[2]), guess[3] * j + (guess[4] * i + guess[5])};
            Point continued = {at.x + guess[0], at.y + guess[3]};
            Point near = grid.miss(continued, to), far = grid.miss(start, to);
            if (hypot(near.x, near.y) < hypot(far.x, far.y)) start = continued;
            at = grid.solve(start, to);
            mapped[i * columns + j] = at.x;
            mapped[(rows + i) * columns + j] = at.y;
        }
    }
}
