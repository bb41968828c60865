/* Filters of whole lines, along the middle of three axes (outer x n x inner), of which only [first, stop) is kept. */

#include "kernels.h"

/* Lines are taken 2 LANES at a time, so that they are computed side by side. */
#define LANES 8
typedef double Lanes __attribute__((vector_size(LANES * sizeof(double))));

/* ITK's recursive filter (RecursiveSeparableImageFilter) of 2 LANES lines, whose values of one place lie side by side.
   sums receives the kept part. k: N0..N3, D1..D4, M1..M4, BN1..BN4, BM1..BM4: of the four values before (or behind)
   those outside the line are its border. */
/* In two steps from small integers, since GCC would convert them one by one. */
#define AS_REAL(VALUES) __builtin_convertvector(__builtin_convertvector(VALUES, Middle), Lanes)

#define FILTER_LINES(NAME, TYPE, MIDDLE)                                                                              \
    WIDE static void NAME(const TYPE *in, int64_t inner, int64_t n, int64_t first, int64_t stop, const double *k,     \
                          Lanes *sums)                                                                                \
    {                                                                                                                 \
        typedef TYPE Values __attribute__((vector_size(LANES * sizeof(TYPE))));                                       \
        typedef MIDDLE Middle __attribute__((vector_size(LANES * sizeof(MIDDLE))));                                   \
        Values of_a, of_b;                                                                                            \
        for (int behind = 0; behind < 2; behind++) {                                                                  \
            const double *N = behind ? k + 8 : k, *D = k + 4, *B = behind ? k + 16 : k + 12;                          \
            int64_t step = behind ? -1 : 1, start = behind ? n - 1 : 0, end = behind ? first - 1 : stop;              \
            memcpy(&of_a, in + start * inner, sizeof of_a);                                                           \
            memcpy(&of_b, in + start * inner + LANES, sizeof of_b);                                                   \
            Lanes a0 = AS_REAL(of_a), a1 = a0, a2 = a0, a3 = a0, a4 = a0;                                             \
            Lanes b0 = AS_REAL(of_b), b1 = b0, b2 = b0, b3 = b0, b4 = b0;                                             \
            Lanes c1 = a0, c2 = a0, c3 = a0, c4 = a0, d1 = b0, d2 = b0, d3 = b0, d4 = b0;                             \
            double k1 = B[0], k2 = B[1], k3 = B[2], k4 = B[3];                                                        \
            for (int64_t i = start, done = 0; i != end; i += step, done++) {                                          \
                memcpy(&of_a, in + i * inner, sizeof of_a);                                                           \
                memcpy(&of_b, in + i * inner + LANES, sizeof of_b);                                                   \
                a4 = a3, a3 = a2, a2 = a1, a1 = a0, a0 = AS_REAL(of_a);                                               \
                b4 = b3, b3 = b2, b2 = b1, b1 = b0, b0 = AS_REAL(of_b);                                               \
                Lanes a, b;                                                                                           \
                if (behind) { /* the value of its own place counts before it only */                                  \
                    a = a1 * N[0] + a2 * N[1] + a3 * N[2] + a4 * N[3];                                                \
                    b = b1 * N[0] + b2 * N[1] + b3 * N[2] + b4 * N[3];                                                \
                } else {                                                                                              \
                    a = a0 * N[0] + a1 * N[1] + a2 * N[2] + a3 * N[3];                                                \
                    b = b0 * N[0] + b1 * N[1] + b2 * N[2] + b3 * N[3];                                                \
                }                                                                                                     \
                a -= c1 * k1 + c2 * k2 + c3 * k3 + c4 * k4;                                                           \
                b -= d1 * k1 + d2 * k2 + d3 * k3 + d4 * k4;                                                           \
                c4 = c3, c3 = c2, c2 = c1, c1 = a;                                                                    \
                d4 = d3, d3 = d2, d2 = d1, d1 = b;                                                                    \
                k1 = D[0];                                                                                            \
                k2 = done > 0 ? D[1] : k2;                                                                            \
                k3 = done > 1 ? D[2] : k3;                                                                            \
                k4 = done > 2 ? D[3] : k4;                                                                            \
                if (i >= first && i < stop) {                                                                         \
                    Lanes *sum = sums + 2 * (i - first);                                                              \
                    sum[0] = behind ? sum[0] + a : a;                                                                 \
                    sum[1] = behind ? sum[1] + b : b;                                                                 \
                }                                                                                                     \
            }                                                                                                         \
        }                                                                                                             \
    }

#define RECURSIVE(NAME, TYPE, MIDDLE)                                                                                 \
    FILTER_LINES(lines_of_##NAME, TYPE, MIDDLE)                                                                       \
    WIDE int64_t NAME(const TYPE *in, int64_t outer, int64_t n, int64_t inner, int64_t first, int64_t stop,           \
                      const double *k, float *out)                                                                    \
    {                                                                                                                 \
        int64_t kept = stop - first, lines = inner == 1 ? outer : inner, blocks = inner == 1 ? 1 : outer;             \
        int64_t apart = inner == 1 ? n : 1, kept_apart = inner == 1 ? kept : 1;                                       \
        Lanes *sums = aligned_alloc(sizeof(Lanes), 2 * kept * sizeof(Lanes));                                         \
        TYPE *beside = calloc(n * 2 * LANES, sizeof(TYPE));                                                           \
        for (int64_t block = 0; block < blocks && sums && beside; block++)                                            \
            for (int64_t start = 0; start < lines; start += 2 * LANES) {                                              \
                int64_t width = lines - start < 2 * LANES ? lines - start : 2 * LANES;                                \
                const TYPE *from = in + block * n * inner + start * apart;                                            \
                float *to = out + block * kept * inner + start * kept_apart;                                          \
                const double *sum = (const double *)sums;                                                             \
                if (apart == 1 && width == 2 * LANES)                                                                 \
                    lines_of_##NAME(from, inner, n, first, stop, k, sums);                                            \
                else {                                                                                                \
                    for (int64_t lane = 0; lane < width; lane++)                                                      \
                        for (int64_t i = 0; i < n; i++)                                                               \
                            beside[i * 2 * LANES + lane] = from[i * inner + lane * apart];                            \
                    lines_of_##NAME(beside, 2 * LANES, n, first, stop, k, sums);                                      \
                }                                                                                                     \
                for (int64_t i = 0; i < kept; i++)                                                                    \
                    for (int64_t lane = 0; lane < width; lane++)                                                      \
                        to[i * inner + lane * kept_apart] = (float)sum[i * 2 * LANES + lane];                         \
            }                                                                                                         \
        int64_t missing = !sums || !beside;                                                                           \
        free(sums);                                                                                                   \
        free(beside);                                                                                                 \
        return missing ? -1 : 0;                                                                                      \
    }

RECURSIVE(recursive_int16, int16_t, int32_t)
RECURSIVE(recursive_float, float, float)
RECURSIVE(recursive_double, double, double)
