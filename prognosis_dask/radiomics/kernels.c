/* The inner loops of radiomics, of which NumPy would need many passes. Plain C, called through ctypes; see kernels.py.

   Wherever a sum is rounded it is added in the order of pyradiomics' and ITK's own code, so that the bits are theirs.
   Compiled without contraction of a product and a sum into one operation, as theirs are. */

#include <stdint.h>
#include <stdlib.h>

/* To be raised with every change of what the functions take or give; kernels.py asks for the same. */
int kernels_version(void) { return 1; }

/* Twice the lanes where the processor has them; each lane's bits are the same. */
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define WIDE __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define WIDE
#endif

/* ranks: a padded volume, 0 outside the mask, else the rank of the voxel's grey level, from 1. voxels: the places of
   the mask's voxels in it, in order. offsets: the neighbours, both ways, the first half one way. */

void neighbour_matrices(const int32_t *ranks, const int64_t *voxels, int64_t count, const int64_t *offsets,
                        int64_t ways, const int64_t *levels, int64_t n_levels, int64_t alpha,
                        double *glcm, double *gldm, double *ngtdm)
{
    int64_t half = ways / 2;
    for (int64_t v = 0; v < count; v++) {
        const int32_t *at = ranks + voxels[v];
        int64_t rank = at[0], level = levels[rank], neighbours = 0, sum = 0, dependent = 0;
        double *row = glcm + (rank - 1) * n_levels * half;
        for (int64_t way = 0; way < ways; way++) {
            int64_t other = at[offsets[way]];
            if (!other)
                continue;
            if (way < half)
                row[(other - 1) * half + way] += 1;
            int64_t difference = levels[other] - level;
            neighbours++;
            sum += levels[other];
            dependent += difference <= alpha && -difference <= alpha;
        }
        gldm[(rank - 1) * (2 * ways + 1) + dependent] += 1;
        double apart = neighbours ? (double)level - (double)sum / (double)neighbours : 0;
        ngtdm[(rank - 1) * 3] += 1;
        ngtdm[(rank - 1) * 3 + 1] += apart < 0 ? -apart : apart;
    }
}

/* Runs of equal voxels, by level, length and direction. neighboured: whether any two voxels adjoin in a direction. */
void run_matrix(const int32_t *ranks, const int64_t *voxels, int64_t count, const int64_t *offsets, int64_t ways,
                int64_t lengths, double *glrlm, uint8_t *neighboured)
{
    for (int64_t way = 0; way < ways; way++) {
        int64_t step = offsets[way];
        int32_t any = 0;
        for (int64_t v = 0; v < count; v++) {
            const int32_t *at = ranks + voxels[v];
            int32_t rank = at[0];
            any |= at[step];
            if (at[-step] == rank)
                continue;
            int64_t length = 0;
            while (at[step] == rank) {
                at += step;
                length++;
            }
            glrlm[((rank - 1) * lengths + length) * ways + way] += 1;
        }
        neighboured[way] = any != 0;
    }
}

/* Zones of equal voxels that adjoin. Clears ranks. Returns how many; their levels' ranks and their sizes in zones. */
int64_t zones_of(int32_t *ranks, const int64_t *voxels, int64_t count, const int64_t *offsets, int64_t ways,
                 int64_t *stack, int64_t *zones)
{
    int64_t found = 0;
    for (int64_t v = 0; v < count; v++) {
        int32_t rank = ranks[voxels[v]];
        if (!rank)
            continue;
        int64_t top = 0, size = 0;
        stack[top++] = voxels[v];
        ranks[voxels[v]] = 0;
        while (top) {
            int64_t at = stack[--top];
            size++;
            for (int64_t way = 0; way < ways; way++)
                if (ranks[at + offsets[way]] == rank) {
                    ranks[at + offsets[way]] = 0;
                    stack[top++] = at + offsets[way];
                }
        }
        zones[2 * found] = rank;
        zones[2 * found++ + 1] = size;
    }
    return found;
}

/* The matrix whose eigenvalues give the maximal correlation coefficient: the sum over k, in order, of
   p(i, k) p(j, k) / (px(i) py(k) + eps), for each direction. p: levels x levels x ways; q: ways x levels x levels.
   Where p(i, k) is zero in every direction the term is zero, and is left out. row: room for levels x ways. */
WIDE void correlation_matrix(const double *p, const double *px, const double *py, int64_t n, int64_t ways, double eps,
                        double *row, double *q)
{
    for (int64_t i = 0; i < n; i++) {
        for (int64_t at = 0; at < n * ways; at++)
            row[at] = 0;
        for (int64_t k = 0; k < n; k++) {
            const double *pik = p + (i * n + k) * ways;
            int any = 0;
            for (int64_t way = 0; way < ways; way++)
                any |= pik[way] != 0;
            if (!any)
                continue;
            for (int64_t j = 0; j < n; j++)
                for (int64_t way = 0; way < ways; way++)
                    row[j * ways + way] += pik[way] * p[(j * n + k) * ways + way] /
                                           (px[i * ways + way] * py[k * ways + way] + eps);
        }
        for (int64_t j = 0; j < n; j++)
            for (int64_t way = 0; way < ways; way++)
                q[(way * n + i) * n + j] = row[j * ways + way];
    }
}

