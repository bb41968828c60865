/* The sums of pyradiomics' texture features, in the order in which NumPy adds them.

   p: a matrix of levels (and levels or sizes) and ways. NumPy adds along the first axes in sequence where there are
   several ways, and pairwise where there is one. chunk: so many terms NumPy adds pairwise before it starts anew.
   across: whether pyradiomics' matrix lies column by column in memory, in whose order NumPy adds; products with a whole
   matrix of factors lie row by row all the same. */

#include "kernels.h"

/* NumPy's pairwise sum (Higham 1993, SIAM J. Sci. Comput. 14(4)). */
static double pairwise(const double *terms, int64_t count)
{
    if (count < 8) {
        double sum = 0;
        for (int64_t i = 0; i < count; i++)
            sum += terms[i];
        return sum;
    }
    if (count <= 128) {
        double r[8];
        int64_t i = 8;
        for (int k = 0; k < 8; k++)
            r[k] = terms[k];
        for (; i < count - count % 8; i += 8)
            for (int k = 0; k < 8; k++)
                r[k] += terms[i + k];
        double sum = ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]));
        for (; i < count; i++)
            sum += terms[i];
        return sum;
    }
    int64_t half = count / 2 - count / 2 % 8;
    return pairwise(terms, half) + pairwise(terms + half, count - half);
}

double summed(const double *terms, int64_t count, int64_t chunk)
{
    double sum = 0;
    for (int64_t start = 0; start < count; start += chunk)
        sum += pairwise(terms + start, count - start < chunk ? count - start : chunk);
    return sum;
}

int64_t sum_of(const double *terms, int64_t count, int64_t chunk, double *sum)
{
    *sum = summed(terms, count, chunk);
    return 0;
}

/* The sum over the first axis of (count x ways), of one way pairwise. */
WIDE static void added(const double *terms, int64_t count, int64_t ways, int64_t chunk, double *sums)
{
    if (ways == 1) {
        sums[0] = summed(terms, count, chunk);
        return;
    }
    for (int64_t way = 0; way < ways; way++)
        sums[way] = 0;
    for (int64_t at = 0; at < count; at++)
        for (int64_t way = 0; way < ways; way++)
            sums[way] += terms[at * ways + way];
}

enum { SMALL, LARGE, LOW, HIGH, SMALL_LOW, SMALL_HIGH, LARGE_LOW, LARGE_HIGH, BY_LEVEL, BY_SIZE, SIZE, LEVEL_VARIANCE,
       SIZE_VARIANCE, ENTROPY };

/* The features of a matrix of runs, zones or dependences: counts, (levels x sizes x ways), without empty levels and
   sizes. share: the counts over number; logs: their binary logarithms. level and size: of each row and column. of_zones:
   whether the large zones of high levels are multiplied in the order of GLSZM. sums: by the names above, x ways. */
int64_t size_sums(const double *counts, const double *share, const double *logs, int64_t n, int64_t m, int64_t ways,
                  const double *level, const double *size, const double *number, int64_t across, int64_t of_zones,
                  int64_t chunk, double *sums)
{
    int64_t most = n * m > n + m ? n * m : n + m;
    double *terms = calloc((most + n + m) * ways, sizeof(double)), *by_level = terms + most * ways;
    double *by_size = by_level + n * ways, *mean = sums + ENTROPY * ways;
    if (!terms)
        return -1;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < m; j++)
            for (int64_t way = 0; way < ways; way++) {
                by_level[i * ways + way] += counts[(i * m + j) * ways + way];
                by_size[j * ways + way] += counts[(i * m + j) * ways + way];
            }
#define ADD(NAME, COUNT, TERM)                                                                                        \
    for (int64_t at = 0; at < (COUNT); at++)                                                                          \
        for (int64_t way = 0; way < ways; way++)                                                                      \
            terms[at * ways + way] = (TERM);                                                                          \
    added(terms, COUNT, ways, chunk, sums + (NAME) * ways);
#define OF_LEVEL by_level[at * ways + way]
#define OF_SIZE by_size[at * ways + way]
    ADD(SMALL, m, OF_SIZE / (size[at] * size[at]))
    ADD(LARGE, m, OF_SIZE * (size[at] * size[at]))
    ADD(LOW, n, OF_LEVEL / (level[at] * level[at]))
    ADD(HIGH, n, OF_LEVEL * (level[at] * level[at]))
    ADD(BY_LEVEL, n, OF_LEVEL * OF_LEVEL)
    ADD(BY_SIZE, m, OF_SIZE * OF_SIZE)
    ADD(SIZE, m, OF_SIZE * size[at])
    ADD(ENTROPY, n, OF_LEVEL / number[way] * level[at])
    ADD(LEVEL_VARIANCE, n, OF_LEVEL / number[way] * ((level[at] - mean[way]) * (level[at] - mean[way])))
    ADD(ENTROPY, m, OF_SIZE / number[way] * size[at])
    ADD(SIZE_VARIANCE, m, OF_SIZE / number[way] * ((size[at] - mean[way]) * (size[at] - mean[way])))
