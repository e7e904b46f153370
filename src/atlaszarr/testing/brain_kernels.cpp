// The brain-like phantom: the structure at a point, and its grey level there. Documented in brain_kernels.py.
//
// All lengths are um. A point is (z, y, x): posterior, inferior, and lateral from the midline, so that the hemispheres
// mirror each other. A part of the brain is decided from the outside in; within a part, the nearest seed decides.
#include "../native/arrays.hpp"

namespace {

// Slots of the label table that the geometry names; 0 is outside. Same order as in figures/brain.csv.
enum Fixed : int {
    OUTSIDE, MOBgl, MOBopl, MOBmi, MOBgr, CC, EC, AI, FI, ALV_CA1so, CA1sp, CA1sr, CA1slm, CA2so, CA2sp, CA2sr,
    CA3so, CA3sp, CA3sr, DGmo, DGsg, DGpo, VL, V3, AQ, V4, ACO, INT, CPD, ARB, MCP, OPT, SCZO, SCSG, SCOP, SCIG, SCDG,
    PFLmo, PFLgr, FLmo, FLgr, FIXED
};

// Parts whose structures are the cells of seeds.
enum Part : int { CORTEX, OLFACTORY, BASAL, AMYGDALA, THALAMUS, HYPOTHALAMUS, MIDBRAIN, HINDBRAIN, RETROHIPPOCAMPAL,
                  VERMIS, HEMISPHERE, NUCLEI, PARTS };

constexpr int COLUMNS = 10;  // of a seed: part, z, y, x, radius, slots of up to five layers

struct Seeds {
    const double *rows;
    int64_t first[PARTS + 1];

    Seeds(const double *rows, int64_t count) : rows(rows) {
        int64_t n = 0;
        for (int part = 0; part <= PARTS; part++) {
            while (n < count && rows[n * COLUMNS] < part) n++;
            first[part] = n;
        }
    }

    // The slot of a layer of the seed whose power distance to the point is least; the first of equals. The point is moved
    // a little, so that borders are curved.
    int nearest(int part, double z, double y, double x, int layer = 0) const {
        double u = z + 95.0 * sin(y / 300.0 + 0.7) + 45.0 * sin(x / 170.0), v = y + 95.0 * sin(x / 280.0 + 1.1);
        y = v + 45.0 * sin(z / 190.0), x = x + 80.0 * sin(z / 330.0 + 2.0) + 45.0 * sin(v / 180.0), z = u;
        double least = INFINITY;
        int slot = OUTSIDE;
        for (int64_t n = first[part]; n < first[part + 1]; n++) {
            const double *seed = rows + n * COLUMNS;
            double a = z - seed[1], b = y - seed[2], c = x - seed[3];
            double power = a * a + b * b + c * c - seed[4] * seed[4];
            if (power < least) least = power, slot = static_cast<int>(seed[5 + layer]);
        }
        return slot;
    }

    // The slot of the n-th seed of a part.
    int at(int part, int64_t n, int layer) const {
        return static_cast<int>(rows[(min(first[part] + n, first[part + 1] - 1)) * COLUMNS + 5 + layer]);
    }
};

double square(double v) { return v * v; }
double ramp(double v, double from, double to) { return min(max((v - from) / (to - from), 0.0), 1.0); }
double ellipsoid(double z, double y, double x) { return sqrt(z * z + y * y + x * x); }

// The distance in units of the semi-axes by the exponent 2.5: between an ellipsoid and a box.
struct Rounded {
    double value, slope;  // slope: of the value, per um

    Rounded(double z, double y, double x, double a, double b, double c) {
        z = fabs(z) / a, y = fabs(y) / b, x = fabs(x) / c;
        double rz = z * sqrt(z), ry = y * sqrt(y), rx = x * sqrt(x);
        value = pow(z * rz + y * ry + x * rx, 0.4);
        double scale = value > 1e-6 ? 1.0 / (value * sqrt(value)) : 0.0;
        slope = scale * sqrt(square(rz / a) + square(ry / b) + square(rx / c));
    }

