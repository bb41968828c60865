/* Texture matrices, counted as by pyradiomics.

   ranks: a padded volume, 0 outside the mask, else the rank of the voxel's grey level, from 1. voxels: the places of
   the mask's voxels in it, ascending. offsets: the neighbours as steps in it; of those both ways the first half is one
   way. n: the number of levels. */

#include "kernels.h"

/* To be raised with every change of what the functions take or give; kernels.py asks for the same. */
int kernels_version(void) { return 2; }

#define LANES 32

/* How many of the voxels from this one on lie side by side; at most LANES. */
static int64_t side_by_side(const int32_t *voxels, int64_t left)
{
    int64_t most = left < LANES ? left : LANES, many = 1;
    while (many < most && voxels[many] == voxels[0] + many)
        many++;
    return many;
}

/* Of LANES voxels: how many neighbours each has, the sum of their levels, and how many differ by alpha at most. */
WIDE static void neighbourhoods(const int16_t *at, const int64_t *offsets, int64_t ways, int32_t alpha,
                                int32_t *restrict neighbours, int32_t *restrict sums, int32_t *restrict dependent)
{
    for (int lane = 0; lane < LANES; lane++)
        neighbours[lane] = sums[lane] = dependent[lane] = 0;
    for (int64_t way = 0; way < ways; way++) {
        const int16_t *others = at + offsets[way];
        for (int lane = 0; lane < LANES; lane++) {
            int32_t other = others[lane], difference = other - at[lane], inside = other != 0;
            neighbours[lane] += inside;
            sums[lane] += other;
            dependent[lane] += inside & (difference <= alpha) & (-difference <= alpha);
        }
    }
}

/* gldm: levels x (2 ways + 1). ngtdm: levels x (count, sum of differences from the neighbours' mean). levels: by rank.
   size: of the padded volume. */
int64_t dependences(const uint16_t *ranks, int64_t size, const int32_t *voxels, int64_t count, const int64_t *offsets,
                    int64_t ways, const int64_t *levels, int64_t alpha, double *gldm, double *ngtdm)
{
    int16_t *volume = malloc((size + LANES) * sizeof(int16_t));
    int32_t neighbours[LANES], sums[LANES], dependent[LANES];
    if (!volume)
        return -1;
    for (int64_t at = 0; at < size; at++)
        volume[at] = (int16_t)levels[ranks[at]];
    memset(volume + size, 0, LANES * sizeof(int16_t));
    for (int64_t v = 0, many; v < count; v += many) {
        many = side_by_side(voxels + v, count - v);
        neighbourhoods(volume + voxels[v], offsets, ways, (int32_t)alpha, neighbours, sums, dependent);
        for (int64_t lane = 0; lane < many; lane++) {
            int64_t row = ranks[voxels[v] + lane] - 1;
            double level = volume[voxels[v] + lane];
            double apart = neighbours[lane] ? level - (double)sums[lane] / (double)neighbours[lane] : 0;
            gldm[row * (2 * ways + 1) + dependent[lane]] += 1;
            ngtdm[row * 2] += 1;
            ngtdm[row * 2 + 1] += fabs(apart);
        }
    }
    free(volume);
    return 0;
}

/* Neighbouring pairs: levels x levels x ways, and how many each way has. */
int64_t co_occurrences(const uint16_t *ranks, const int32_t *voxels, int64_t count, const int64_t *offsets,
                       int64_t ways, int64_t n, double *glcm, double *totals)
{
    int64_t side = n + 1; /* with a row and a column for what lies outside */
    uint32_t *pairs = malloc(2 * side * side * sizeof(uint32_t)), *others = pairs + side * side;
    if (!pairs)
        return -1;
    for (int64_t way = 0; way < ways; way++) {
        const uint16_t *shifted = ranks + offsets[way];
        memset(pairs, 0, 2 * side * side * sizeof(uint32_t));
        int64_t v = 0;
        for (; v + 1 < count; v += 2) { /* in two tables, since the same pair often follows itself */
            pairs[ranks[voxels[v]] * side + shifted[voxels[v]]]++;
            others[ranks[voxels[v + 1]] * side + shifted[voxels[v + 1]]]++;
        }
        if (v < count)
            pairs[ranks[voxels[v]] * side + shifted[voxels[v]]]++;
        uint64_t total = 0;
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < n; j++) {
                uint32_t number = pairs[(i + 1) * side + j + 1] + others[(i + 1) * side + j + 1];
                glcm[(i * n + j) * ways + way] = number;
                total += number;
            }
        totals[way] = (double)total;
    }
    free(pairs);
    return 0;
}

