/* The inner loops of radiomics, of which NumPy would need many passes. Plain C, called through ctypes; see kernels.py.

   Wherever a sum is rounded it is added in the order of pyradiomics', NumPy's and ITK's own code, so that the bits are
   theirs. Compiled without contraction of a product and a sum into one operation, as theirs are. A function that
   allocates gives -1 where there is not enough memory. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Twice the lanes where the processor has them; each lane's bits are the same. */
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && __GNUC__ >= 12 && !defined(__clang__)
#define WIDE __attribute__((target_clones("default", "avx2", "arch=x86-64-v4")))
#elif defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define WIDE __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define WIDE
#endif

/* As NumPy adds terms that lie side by side: pairwise, and anew after each chunk. */
double summed(const double *terms, int64_t count, int64_t chunk);
