/* Texture matrices, counted as by pyradiomics.

   ranks: a padded volume, 0 outside the mask, else the rank of the voxel's grey level, from 1. size: of the volume.
   pieces: where the mask's voxels lie in it, ascending; number of them. offsets: the neighbours as steps in it; of those both ways the first half is one
   way. n: the number of levels. */

#include "kernels.h"

/* To be raised with every change of what the functions take or give; kernels.py asks for the same. */
int kernels_version(void) { return 6; }

#define LANES 16 /* GCC 12 compares wider vectors of small numbers one by one */
typedef int16_t Lanes __attribute__((vector_size(LANES * sizeof(int16_t))));

static inline Lanes lanes_at(const void *values)
{
    Lanes lanes;
    memcpy(&lanes, values, sizeof lanes);
    return lanes;
}

/* Voxels that lie side by side, LANES at most. */
typedef struct {
    int32_t at, many;
} Piece;

/* A padded mask's voxels in pieces; their number. */
int64_t pieces_of(const uint8_t *mask, int64_t size, Piece *pieces)
{
    int64_t found = 0;
    for (int64_t at = 0; at < size; at++) {
        if (!mask[at])
            continue;
        if (found && pieces[found - 1].many < LANES && pieces[found - 1].at + pieces[found - 1].many == at)
            pieces[found - 1].many++;
        else
            pieces[found++] = (Piece){(int32_t)at, 1};
    }
    return found;
}

/* Put the ranks of the voxels' levels into a volume. */
int64_t put_ranks(const int64_t *levels, const uint16_t *rank, const Piece *pieces, int64_t number, uint16_t *ranks)
{
    for (int64_t piece = 0; piece < number; piece++)
        for (int64_t lane = 0; lane < pieces[piece].many; lane++)
            ranks[pieces[piece].at + lane] = rank[*levels++];
    return 0;
}

/* Of LANES voxels: how many neighbours each has, the sum of their levels, and how many differ by alpha at most. */
WIDE static void neighbourhoods(const int16_t *at, const int64_t *offsets, int64_t ways, int64_t alpha,
                                int16_t *neighbours, int16_t *sums, int16_t *dependent)
{
    Lanes here = lanes_at(at), number = {0}, sum = {0}, like = {0};
    for (int64_t way = 0; way < ways; way++) {
        Lanes other = lanes_at(at + offsets[way]), inside = other != 0, apart = other - here;
        number -= inside;
        sum += other;
        like -= inside & (apart <= (int16_t)alpha) & (apart >= (int16_t)-alpha);
    }
    memcpy(neighbours, &number, sizeof number);
    memcpy(sums, &sum, sizeof sum);
    memcpy(dependent, &like, sizeof like);
}

/* gldm: levels x (2 ways + 1). ngtdm: levels x (count, sum of differences from the neighbours' mean). levels: by rank. */
int64_t dependences(const uint16_t *ranks, int64_t size, const Piece *pieces, int64_t number, const int64_t *offsets,
                    int64_t ways, const int64_t *levels, int64_t highest, int64_t alpha, double *gldm, double *ngtdm)
{
    int16_t *volume = malloc((size + LANES) * sizeof(int16_t)), neighbours[LANES], sums[LANES], dependent[LANES];
    int64_t fits = highest * ways <= INT16_MAX;
    if (!volume)
        return -1;
    for (int64_t at = 0; at < size; at++)
        volume[at] = (int16_t)levels[ranks[at]];
    memset(volume + size, 0, LANES * sizeof(int16_t));
    for (int64_t piece = 0; piece < number; piece++) {
        const int16_t *at = volume + pieces[piece].at;
        neighbourhoods(at, offsets, ways, alpha, neighbours, sums, dependent);
        for (int64_t lane = 0; lane < pieces[piece].many; lane++) {
            int64_t row = ranks[pieces[piece].at + lane] - 1, sum = fits ? sums[lane] : 0;
            for (int64_t way = 0; way < ways && !fits; way++)
                sum += at[lane + offsets[way]];
            double apart = neighbours[lane] ? (double)at[lane] - (double)sum / (double)neighbours[lane] : 0;
            gldm[row * (2 * ways + 1) + dependent[lane]] += 1;
            ngtdm[row * 2] += 1;
            ngtdm[row * 2 + 1] += fabs(apart);
        }
    }
    free(volume);
    return 0;
}

