/* Surface, volume and largest diameters of a mask's mesh (marching cubes), as pyradiomics' cShape.c adds them. */

#include "kernels.h"

static void cross(const double *a, const double *b, double *normal)
{
    normal[0] = a[1] * b[2] - b[1] * a[2];
    normal[1] = a[2] * b[0] - b[2] * a[0];
    normal[2] = a[0] * b[1] - b[0] * a[1];
}

/* The bits of the corners of a row of cubes; rows: the four rows of voxels around it. */
WIDE static void corners_of(const uint8_t *const *rows, int64_t count, uint8_t *bits)
{
    const uint8_t *a = rows[0], *b = rows[1], *c = rows[2], *d = rows[3];
    for (int64_t x = 0; x < count; x++)
        bits[x] = (uint8_t)(a[x] | a[x + 1] << 1 | b[x + 1] << 2 | b[x] << 3 | c[x] << 4 | c[x + 1] << 5 |
                            d[x + 1] << 6 | d[x] << 7);
}

/* mask: padded by one voxel on each side, 0 or 1. first: by the bits up to 127 a cube's first triangle. edges: of each
   triangle three points, (z, y, x) in half voxels. z, y, x: the places of half voxels in mm. found: surface, volume. */
int64_t surface_and_volume(const uint8_t *mask, const int64_t *shape, const int64_t *first, const int64_t *edges,
                           const double *z, const double *y, const double *x, double *found)
{
    const double *places[3] = {z, y, x};
    int64_t height = shape[1], width = shape[2];
    double surface = 0, volume = 0;
    uint8_t *bits = malloc(width);
    if (!bits)
        return -1;
    for (int64_t slice = 0; slice + 1 < shape[0]; slice++)
        for (int64_t row = 0; row + 1 < height; row++) {
            const uint8_t *at = mask + (slice * height + row) * width, *above = at + height * width;
            const uint8_t *rows[4] = {at, at + width, above, above + width};
            corners_of(rows, width - 1, bits);
            for (int64_t column = 0; column + 1 < width; column++) {
                int64_t kind = bits[column], corner[3] = {2 * slice, 2 * row, 2 * column};
                if (kind == 0 || kind == 255)
                    continue;
                double sign = kind >= 128 ? -1.0 : 1.0;
                kind = kind >= 128 ? 255 - kind : kind;
                for (int64_t triangle = first[kind]; triangle < first[kind + 1]; triangle++) {
                    double p[3][3], normal[3];
                    for (int64_t point = 0; point < 3; point++)
                        for (int64_t axis = 0; axis < 3; axis++)
                            p[point][axis] = places[axis][corner[axis] + edges[(triangle * 3 + point) * 3 + axis]];
                    cross(p[0], p[1], normal);
                    volume += (normal[0] * p[2][0] + normal[1] * p[2][1] + normal[2] * p[2][2]) * sign;
                    for (int64_t axis = 0; axis < 3; axis++) {
                        p[0][axis] -= p[2][axis];
                        p[1][axis] -= p[2][axis];
                    }
                    cross(p[0], p[1], normal);
                    surface += 0.5 * sqrt(normal[0] * normal[0] + normal[1] * normal[1] + normal[2] * normal[2]);
                }
            }
        }
    free(bits);
    found[0] = surface;
    found[1] = volume / 6;
    return 0;
}

/* The mesh's vertices, (z, y, x) in half voxels; their number. Without points it only counts. */
static int64_t vertices(const uint8_t *mask, const int64_t *shape, int32_t *points)
{
    int64_t found = 0, height = shape[1], width = shape[2];
    const int64_t steps[3] = {height * width, width, 1};
    for (int64_t slice = 0; slice < shape[0]; slice++)
        for (int64_t row = 0; row < height; row++) {
            const uint8_t *at = mask + (slice * height + row) * width;
            const int64_t place[3] = {slice, row, 0};
            for (int64_t axis = 0; axis < 3; axis++) {
                if (axis < 2 && place[axis] + 1 == shape[axis])
                    continue;
                for (int64_t column = 0, stop = width - (axis == 2); column < stop; column++) {
                    uint64_t here, there;
                    for (; column + 8 <= stop; column += 8) { /* over eight alike at once */
                        memcpy(&here, at + column, sizeof here);
                        memcpy(&there, at + column + steps[axis], sizeof there);
                        if (here != there)
                            break;
                    }
                    for (int64_t end = column + 8 < stop ? column + 8 : stop; column < end; column++) {
                        if (at[column] == at[column + steps[axis]])
                            continue;
                        if (points) {
                            points[3 * found] = (int32_t)(2 * slice + (axis == 0));
                            points[3 * found + 1] = (int32_t)(2 * row + (axis == 1));
                            points[3 * found + 2] = (int32_t)(2 * column + (axis == 2));
                        }
                        found++;
                    }
                    column--;
                }
            }
        }
    return found;
}