    // From the surface inwards, in um.
    double depth() const { return slope > 0.0 ? (1.0 - value) / slope : 1e9; }
};

// The layers of a cerebellar folium from its surface: 0 molecular, 1 granular, 2 white matter.
int folium(double depth) { return depth < 140.0 ? 0 : depth < 270.0 ? 1 : 2; }

int cerebellum(const Seeds &seeds, double z, double y, double x) {
    // The flocculus and the paraflocculus lie apart.
    Rounded paraflocculus(z - 10950.0, y - 5100.0, x - 3950.0, 620.0, 850.0, 560.0);
    if (paraflocculus.value <= 1.0) {
        int layer = folium(min(paraflocculus.depth(), fabs(y - 5100.0 - 0.3 * (x - 3950.0)) + max(0.0, 4000.0 - x)));
        return layer == 2 ? ARB : layer ? PFLgr : PFLmo;
    }
    Rounded flocculus(z - 10450.0, y - 5350.0, x - 3050.0, 400.0, 420.0, 480.0);
    if (flocculus.value <= 1.0) {
        int layer = folium(flocculus.depth() * 1.3);
        return layer == 2 ? ARB : layer ? FLgr : FLmo;
    }
    constexpr double Z = 11650.0, Y = 3500.0;
    double dz = z - Z, dy = y - Y;
    // The vermis bulges, and the hemispheres taper to the side.
    double bulge = 1.0 - 0.10 * exp(-square((x - 1000.0) / 260.0));
    Rounded hull(dz, dy, x, (dz < 0.0 ? 1500.0 : 1600.0) * bulge, (dy < 0.0 ? 2650.0 : 950.0) * bulge, 3650.0);
    if (hull.value > 1.0) return OUTSIDE;
    double depth = hull.depth();
    // Angle about the core in the sagittal plane, from the rostral end over the top to the caudal end; folia run
    // across, and wave a little on their way to the side.
    double radius = sqrt(dz * dz + dy * dy);
    double angle = atan2(-dy, -dz) + 0.10 * sin(x / 420.0) + 0.00006 * x;
    constexpr double FROM = -0.75, TO = 3.95;
    constexpr int LOBULES = 9;
    double width = (TO - FROM) / LOBULES;
    double turn = (angle < FROM - width / 2 ? angle + 2.0 * M_PI : angle) - FROM;
    double place = min(max(turn / width + 0.16 * sin(2.3 * turn) - 0.05, 0.0), LOBULES - 1e-9);
    int lobule = static_cast<int>(place);
    double across = place - lobule;
    bool below = turn / width < 0.0 || turn / width > LOBULES;
    // Fissures between lobules reach far in, those within a lobule less.
    double side = x / 3650.0, cap = pow(max(1.0 - side * side * sqrt(side), 1e-9), 0.4);
    double value = Rounded(dz, dy, 0.0, dz < 0.0 ? 1500.0 : 1600.0, dy < 0.0 ? 2650.0 : 950.0, 1.0).value / cap;
    double fissure = 1e9;
    auto cut = [&](double at, double reach) {
        double aside = radius * width * fabs(across - at), beyond = (value - reach) * 1800.0;
        fissure = min(fissure, beyond >= 0.0 ? aside : sqrt(aside * aside + beyond * beyond));
        return beyond > 0.0 && aside < 14.0 + 40.0 * ramp(value, 0.9, 1.0);
    };
    double deep = lobule % 2 ? 0.40 : 0.62, next = lobule % 2 ? 0.62 : 0.40;
    if (!below && (cut(0.0, deep) || cut(1.0, next) || cut(0.5, 0.82))) return OUTSIDE;
    // The nuclei.
    double core = ellipsoid(dz / 620.0, (y - 3950.0) / 420.0, (x - 1250.0) / 1450.0);
    if (core < 1.0 && seeds.first[NUCLEI] < seeds.first[NUCLEI + 1]) return seeds.nearest(NUCLEI, z, y, x);
    if (below) return ARB;
    int layer = folium(min(depth, fissure));
    if (layer == 2) return ARB;
    return seeds.at(x < 950.0 + 60.0 * sin(z / 300.0) ? VERMIS : HEMISPHERE, lobule, layer);
}

int olfactory_bulb(double z, double y, double x) {
    Rounded bulb(z - 1750.0, y - 4500.0 + 0.15 * (z - 1750.0), x - 920.0, 1500.0, 1650.0, 880.0);
    if (bulb.value > 1.0) return OUTSIDE;
    double depth = bulb.depth();
    if (depth < 140.0) return MOBgl;
    if (depth < 300.0) return MOBopl;
    if (depth < 350.0) return MOBmi;
    return ellipsoid((z - 2300.0) / 1500.0, (y - 4500.0) / 700.0, (x - 850.0) / 130.0) < 1.0 ? ACO : MOBgr;
}

// The hippocampal region on a sheet: u along it from the midline, v from the alveus inwards, both in um.
int hippocampus(double u, double v) {
    double gyrus = ellipsoid((u - 1080.0) / 960.0, (v - 830.0) / 330.0, 0.0);
    if (gyrus < 1.0) {
        // The granule layer is a V that opens to the side, where CA3 enters.
        double blade = ellipsoid((u - 1180.0) / 900.0, (v - 830.0) / 300.0, 0.0);
        double thick = blade * 300.0;
        if (u < 1750.0) {
            if (thick > 205.0) return DGmo;
            if (thick > 140.0) return DGsg;
        } else if (gyrus > 0.86) {
            return CA3sr;
        }
        if (u > 1450.0 && fabs(v - 830.0) < 28.0) return CA3sp;
        return DGpo;
    }
    double ammon = ellipsoid((u - 1500.0) / 1750.0, (v - 640.0) / 640.0, 0.0);
    if (ammon > 1.0) return FI;
    double from_surface = (1.0 - ammon) * (640.0 + 260.0 * ramp(u, 1500.0, 3000.0));
    // CA1 above, CA3 at the side and below, CA2 between.
    int field = u < 2250.0 && v < 640.0 ? 0 : u < 2480.0 && v < 640.0 ? 1 : 2;
    const int oriens[] = {ALV_CA1so, CA2so, CA3so}, pyramids[] = {CA1sp, CA2sp, CA3sp}, radiatum[] = {CA1sr, CA2sr, CA3sr};
    if (field == 2 && v > 640.0 && u < 1900.0) return DGmo;
    if (from_surface < 130.0) return oriens[field];
    if (from_surface < 190.0 + 30.0 * ramp(u, 2000.0, 2800.0)) return pyramids[field];
    if (field == 0 && from_surface > 360.0) return CA1slm;
    return radiatum[field];
}

int isocortex(const Seeds &seeds, double z, double y, double x, double depth) {
    // Layers 1, 2/3, 4, 5, 6: thicker in front, and with a little of a wave.
    double d = depth / (1.0 + 0.06 * sin(z / 900.0) + 0.05 * sin(y / 700.0));
    int layer = d < 120.0 ? 0 : d < 330.0 ? 1 : d < 470.0 ? 2 : d < 760.0 ? 3 : 4;
    return seeds.nearest(CORTEX, z, y, x, layer);
}

int brainstem(const Seeds &seeds, double z, double y, double x) {
    // Ventricles on the midline.
    double aqueduct = ellipsoid((y - 3500.0 - 0.25 * (z - 9000.0)) / 190.0, x / 90.0, 0.0);
    if (z > 8150.0 && z < 10500.0 && aqueduct < 1.0) return AQ;
    if (ellipsoid((z - 11450.0) / 1050.0, (y - 4450.0) / 330.0, x / 950.0) < 1.0) return V4;
    if (x < 45.0 && ((z > 5600.0 && z < 8150.0 && y > 4750.0 && y < 6950.0) || (z > 6100.0 && z < 8200.0 && y < 3350.0)))
        if (ellipsoid((z - 7000.0) / 1500.0, (y - 4900.0) / 2200.0, 0.0) < 1.0) return V3;
    Rounded superior(z - 9000.0, y - 2650.0, x - 350.0, 1000.0, 1350.0, 1500.0);
    Rounded inferior(z - 10150.0, y - 2850.0, x - 950.0, 620.0, 1050.0, 1050.0);
    bool colliculi = superior.value < 1.0 && y < 3300.0;
    Rounded midbrain(z - 8950.0, y - 4050.0, x, 1500.0, 2150.0, 2350.0);
    Rounded hindbrain(z - 11150.0, y - 5800.0 - 0.05 * (z - 11150.0), x, 2450.0, 1580.0, 2550.0 - 0.22 * (z - 10400.0));
    Rounded thalamus(z - 7250.0, y - 4000.0, x, 1500.0, 1320.0, 2650.0);
    Rounded hypothalamus(z - 6950.0, y - 5950.0, x, 2150.0, 1400.0, 1650.0 + (z < 7000.0 ? 0.12 : 0.4) * (7000.0 - z));
    if (thalamus.value < 1.0 && z < 7900.0 + 600.0 * ramp(x, 900.0, 1700.0)) return seeds.nearest(THALAMUS, z, y, x);
    if (colliculi && z < 9900.0) {
        double depth = superior.depth();
        double grey = ellipsoid((y - 3550.0) / 560.0, x / 620.0, 0.0);
        if (grey > 1.0) return depth < 60.0 ? SCZO : depth < 330.0 ? SCSG : depth < 480.0 ? SCOP : depth < 900.0 ? SCIG : SCDG;
        return seeds.nearest(MIDBRAIN, z, y, x);
    }
    if (inferior.value < 1.0 && z > 9600.0) return seeds.nearest(MIDBRAIN, 10150.0, 2850.0, 950.0);
    if (hypothalamus.value < 1.0 && z < 8450.0 + 0.3 * (y - 5950.0)) {
        double chiasm = ellipsoid((z - 5350.0) / 500.0, (y - 7150.0) / 170.0, x / 900.0);
        if (chiasm < 1.0) return OPT;
        return seeds.nearest(HYPOTHALAMUS, z, y, x);
    }
    if (midbrain.value < 1.0 && z < 10050.0 - 0.35 * (y - 4000.0)) {
        if (ellipsoid((z - 8700.0) / 900.0, (y - 5650.0) / 220.0, (x - 1500.0) / 560.0) < 1.0) return CPD;
        return seeds.nearest(MIDBRAIN, z, y, x);
    }
    if (hindbrain.value < 1.0 && z < 13170.0) {
        if (ellipsoid((z - 10000.0) / 560.0, (y - 5450.0) / 900.0, (x - 2100.0) / 380.0) < 1.0) return MCP;
        return seeds.nearest(HINDBRAIN, z, y, x);
    }
    return OUTSIDE;
}

int cerebrum(const Seeds &seeds, double z, double y, double x) {
    double dz = z - 6800.0, dy = y - 3850.0 + 0.16 * max(z - 8000.0, 0.0);
    double breadth = 4850.0 * (1.0 - 0.24 * ramp(z, 6500.0, 2300.0)) * (1.0 - 0.10 * ramp(dy, -500.0, 3500.0) - 0.12 * ramp(dy, 0.0, -3500.0));
    Rounded hull(dz, dy, x - 300.0, dz < 0.0 ? 4750.0 : 3700.0, 3500.0, breadth);
    if (hull.value > 1.0) return OUTSIDE;
    // The base of the brain is hollow between the piriform lobe and the hypothalamus.
    double hollow = ellipsoid((z - 7900.0) / 2300.0, (y - 8900.0) / 2250.0, (x - 1800.0) / 1900.0);
    if (hollow < 1.0 || (z > 5900.0 && y > 6850.0 && x < 1500.0)) return OUTSIDE;
    double depth = hull.depth();
    if (z > 6000.0) depth = min(depth, (hollow - 1.0) * 1500.0);
    // The fissure between the hemispheres widens to the top and to the back, where the midbrain shows.
    double wall = 18.0 + 190.0 * exp(-depth / 140.0) + 0.55 * max(z - 8700.0, 0.0);
    double callosum = max(1480.0, 2550.0 - 0.6 * (z - 5000.0));
    callosum = callosum + (4750.0 - callosum) * ramp(z, 4500.0, 4150.0);
    bool medial = y < callosum && y < 5200.0;
    if (y < callosum + 150.0 && z < 9900.0 && x < wall && (medial || z > 8700.0)) return OUTSIDE;
    double rhinal = 4750.0 + 0.12 * (x - 4000.0) - 0.55 * max(z - 7600.0, 0.0) - 0.35 * max(4000.0 - z, 0.0);
    double mantle = depth;
    if (medial) {  // the cortex bends round its edge
        double side = max(x - wall, 0.0), least = min(depth, side), most = max(depth, side);
        mantle = least / sqrt(sqrt(1.0 + square(square(least / max(most, 1.0)))));
    }
    bool ventral = y > rhinal;
    double paleocortex = ramp(y, rhinal - 500.0, rhinal + 250.0);
    double thick = 1080.0 - 300.0 * paleocortex;
    if (z < 4000.0 && !ventral) thick += 150.0 * ramp(z, 4000.0, 3000.0);
    if (mantle < thick) return ventral ? seeds.nearest(OLFACTORY, z, y, x, mantle < 170.0 ? 0 : mantle < 300.0 ? 1 : 2)
                                       : isocortex(seeds, z, y, x, mantle);
    // White matter under the cortex, thick near the midline.
    double white = 120.0 - 50.0 * paleocortex + 130.0 * ramp(x, 3200.0, 1200.0);
    if (!medial && y < callosum + 240.0 && x < 1500.0 && z > 4300.0 && z < 8200.0) return CC;
    if (mantle < thick + white) return ventral || x > 3300.0 ? EC : CC;
    double inner = mantle - thick - white;
    // The hippocampal region, behind a front that slopes to the side and down.
    double front = 6350.0 + 0.42 * max(x - 1000.0, 0.0) + 0.36 * max(y - 2600.0, 0.0);
    if (z > front && z < 9700.0 && y < 6000.0) {
        if (z > 8950.0) return seeds.nearest(RETROHIPPOCAMPAL, z, y, x);
        double angle = atan2(x, 3850.0 - y), end = 0.75 + 1.55 * ramp(z, 6400.0, 8700.0);
        double u = 3250.0 * angle / end, v = inner * 1300.0 / (1300.0 + 500.0 * ramp(z, 7600.0, 8800.0));
        if (u > 3250.0) return seeds.nearest(y > 4800.0 && z < 8700.0 ? AMYGDALA : RETROHIPPOCAMPAL, z, y, x);
        if (v < 1290.0) {
            int slot = hippocampus(u, v);
            if (slot != FI || u > 2300.0) return slot;
            return v < 640.0 ? CC : VL;
        }
        return z < 8000.0 ? (v < 1350.0 ? VL : FI) : VL;
    }
    if (ventral && y > 4900.0 && z > 5500.0 && x > 1500.0) return seeds.nearest(AMYGDALA, z, y, x);
    // The lateral ventricle: a sickle between septum and striatum.
    double sickle = ellipsoid((z - 5500.0) / 1700.0, (y - 3700.0) / 1400.0, (x + 600.0) / 1650.0);
    if (fabs(sickle - 1.0) < 0.07 * ramp(y, 4100.0, 2700.0) && z > 4200.0) return VL;
    if (ellipsoid((z - 4600.0) / 1500.0, (y - 5050.0) / 170.0, (x - 1050.0) / 190.0) < 1.0) return ACO;
    if (z < 3950.0 && y < 4600.0 - 0.2 * x) return AI;
    double capsule = fabs(x - 2500.0 - 0.35 * (z - 6500.0) + 0.25 * (y - 4000.0));
    if (z > 5600.0 && y > 3000.0 && capsule < 130.0 * ramp(z, 5600.0, 6500.0)) return INT;
    return seeds.nearest(BASAL, z, y, x);
}

int structure(const Seeds &seeds, double z, double y, double x) {
    if (z < 200.0 || z > 13190.0 || y < 200.0 || y > 7800.0 || x > 5400.0) return OUTSIDE;
    if (z < 3200.0)
        if (int slot = olfactory_bulb(z, y, x)) return slot;
    if (z > 10000.0)
        if (int slot = cerebellum(seeds, z, y, x)) return slot;
    if (z > 4700.0 && x < 3000.0)
        if (int slot = brainstem(seeds, z, y, x)) return slot;
    if (z < 10500.0) return cerebrum(seeds, z, y, x);
    return OUTSIDE;
}

uint64_t mixed(uint64_t v) {
    v += 0x9e3779b97f4a7c15u;
    v = (v ^ (v >> 30)) * 0xbf58476d1ce4e5b9u;
    v = (v ^ (v >> 27)) * 0x94d049bb133111ebu;
    return v ^ (v >> 31);
}

double eased(double t) { return t * t * (3.0 - 2.0 * t); }

// Smooth noise of -1 to 1, between random values at the corners of a lattice whose cells have a side of `size`.
double noise(const double *at, double size, uint64_t seed) {
    uint64_t cell[3];
    double part[3];
    for (int k = 0; k < 3; k++) {
        double place = at[k] / size, low = floor(place);
        cell[k] = static_cast<uint64_t>(static_cast<int64_t>(low)), part[k] = eased(place - low);
    }
    double total = 0.0;
    for (int i = 0; i < 2; i++) {
        uint64_t plane = mixed(seed ^ (cell[0] + i));
        for (int j = 0; j < 2; j++) {
            uint64_t row = mixed(plane ^ (cell[1] + j));
            double weight = (i ? part[0] : 1.0 - part[0]) * (j ? part[1] : 1.0 - part[1]);
            double low = static_cast<double>(mixed(row ^ cell[2]) >> 11), high = static_cast<double>(mixed(row ^ (cell[2] + 1)) >> 11);
            total += weight * (low + part[2] * (high - low));
        }
    }
    return total * 0x1p-52 - 1.0;
}

// Cell bodies: a ball at a random place in some cells of a lattice, 1 at its centre and 0 outside; less the mean.
double bodies(const double *at, double size, uint64_t seed) {
    constexpr double RADIUS = 0.30, PART = 0.85;
    // Turned, so that no section is parallel to the planes of the lattice.
    constexpr double TURN[3][3] = {{0.6, 0.64, 0.48}, {-0.8, 0.48, 0.36}, {0.0, -0.6, 0.8}};
    uint64_t key = seed;
    double place[3];
    for (int k = 0; k < 3; k++) {
        double along = (TURN[k][0] * at[0] + TURN[k][1] * at[1] + TURN[k][2] * at[2]) / size, low = floor(along);
        key = mixed(key ^ static_cast<uint64_t>(static_cast<int64_t>(low)));
        place[k] = along - low - 0.5;
    }
    // The integral of 1 - (d / radius)^2 over the ball is 8 pi / 15 radius^3.
    double mean = PART * 8.0 * M_PI / 15.0 * RADIUS * RADIUS * RADIUS;
    if (static_cast<double>(key >> 11) * 0x1p-53 > PART) return -mean;
    double total = 0.0;
    for (int k = 0; k < 3; k++) {
        key = mixed(key);
        total += square(place[k] - (static_cast<double>(key >> 11) * 0x1p-53 - 0.5) * (1.0 - 2.0 * RADIUS));
    }
    return max(1.0 - total / (RADIUS * RADIUS), 0.0) - mean;
}

// Larger than any space; a point beyond has no texture, so that a cell is a whole number.
constexpr double FARTHEST = 1e7;

}  // namespace

