// What the library was compiled from, and which variant of it the processor runs.
#include "arrays.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

EXPORT const char *sources() { return SOURCES; }

// Whether the processor and the system support AVX2, FMA, BMI1, BMI2, LZCNT, MOVBE and F16C: x86-64-v3 (Intel's manual,
// volume 1, 14.7, and volume 2, CPUID).
EXPORT int32_t has_avx2() {
#if defined(__x86_64__)
    unsigned a, b, c, d;
    const unsigned fma = 1u << 12, movbe = 1u << 22, xsave = 1u << 27, avx = 1u << 28, f16c = 1u << 29;
    const unsigned all = fma | movbe | xsave | avx | f16c, lzcnt = 1u << 5;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & all) != all) return 0;
    if (!__get_cpuid(0x80000001, &a, &b, &c, &d) || !(c & lzcnt)) return 0;
    unsigned low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if ((low & 6) != 6) return 0;
    const unsigned bmi1 = 1u << 3, avx2 = 1u << 5, bmi2 = 1u << 8;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & (bmi1 | avx2 | bmi2)) == (bmi1 | avx2 | bmi2);
#else
    return 0;
#endif
}