#define ADD_ALL(NAME, ACROSS, TERM)                                                                                   \
    for (int64_t i = 0; i < n; i++)                                                                                   \
        for (int64_t j = 0; j < m; j++) {                                                                             \
            double i2 = level[i] * level[i], j2 = size[j] * size[j], *to = terms;                                     \
            to += ((ACROSS) ? j * n + i : i * m + j) * ways;                                                          \
            for (int64_t at = (i * m + j) * ways; at < (i * m + j + 1) * ways; at++)                                  \
                *to++ = (TERM);                                                                                       \
        }                                                                                                             \
    added(terms, n * m, ways, chunk, sums + (NAME) * ways);
    ADD_ALL(SMALL_LOW, 0, counts[at] / (i2 * j2))
    ADD_ALL(SMALL_HIGH, across, counts[at] * i2 / j2)
    ADD_ALL(LARGE_LOW, across, counts[at] * j2 / i2)
    if (of_zones) {
        ADD_ALL(LARGE_HIGH, across, counts[at] * i2 * j2)
    } else {
        ADD_ALL(LARGE_HIGH, 0, counts[at] * (j2 * i2))
    }
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < m; j++)
            for (int64_t way = 0, at = (i * m + j) * ways; way < ways; way++, at++)
                terms[(across ? j * n + i : i * m + j) * ways + way] = share[at] * logs[at];
    added(terms, n * m, ways, chunk, sums + ENTROPY * ways);
    free(terms);
    return 0;
}

/* The features of the neighbours' differences: share of the voxels, sum of differences and value of n levels. */
int64_t difference_sums(const double *share, const double *apart, const double *level, int64_t n, int64_t chunk,
                        double *sums)
{
    double *terms = malloc((n * n + 1) * sizeof(double));
    if (!terms)
        return -1;
    for (int64_t i = 0; i < n; i++)
        terms[i] = share[i] * apart[i];
    sums[0] = summed(terms, n, chunk);
    sums[1] = summed(apart, n, chunk);
#define BETWEEN (level[i] - level[j])
#define ADD_PAIRS(NAME, TERM)                                                                                         \
    for (int64_t i = 0; i < n; i++)                                                                                   \
        for (int64_t j = 0; j < n; j++)                                                                               \
            terms[i * n + j] = (TERM);                                                                                \
    sums[NAME] = summed(terms, n * n, chunk);
    ADD_PAIRS(2, share[i] * share[j] * (BETWEEN * BETWEEN))
    ADD_PAIRS(3, fabs(level[i] * share[i] - level[j] * share[j]))
    ADD_PAIRS(4, fabs(BETWEEN) * (share[i] * apart[i] + share[j] * apart[j]) / (share[i] + share[j]))
    ADD_PAIRS(5, (share[i] + share[j]) * (BETWEEN * BETWEEN))
    free(terms);
    return 0;
}

/* Co-occurrence, (n x n x ways), of two ways or more: counts become probabilities p, and what its features are made of.
   All that follow are (rows x ways). marginals: of n rows px, of n py, of 2 highest - 1 the sums of levels, of highest
   their differences. product: px py. means: of i and of j. */
WIDE int64_t co_occurrence_parts(const double *counts, const double *totals, const int64_t *levels, int64_t n,
                              int64_t ways, int64_t highest, int64_t symmetrical, int64_t across, double *p,
                              double *product, double *marginals, double *means)
{
    double *px = marginals, *py = px + n * ways, *sums = py + n * ways, *differences = sums + (2 * highest - 1) * ways;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) {
            const double *one = counts + (i * n + j) * ways, *other = counts + (j * n + i) * ways;
            double *at = p + (i * n + j) * ways;
            double *sum = sums + (levels[i] + levels[j] - 2) * ways;
            double *difference = differences + llabs(levels[i] - levels[j]) * ways;
            for (int64_t way = 0; way < ways; way++) {
                double value = symmetrical ? (one[way] + other[way]) / (2 * totals[way]) : one[way] / totals[way];
                at[way] = value;
                px[i * ways + way] += value;
                py[j * ways + way] += value;
                sum[way] += value;
                difference[way] += value;
            }
        }
    for (int64_t place = 0; place < n * n; place++) {
        int64_t i = across ? place % n : place / n, j = across ? place / n : place % n;
        double of_i = (double)levels[i], of_j = (double)levels[j];
        for (int64_t way = 0; way < ways; way++) {
            means[way] += of_i * p[(i * n + j) * ways + way];
            means[ways + way] += of_j * p[(i * n + j) * ways + way];
        }
    }
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++)
            for (int64_t way = 0; way < ways; way++)
                product[(i * n + j) * ways + way] = px[i * ways + way] * py[j * ways + way];
    return 0;
}