/* Each voxel's place in its run, from 1. */
WIDE static void places_in_runs(const uint16_t *ranks, const int32_t *voxels, int64_t count, int64_t step,
                                uint16_t *places)
{
    for (int64_t v = 0, many; v < count; v += many) {
        many = side_by_side(voxels + v, count - v);
        many = many < step ? many : step;
        const uint16_t *now = ranks + voxels[v], *before = now - step;
        uint16_t *place = places + voxels[v];
        if (step > 1)
            for (int64_t lane = 0; lane < many; lane++)
                place[lane] = (uint16_t)((now[lane] == before[lane] ? place[lane - step] : 0) + 1);
        else
            place[0] = (uint16_t)((now[0] == before[0] ? place[-1] : 0) + 1);
    }
}

/* Runs of equal voxels, by level, length and direction. neighboured: whether any two voxels adjoin in a direction.
   Every step leads on in the volume. size: of the padded volume. */
int64_t run_matrix(const uint16_t *ranks, int64_t size, const int32_t *voxels, int64_t count, const int64_t *offsets,
                   int64_t ways, int64_t n, int64_t lengths, double *glrlm, uint8_t *neighboured)
{
    int64_t width = lengths + 2;
    uint16_t *places = malloc(size * sizeof(uint16_t));
    uint32_t *reached = malloc(2 * (n + 1) * width * sizeof(uint32_t)), *others = reached + (n + 1) * width;
    if (!places || !reached) {
        free(places);
        free(reached);
        return -1;
    }
    for (int64_t way = 0; way < ways; way++) {
        uint16_t any = 0;
        places_in_runs(ranks, voxels, count, offsets[way], places);
        memset(reached, 0, 2 * (n + 1) * width * sizeof(uint32_t));
        int64_t v = 0;
        for (; v + 1 < count; v += 2) {
            reached[ranks[voxels[v]] * width + places[voxels[v]]]++;
            others[ranks[voxels[v + 1]] * width + places[voxels[v + 1]]]++;
            any |= ranks[voxels[v] + offsets[way]] | ranks[voxels[v + 1] + offsets[way]];
        }
        if (v < count) {
            reached[ranks[voxels[v]] * width + places[voxels[v]]]++;
            any |= ranks[voxels[v] + offsets[way]];
        }
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < lengths; j++) { /* a run of j + 1 reaches that length, and not the next */
                int64_t at = (i + 1) * width + j + 1;
                uint32_t longer = reached[at + 1] + others[at + 1];
                glrlm[(i * lengths + j) * ways + way] = (double)(reached[at] + others[at] - longer);
            }
        neighboured[way] = any != 0;
    }
    free(places);
    free(reached);
    return 0;
}

/* Zones of equal voxels that adjoin. Clears ranks. Returns how many; their levels' ranks and their sizes in zones. */
int64_t zones_of(uint16_t *ranks, const int32_t *voxels, int64_t count, const int64_t *offsets, int64_t ways,
                 int32_t *stack, int64_t *zones)
{
    int64_t found = 0;
    for (int64_t v = 0; v < count; v++) {
        uint16_t rank = ranks[voxels[v]];
        if (!rank)
            continue;
        int64_t top = 0, size = 0;
        stack[top++] = voxels[v];
        ranks[voxels[v]] = 0;
        while (top) {
            int32_t at = stack[--top];
            size++;
            for (int64_t way = 0; way < ways; way++)
                if (ranks[at + offsets[way]] == rank) {
                    ranks[at + offsets[way]] = 0;
                    stack[top++] = at + (int32_t)offsets[way];
                }
        }
        zones[2 * found] = rank;
        zones[2 * found++ + 1] = size;
    }
    return found;
}