/* Neighbouring pairs: levels x levels x ways, and how many each way has. */
int64_t co_occurrences(const uint16_t *ranks, const Piece *pieces, int64_t number, const int64_t *offsets,
                       int64_t ways, int64_t n, double *glcm, double *totals)
{
    int64_t side = n + 1; /* with a row and a column for what lies outside */
    uint32_t *pairs = malloc(2 * side * side * sizeof(uint32_t)), *others = pairs + side * side;
    if (!pairs)
        return -1;
    for (int64_t way = 0; way < ways; way++) {
        const uint16_t *shifted = ranks + offsets[way];
        memset(pairs, 0, 2 * side * side * sizeof(uint32_t));
        for (int64_t piece = 0; piece < number; piece++) {
            const uint16_t *one = ranks + pieces[piece].at, *other = shifted + pieces[piece].at;
            int64_t lane = 0;
            for (; lane + 1 < pieces[piece].many; lane += 2) { /* in two tables, since a pair often follows itself */
                pairs[one[lane] * side + other[lane]]++;
                others[one[lane + 1] * side + other[lane + 1]]++;
            }
            if (lane < pieces[piece].many)
                pairs[one[lane] * side + other[lane]]++;
        }
        uint64_t total = 0;
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < n; j++) {
                uint32_t count = pairs[(i + 1) * side + j + 1] + others[(i + 1) * side + j + 1];
                glcm[(i * n + j) * ways + way] = count;
                total += count;
            }
        totals[way] = (double)total;
    }
    free(pairs);
    return 0;
}

/* Each voxel's place in its run, from 1; whether any two voxels adjoin. Both volumes go on for LANES beyond size. */
WIDE static int places_in_runs(const uint16_t *ranks, const Piece *pieces, int64_t number, int64_t step,
                               uint16_t *places)
{
    Lanes adjoining = {0};
    uint16_t any = 0;
    for (int64_t piece = 0; piece < number; piece++) {
        const uint16_t *now = ranks + pieces[piece].at;
        uint16_t *place = places + pieces[piece].at;
        if (step >= LANES) { /* what is written beyond the piece is overwritten, or outside the mask */
            Lanes here = lanes_at(now), longer = (lanes_at(place - step) & (here == lanes_at(now - step))) + 1;
            adjoining |= lanes_at(now + step) & (here != 0);
            memcpy(place, &longer, sizeof longer);
            continue;
        }
        for (int64_t lane = 0; lane < pieces[piece].many; lane++) {
            place[lane] = (uint16_t)((now[lane] == now[lane - step] ? place[lane - step] : 0) + 1);
            any |= now[lane + step];
        }
    }
    for (int lane = 0; lane < LANES; lane++)
        any |= (uint16_t)adjoining[lane];
    return any != 0;
}

/* Runs of equal voxels, by level, length and direction. neighboured: whether any two voxels adjoin in a direction.
   Every step leads on in the volume. */
int64_t run_matrix(const uint16_t *ranks, int64_t size, const Piece *pieces, int64_t number, const int64_t *offsets,
                   int64_t ways, int64_t n, int64_t lengths, double *glrlm, uint8_t *neighboured)
{
    int64_t width = lengths + 2, farthest = 0;
    for (int64_t way = 0; way < ways; way++)
        farthest = offsets[way] > farthest ? offsets[way] : farthest;
    uint16_t *volume = calloc(2 * (size + LANES) + farthest, sizeof(uint16_t)), *places = volume + size + LANES;
    uint32_t *reached = malloc(2 * (n + 1) * width * sizeof(uint32_t)), *others = reached + (n + 1) * width;
    int64_t missing = !volume || !reached;
    if (!missing)
        memcpy(volume, ranks, size * sizeof(uint16_t));
    for (int64_t way = 0; way < ways && !missing; way++) {
        neighboured[way] = (uint8_t)places_in_runs(volume, pieces, number, offsets[way], places);
        memset(reached, 0, 2 * (n + 1) * width * sizeof(uint32_t));
        for (int64_t piece = 0; piece < number; piece++) {
            const uint16_t *rank = volume + pieces[piece].at, *place = places + pieces[piece].at;
            int64_t lane = 0;
            for (; lane + 1 < pieces[piece].many; lane += 2) {
                reached[rank[lane] * width + place[lane]]++;
                others[rank[lane + 1] * width + place[lane + 1]]++;
            }
            if (lane < pieces[piece].many)
                reached[rank[lane] * width + place[lane]]++;
        }
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < lengths; j++) { /* a run of j + 1 reaches that length, and not the next */
                int64_t at = (i + 1) * width + j + 1;
                uint32_t longer = reached[at + 1] + others[at + 1];
                glrlm[(i * lengths + j) * ways + way] = (double)(reached[at] + others[at] - longer);
            }
    }
    free(volume);
    free(reached);
    return missing ? -1 : 0;
}