enum { AUTOCORRELATION, PROMINENCE, SHADE, TENDENCY, CONTRAST, VARIANCE_I, VARIANCE_J, COVARIANCE, ENERGY, HXY, HXY1,
       HXY2, MOST, HX, HY, DIFFERENCE_AVERAGE, DIFFERENCE_ENTROPY, DIFFERENCE_VARIANCE, IDM, IDMN, ID, IDN,
       INVERSE_VARIANCE, SUM_AVERAGE, SUM_ENTROPY };

/* The sums by the names above, x ways; they start at zero. logs: of p; of_product: of the product; of_marginals: of the
   marginals. cubes, fourths: powers of a sum of levels (from 2 on) less the means. */
WIDE int64_t co_occurrence_sums(const double *p, const double *logs, const double *product, const double *of_product,
                             const double *marginals, const double *of_marginals, const double *means,
                             const double *cubes, const double *fourths, const int64_t *levels, int64_t n, int64_t ways,
                             int64_t highest, int64_t across, double *sums)
{
#define TO(NAME) sums[(NAME) * ways + way]
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) {
            double of_i = (double)levels[i], of_j = (double)levels[j], ij = of_i * of_j, both = of_i + of_j;
            double squared = (of_i - of_j) * (of_i - of_j);
            const double *cube = cubes + (levels[i] + levels[j] - 2) * ways;
            const double *fourth = fourths + (levels[i] + levels[j] - 2) * ways;
            for (int64_t way = 0; way < ways; way++) {
                int64_t at = (i * n + j) * ways + way;
                double value = p[at], together = both - means[way] - means[ways + way];
                TO(AUTOCORRELATION) += value * ij;
                TO(PROMINENCE) += value * fourth[way];
                TO(SHADE) += value * cube[way];
                TO(TENDENCY) += value * (together * together);
                TO(CONTRAST) += value * squared;
                TO(HXY1) += value * of_product[at];
                TO(HXY2) += product[at] * of_product[at];
                TO(MOST) = value > TO(MOST) ? value : TO(MOST);
            }
        }
    for (int64_t place = 0; place < n * n; place++) {
        int64_t i = across ? place % n : place / n, j = across ? place / n : place % n;
        double of_i = (double)levels[i], of_j = (double)levels[j];
        for (int64_t way = 0; way < ways; way++) {
            int64_t at = (i * n + j) * ways + way;
            double value = p[at], from_i = of_i - means[way], from_j = of_j - means[ways + way];
            TO(VARIANCE_I) += value * (from_i * from_i);
            TO(VARIANCE_J) += value * (from_j * from_j);
            TO(COVARIANCE) += value * from_i * from_j;
            TO(ENERGY) += value * value;
            TO(HXY) += value * logs[at];
        }
    }
    for (int64_t k = 0; k < n; k++)
        for (int64_t way = 0; way < ways; way++) {
            TO(HX) += marginals[k * ways + way] * of_marginals[k * ways + way];
            TO(HY) += marginals[(n + k) * ways + way] * of_marginals[(n + k) * ways + way];
        }
    int64_t start = 2 * n * ways;
    for (int64_t k = 2; k <= 2 * highest; k++, start += ways)
        for (int64_t way = 0; way < ways; way++) {
            TO(SUM_AVERAGE) += (double)k * marginals[start + way];
            TO(SUM_ENTROPY) += marginals[start + way] * of_marginals[start + way];
        }
    double of_highest = (double)highest, squared_highest = (double)(highest * highest);
    for (int64_t k = 0, from = start; k < highest; k++, from += ways)
        for (int64_t way = 0; way < ways; way++) {
            double value = marginals[from + way], of_k = (double)k;
            TO(DIFFERENCE_AVERAGE) += of_k * value;
            TO(DIFFERENCE_ENTROPY) += value * of_marginals[from + way];
            TO(IDM) += value / (1 + of_k * of_k);
            TO(IDMN) += value / (1 + of_k * of_k / squared_highest);
            TO(ID) += value / (1 + of_k);
            TO(IDN) += value / (1 + of_k / of_highest);
            TO(INVERSE_VARIANCE) += k ? value / (of_k * of_k) : 0;
        }
    for (int64_t k = 0; k < highest; k++, start += ways)
        for (int64_t way = 0; way < ways; way++) {
            double from_mean = (double)k - TO(DIFFERENCE_AVERAGE);
            TO(DIFFERENCE_VARIANCE) += marginals[start + way] * (from_mean * from_mean);
        }
    return 0;
}