/* Keep the first and the last point of each line along an axis; how many are left. ends: room for two numbers a line,
   sizes: of the space of points. */
static int64_t line_ends(const int32_t *points, int64_t count, int64_t axis, const int64_t *sizes, int32_t *ends,
                         int32_t *kept)
{
    int64_t one = axis == 0, other = axis == 2 ? 1 : 2, lines = sizes[one] * sizes[other], found = 0;
    for (int64_t line = 0; line < lines; line++) {
        ends[2 * line] = INT32_MAX;
        ends[2 * line + 1] = -1;
    }
    for (int64_t number = 0; number < count; number++) {
        const int32_t *point = points + 3 * number;
        int32_t *end = ends + 2 * (point[one] * sizes[other] + point[other]);
        end[0] = point[axis] < end[0] ? point[axis] : end[0];
        end[1] = point[axis] > end[1] ? point[axis] : end[1];
    }
    for (int64_t number = 0; number < count; number++) {
        const int32_t *point = points + 3 * number, *end = ends + 2 * (point[one] * sizes[other] + point[other]);
        if (point[axis] == end[0] || point[axis] == end[1]) {
            memmove(kept + 3 * found, point, 3 * sizeof(int32_t));
            found++;
        }
    }
    return found;
}

/* Sort points by their place along an axis; room: for the size along it. */
static void sort_along(const int32_t *points, int64_t count, int64_t axis, const int64_t *sizes, int32_t *room,
                       int32_t *sorted)
{
    memset(room, 0, sizes[axis] * sizeof(int32_t));
    for (int64_t number = 0; number < count; number++)
        if (points[3 * number + axis] + 1 < sizes[axis])
            room[points[3 * number + axis] + 1]++;
    for (int64_t place = 1; place < sizes[axis]; place++)
        room[place] += room[place - 1];
    for (int64_t number = 0; number < count; number++)
        memcpy(sorted + 3 * room[points[3 * number + axis]]++, points + 3 * number, 3 * sizeof(int32_t));
}

#define LANES 8

static double squared(double z, double y, double x) { return z * z + y * y + x * x; }

/* The largest squared distance of a point to others. */
WIDE static double farthest(const double *point, const double *z, const double *y, const double *x, int64_t count)
{
    double most[LANES] = {0}, largest = 0;
    int64_t number = 0;
    for (; number + LANES <= count; number += LANES)
        for (int lane = 0; lane < LANES; lane++) {
            double dz = point[0] - z[number + lane], dy = point[1] - y[number + lane], dx = point[2] - x[number + lane];
            double distance = dz * dz + dy * dy + dx * dx;
            most[lane] = distance > most[lane] ? distance : most[lane];
        }
    for (int lane = 0; lane < LANES; lane++)
        largest = most[lane] > largest ? most[lane] : largest;
    for (; number < count; number++) {
        double distance = squared(point[0] - z[number], point[1] - y[number], point[2] - x[number]);
        largest = distance > largest ? distance : largest;
    }
    return largest;
}

typedef struct {
    double low[3], high[3];
} Box;

static Box box_of(const int32_t *points, int64_t count, const double *const *places)
{
    Box box = {{0}, {0}};
    for (int64_t number = 0; number < count; number++)
        for (int axis = 0; axis < 3; axis++) {
            double place = places[axis][points[3 * number + axis]];
            box.low[axis] = !number || place < box.low[axis] ? place : box.low[axis];
            box.high[axis] = !number || place > box.high[axis] ? place : box.high[axis];
        }
    return box;
}