/* Which of the like neighbours before a voxel, as bits, to join it with: one of each set of them that adjoin each other,
   since those are joined already. adjoining: of each neighbour, which others adjoin it. */
static uint16_t to_join(uint16_t like, const uint16_t *adjoining)
{
    uint16_t chosen = 0;
    while (like) {
        uint16_t set = (uint16_t)(like & -like), more = set;
        chosen |= set;
        while (more) {
            set |= more;
            more = (uint16_t)(adjoining[__builtin_ctz(more)] & like & ~set) | (uint16_t)(more & (more - 1));
        }
        like &= (uint16_t)~set;
    }
    return chosen;
}

static int32_t root_of(int32_t *parents, int32_t zone)
{
    while (parents[zone] != zone)
        zone = parents[zone] = parents[parents[zone]];
    return zone;
}

/* Of LANES voxels, which of the neighbours before them are alike, as bits. */
WIDE static void like_before(const uint16_t *at, const int64_t *offsets, int64_t ways, uint16_t *like)
{
    Lanes here = lanes_at(at), bits = {0};
    for (int64_t way = 0; way < ways; way++)
        bits |= (here == lanes_at(at - offsets[way])) & (int16_t)(1 << way);
    memcpy(like, &bits, sizeof bits);
}

/* Zones of equal voxels, count in all, that adjoin, by one way's offsets (15 at most). Returns how many; their levels' ranks and their
   sizes in zones. */
int64_t zones_of(const uint16_t *ranks, int64_t size, const Piece *pieces, int64_t number, int64_t count,
                 const int64_t *offsets, int64_t ways, int64_t *zones)
{
    uint16_t *volume = malloc((size + LANES) * sizeof(uint16_t)), *joins = calloc((size_t)1 << ways, sizeof(uint16_t));
    uint16_t like[LANES], adjoining[16] = {0};
    int32_t *zone_at = malloc(size * sizeof(int32_t)), *parents = malloc(3 * (count + 1) * sizeof(int32_t));
    int32_t *sizes = parents + count + 1, *level = sizes + count + 1, made = 0;
    int64_t found = 0;
    if (!volume || !joins || !zone_at || !parents)
        found = -1;
    else {
        memcpy(volume, ranks, size * sizeof(uint16_t));
        memset(volume + size, 0, LANES * sizeof(uint16_t));
    }
    for (int64_t one = 0; one < ways; one++)
        for (int64_t other = 0; other < ways; other++)
            for (int64_t way = 0; way < ways; way++)
                if (llabs(offsets[one] - offsets[other]) == offsets[way])
                    adjoining[one] |= (uint16_t)(1 << other);
    for (int64_t piece = 0; piece < number && found == 0; piece++) {
        int32_t at = pieces[piece].at;
        like_before(volume + at, offsets, ways, like);
        for (int64_t lane = 0; lane < pieces[piece].many; lane++, at++) {
            if (!like[lane]) {
                parents[made] = zone_at[at] = made;
                level[made] = volume[at];
                sizes[made++] = 1;
                continue;
            }
            uint16_t join = joins[like[lane]];
            if (!join)
                join = joins[like[lane]] = to_join(like[lane], adjoining);
            int32_t zone = -1;
            for (; join; join &= (uint16_t)(join - 1)) {
                int32_t root = root_of(parents, zone_at[at - offsets[__builtin_ctz(join)]]);
                if (zone < 0)
                    zone = root;
                else if (root != zone) {
                    int32_t first = root < zone ? root : zone;
                    sizes[first] += sizes[root < zone ? zone : root];
                    parents[root < zone ? zone : root] = first;
                    zone = first;
                }
            }
            zone_at[at] = zone;
            sizes[zone]++;
        }
    }
    for (int32_t zone = 0; zone < made; zone++)
        if (parents[zone] == zone) {
            zones[2 * found] = level[zone];
            zones[2 * found++ + 1] = sizes[zone];
        }
    free(volume);
    free(joins);
    free(zone_at);
    free(parents);
    return found;
}