EXPORT void brain_slots(uint16_t *out, const double *pir, int64_t count, const double *rows, int64_t seed_count,
                        double midline) {
    Seeds seeds(rows, seed_count);
    for (int64_t n = 0; n < count; n++) {
        const double *at = pir + 3 * n;
        double x = fabs(at[2] - midline);
        out[n] = at[0] == at[0] && at[1] == at[1] && x == x ? static_cast<uint16_t>(structure(seeds, at[0], at[1], x)) : 0;
    }
}

EXPORT void brain_paint(double *out, const double *pir, const uint16_t *slots, int64_t count, const double *levels,
                        const double *octaves, int64_t octave_count, double cell, double cell_amplitude,
                        const double *paper, const double *ink, int64_t seed) {
    for (int64_t n = 0; n < count; n++) {
        const double *at = pir + 3 * n;
        double level = levels[slots[n]];
        bool near = fabs(at[0]) < FARTHEST && fabs(at[1]) < FARTHEST && fabs(at[2]) < FARTHEST;
        if (level > 0.0 && near) {
            double factor = 1.0;
            for (int64_t k = 0; k < octave_count; k++)
                factor += octaves[2 * k + 1] * noise(at, octaves[2 * k], static_cast<uint64_t>(seed + k));
            if (cell_amplitude > 0.0) factor += cell_amplitude * bodies(at, cell, static_cast<uint64_t>(seed - 1));
            level = min(max(level * factor, 0.0), 1.0);
        }
        for (int c = 0; c < 3; c++) out[3 * n + c] = paper[c] + level * (ink[c] - paper[c]);
    }
}