/* The squared distance that no two points exceed, one in each box. */
static double farthest_of(const Box *one, const Box *other)
{
    double apart[3];
    for (int axis = 0; axis < 3; axis++) {
        double up = one->high[axis] - other->low[axis], down = other->high[axis] - one->low[axis];
        apart[axis] = up > down ? up : down;
    }
    return squared(apart[0], apart[1], apart[2]);
}

/* From any point to the farthest, and again: a distance that few pairs exceed. */
static double some_distance(const int32_t *points, int64_t count, const double *const *places)
{
    double largest = 0;
    int64_t at = 0;
    for (int sweep = 0; sweep < 3; sweep++) {
        int64_t next = at;
        for (int64_t number = 0; number < count; number++) {
            double apart[3];
            for (int axis = 0; axis < 3; axis++)
                apart[axis] = places[axis][points[3 * number + axis]] - places[axis][points[3 * at + axis]];
            double distance = squared(apart[0], apart[1], apart[2]);
            if (distance > largest) {
                largest = distance;
                next = number;
            }
        }
        at = next;
    }
    return largest;
}

#define CELLS 12
#define ALL_CELLS (CELLS * CELLS * CELLS)
/* Of so many points it is quicker to compare all pairs. */
#define FEW 300

typedef struct {
    int32_t stop[ALL_CELLS + 1]; /* of the points before each cell, then of its own */
    int32_t used[ALL_CELLS], first[ALL_CELLS + 1];
    Box boxes[ALL_CELLS];
} Cells;

/* Gather points in cells: sorted, and located by axis. How many cells are used. */
static int64_t gather(const int32_t *points, int64_t count, const int64_t *sizes, const double *const *places,
                      Cells *cells, int32_t *sorted, double *located)
{
    int64_t found = 0;
    memset(cells->stop, 0, sizeof cells->stop);
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t number = 0; number < count; number++) {
            const int32_t *point = points + 3 * number;
            int64_t cell = 0;
            for (int axis = 0; axis < 3; axis++)
                cell = cell * CELLS + point[axis] * CELLS / sizes[axis];
            if (pass)
                memcpy(sorted + 3 * cells->stop[cell]++, point, 3 * sizeof(int32_t));
            else
                cells->stop[cell + 1]++;
        }
        for (int64_t cell = 0; !pass && cell < ALL_CELLS; cell++) {
            if (cells->stop[cell + 1]) {
                cells->first[found] = cells->stop[cell];
                cells->used[found++] = (int32_t)cell;
            }
            cells->stop[cell + 1] += cells->stop[cell];
        }
    }
    cells->first[found] = (int32_t)count;
    for (int64_t number = 0; number < found; number++)
        cells->boxes[number] = box_of(sorted + 3 * cells->first[number],
                                      cells->first[number + 1] - cells->first[number], places);
    for (int axis = 0; axis < 3; axis++)
        for (int64_t number = 0; number < count; number++)
            located[axis * count + number] = places[axis][sorted[3 * number + axis]];
    return found;
}

/* The largest squared distance of two points, if above known, else known; only pairs of cells whose boxes may exceed
   what is known are compared. */
static double largest_of(const int32_t *points, int64_t count, const int64_t *sizes, const double *const *places,
                         Cells *cells, int32_t *sorted, double *located, double known)
{
    if (count <= FEW) {
        for (int axis = 0; axis < 3; axis++)
            for (int64_t number = 0; number < count; number++)
                located[axis * count + number] = places[axis][points[3 * number + axis]];
        for (int64_t number = 0; number < count; number++) {
            const double *z = located + number, *y = z + count, *x = y + count, point[3] = {*z, *y, *x};
            double distance = farthest(point, z, y, x, count - number);
            known = distance > known ? distance : known;
        }
        return known;
    }
    int64_t found = gather(points, count, sizes, places, cells, sorted, located);
    const double *z = located, *y = z + count, *x = y + count;
    for (int64_t one = 0; one < found; one++)
        for (int64_t other = one; other < found; other++) {
            if (farthest_of(cells->boxes + one, cells->boxes + other) <= known)
                continue;
            int64_t start = cells->first[other], many = cells->first[other + 1] - start;
            for (int64_t number = cells->first[one]; number < cells->first[one + 1]; number++) {
                const double point[3] = {z[number], y[number], x[number]};
                double distance = farthest(point, z + start, y + start, x + start, many);
                known = distance > known ? distance : known;
            }
        }
    return known;
}

