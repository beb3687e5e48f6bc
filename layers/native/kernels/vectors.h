/* Vectors of the width that the processor has, by the compiler's own types, and loops over threads. */

#ifndef CORTADO_VECTORS_H
#define CORTADO_VECTORS_H

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif

#define ALWAYS static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")
/* For loops over a constant number of vectors, which stay in registers only if nothing is left of them. */
#define UNROLL_ALL _Pragma("GCC unroll 64")

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int mask __attribute__((vector_size(4 * LANES)));
/* The same in memory, at any address. */
typedef float loose_vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

ALWAYS vec load(const float *from) { return *(const loose_vec *)from; }
ALWAYS void store(float *to, vec value) { *(loose_vec *)to = value; }

/* max(x, 0), which keeps NaN. */
ALWAYS vec rectify(vec x) {
    return (vec)((mask)x & ~(x <= (vec){0}));
}

ALWAYS long least(long a, long b) { return a < b ? a : b; }
ALWAYS long round_up(long count, long unit) { return (count + unit - 1) / unit * unit; }

typedef struct {
    long first, last;
} range_t;

/* Which of count things the member of a team does. */
ALWAYS range_t share(long count, long member, long team) {
    return (range_t){count * member / team, count * (member + 1) / team};
}

#endif