/* One row of that matrix: of the levels k with p(i, k) > 0 in this direction. of_k: p(j, k) by k, side by side in j, of
   which [low, high) is not zero. */
WIDE static void correlations(const double *of_i, const double *of_k, const int32_t *low, const int32_t *high,
                              double px, const double *py, int64_t n, double eps, double *restrict row)
{
    for (int64_t k = 0; k < n; k++) {
        double pik = of_i[k], divisor = px * py[k] + eps;
        const double *pk = of_k + k * n;
        if (pik != 0)
            for (int64_t j = low[k]; j < high[k]; j++)
                row[j] += pik * pk[j] / divisor;
    }
}

/* The matrix whose eigenvalues give the maximal correlation coefficient: the sum over k, in order, of
   p(i, k) p(j, k) / (px(i) py(k) + eps), for each direction. p: levels x levels x ways; q: ways x levels x levels.
   Where p(i, k) or p(j, k) is zero the term is zero, and is left out. */
int64_t correlation_matrix(const double *p, const double *px, const double *py, int64_t n, int64_t ways, double eps,
                           double *q)
{
    double *of_way = malloc((2 * n * n + n) * sizeof(double)), *of_k = of_way + n * n, *of_py = of_k + n * n;
    int32_t *low = malloc(2 * n * sizeof(int32_t)), *high = low + n;
    int64_t missing = !of_way || !low;
    memset(q, 0, ways * n * n * sizeof(double));
    for (int64_t way = 0; way < ways && !missing; way++) {
        for (int64_t k = 0; k < n; k++) {
            low[k] = (int32_t)n;
            high[k] = 0;
            of_py[k] = py[k * ways + way];
        }
        for (int64_t j = 0; j < n; j++)
            for (int64_t k = 0; k < n; k++) {
                double value = p[(j * n + k) * ways + way];
                of_way[j * n + k] = of_k[k * n + j] = value;
                if (value != 0) {
                    low[k] = low[k] < j ? low[k] : (int32_t)j;
                    high[k] = (int32_t)j + 1;
                }
            }
        for (int64_t i = 0; i < n; i++)
            correlations(of_way + i * n, of_k, low, high, px[i * ways + way], of_py, n, eps, q + (way * n + i) * n);
    }
    free(of_way);
    free(low);
    return missing ? -1 : 0;
}

enum { TOTAL, SQUARES, ABSOLUTE, ENERGY_SUM, ROBUST, INSIDE };

/* Of values: their deviations from the mean, and by the names above their sum, that of squared and of absolute
   deviations, of the squared values plus shift, and of absolute deviations within [low, high] from the mean there, where
   others count as zero in their place, with the number of values there. */
WIDE int64_t first_order_sums(const double *values, int64_t count, double shift, double low, double high,
                              int64_t chunk, double *deviations, double *sums)
{
    double *terms = malloc((count + 1) * sizeof(double)), mean, inside = 0;
    if (!terms)
        return -1;
    sums[TOTAL] = summed(values, count, chunk);
    mean = sums[TOTAL] / (double)count;
    for (int64_t at = 0; at < count; at++) {
        deviations[at] = values[at] - mean;
        terms[at] = deviations[at] * deviations[at];
    }
    sums[SQUARES] = summed(terms, count, chunk);
    for (int64_t at = 0; at < count; at++)
        terms[at] = fabs(deviations[at]);
    sums[ABSOLUTE] = summed(terms, count, chunk);
    for (int64_t at = 0; at < count; at++)
        terms[at] = (values[at] + shift) * (values[at] + shift);
    sums[ENERGY_SUM] = summed(terms, count, chunk);
    for (int64_t at = 0; at < count; at++) {
        int within = !(values[at] - low < 0 || values[at] - high > 0);
        terms[at] = within ? values[at] : 0;
        inside += within;
    }
    mean = summed(terms, count, chunk) / inside;
    for (int64_t at = 0; at < count; at++)
        terms[at] = values[at] - low < 0 || values[at] - high > 0 ? 0 : fabs(values[at] - mean);
    sums[ROBUST] = summed(terms, count, chunk);
    sums[INSIDE] = inside;
    free(terms);
    return 0;
}