/* The largest squared distance of two points with the same place along an axis, or with axis -1 of any two. points are
   sorted along it. */
static int64_t largest_distance(const int32_t *points, int64_t count, int64_t axis, const int64_t *sizes,
                                const double *z, const double *y, const double *x, double *largest)
{
    const double *places[3] = {z, y, x};
    Cells *cells = malloc(sizeof *cells);
    int32_t *sorted = malloc((count + 1) * 3 * sizeof(int32_t));
    double *located = malloc((count + 1) * 3 * sizeof(double)), known = 0;
    int64_t missing = !cells || !sorted || !located;
    for (int64_t start = 0, stop; start < count && !missing; start = stop) {
        for (stop = start + 1; stop < count && (axis < 0 || points[3 * stop + axis] == points[3 * start + axis]);)
            stop++;
        const int32_t *group = points + 3 * start;
        Box box = box_of(group, stop - start, places);
        if (farthest_of(&box, &box) <= known)
            continue;
        double some = some_distance(group, stop - start, places);
        known = some > known ? some : known;
        known = largest_of(group, stop - start, sizes, places, cells, sorted, located, known);
    }
    free(cells);
    free(sorted);
    free(located);
    *largest = known;
    return missing ? -1 : 0;
}

/* The largest diameters within a plane of one z, of one y and of one x, and in space. Of a line of vertices only the
   two ends are compared: one of them is at least as far from any other vertex. That holds for rounded distances too,
   since rounding of differences, squares and sums is monotonic. */
int64_t diameters(const uint8_t *mask, const int64_t *shape, const double *z, const double *y, const double *x,
                  double *found)
{
    const int64_t sizes[3] = {2 * shape[0], 2 * shape[1], 2 * shape[2]};
    int64_t count = vertices(mask, shape, NULL), lines = 0, missing = 0;
    for (int axis = 0; axis < 3; axis++) {
        int64_t across = sizes[0] * sizes[1] * sizes[2] / sizes[axis];
        lines = across > lines ? across : lines;
    }
    int32_t *all = malloc((count + 1) * 9 * sizeof(int32_t)), *ends = malloc(lines * 2 * sizeof(int32_t));
    int32_t *some = all + 3 * (count + 1), *sorted = some + 3 * (count + 1);
    missing = !all || !ends;
    if (!missing)
        vertices(mask, shape, all);
    for (int64_t axis = 0; axis < 3 && !missing; axis++) {
        int64_t left = line_ends(all, count, (axis + 2) % 3, sizes, ends, some);
        left = line_ends(some, left, (axis + 1) % 3, sizes, ends, some);
        sort_along(some, left, axis, sizes, ends, sorted);
        missing |= largest_distance(sorted, left, axis, sizes, z, y, x, found + axis);
        if (axis == 0) {
            left = line_ends(sorted, left, 0, sizes, ends, some);
            missing |= largest_distance(some, left, -1, sizes, z, y, x, found + 3);
        }
    }
    for (int diameter = 0; diameter < 4; diameter++)
        found[diameter] = sqrt(found[diameter]);
    free(all);
    free(ends);
    return missing ? -1 : 0;
}

/* The mask's voxels, (axes x count), in mm from their mean, over the root of their number. mask: not padded; each place
   counts from 1. */
int64_t spread(const uint8_t *mask, const int64_t *shape, const double *spacing, int64_t count, int64_t chunk,
               double *places)
{
    int64_t found = 0;
    for (int64_t slice = 0; slice < shape[0]; slice++)
        for (int64_t row = 0; row < shape[1]; row++)
            for (int64_t column = 0; column < shape[2]; column++)
                if (*mask++) {
                    places[found] = (double)(slice + 1) * spacing[0];
                    places[count + found] = (double)(row + 1) * spacing[1];
                    places[2 * count + found++] = (double)(column + 1) * spacing[2];
                }
    double root = sqrt((double)count);
    for (int axis = 0; axis < 3; axis++) {
        double *along = places + axis * count, mean = summed(along, count, chunk) / (double)count;
        for (int64_t voxel = 0; voxel < count; voxel++)
            along[voxel] = (along[voxel] - mean) / root;
    }
    return 0;
}