/* ITK's recursive filter (RecursiveSeparableImageFilter) along the middle of three axes, of whole lines, of which only
   [first, stop) is kept, as float. Lines are taken LANES at a time, so that they are computed side by side.
   k: N0..N3, D1..D4, M1..M4, BN1..BN4, BM1..BM4. */

#define LANES 32

WIDE static void filter_lanes(const double *data, double *forward, double *backward, int64_t n, int64_t first, int64_t stop,
                         const double *k)
{
    const double *N = k, *D = k + 4, *M = k + 8, *BN = k + 12, *BM = k + 16;
    for (int64_t i = 0; i < stop; i++) {
        double *out = forward + i * LANES;
        const double *x[4], *y[4];
        const double *d[4];
        for (int64_t back = 0; back < 4; back++) {
            x[back] = data + (i - back > 0 ? i - back : 0) * LANES;
            int inside = i - back - 1 >= 0;
            y[back] = inside ? forward + (i - back - 1) * LANES : data;
            d[back] = inside ? D + back : BN + back;
        }
        double d1 = *d[0], d2 = *d[1], d3 = *d[2], d4 = *d[3];
        for (int64_t lane = 0; lane < LANES; lane++) {
            double sum = x[0][lane] * N[0] + x[1][lane] * N[1] + x[2][lane] * N[2] + x[3][lane] * N[3];
            out[lane] = sum - (y[0][lane] * d1 + y[1][lane] * d2 + y[2][lane] * d3 + y[3][lane] * d4);
        }
    }
    const double *border = data + (n - 1) * LANES;
    for (int64_t i = n - 1; i >= first; i--) {
        double *out = backward + i * LANES;
        const double *x[4], *y[4];
        const double *d[4];
        for (int64_t ahead = 0; ahead < 4; ahead++) {
            int inside = i + ahead + 1 <= n - 1;
            x[ahead] = inside ? data + (i + ahead + 1) * LANES : border;
            y[ahead] = inside ? backward + (i + ahead + 1) * LANES : border;
            d[ahead] = inside ? D + ahead : BM + ahead;
        }
        double d1 = *d[0], d2 = *d[1], d3 = *d[2], d4 = *d[3];
        for (int64_t lane = 0; lane < LANES; lane++) {
            double sum = x[0][lane] * M[0] + x[1][lane] * M[1] + x[2][lane] * M[2] + x[3][lane] * M[3];
            out[lane] = sum - (y[0][lane] * d1 + y[1][lane] * d2 + y[2][lane] * d3 + y[3][lane] * d4);
        }
    }
}

#define RECURSIVE(NAME, TYPE)                                                                                         \
    int64_t NAME(const TYPE *in, int64_t outer, int64_t n, int64_t inner, int64_t first, int64_t stop, const double *k,   \
             float *out)                                                                                              \
    {                                                                                                                 \
        double *room = malloc(3 * n * LANES * sizeof(double));                                                        \
        if (!room)                                                                                                    \
            return -1;                                                                                                \
        double *data = room, *forward = room + n * LANES, *backward = forward + n * LANES;                            \
        int64_t lines = outer * inner, kept = stop - first;                                                           \
        for (int64_t start = 0; start < lines; start += LANES) {                                                      \
            int64_t width = lines - start < LANES ? lines - start : LANES;                                            \
            int64_t from[LANES], to[LANES];                                                                           \
            for (int64_t lane = 0; lane < LANES; lane++) {                                                            \
                int64_t line = start + (lane < width ? lane : width - 1);                                             \
                from[lane] = line / inner * n * inner + line % inner;                                                 \
                to[lane] = line / inner * kept * inner + line % inner;                                                \
            }                                                                                                         \
            for (int64_t i = 0; i < n; i++)                                                                           \
                for (int64_t lane = 0; lane < LANES; lane++)                                                          \
                    data[i * LANES + lane] = (double)in[from[lane] + i * inner];                                      \
            filter_lanes(data, forward, backward, n, first, stop, k);                                                 \
            for (int64_t i = first; i < stop; i++)                                                                    \
                for (int64_t lane = 0; lane < width; lane++)                                                          \
                    out[to[lane] + (i - first) * inner] =                                                             \
                        (float)(forward[i * LANES + lane] + backward[i * LANES + lane]);                              \
        }                                                                                                             \
        free(room);                                                                                                   \
        return 0;                                                                                                     \
    }

RECURSIVE(recursive_int16, int16_t)
RECURSIVE(recursive_float, float)
RECURSIVE(recursive_double, double)
