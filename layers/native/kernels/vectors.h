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

/* The first count floats (1 to LANES), then zeros. */
ALWAYS vec load_some(const float *from, long count) {
    if (count >= LANES) return load(from);
    vec value = {0};
    __builtin_memcpy(&value, from, 4 * count);
    return value;
}
ALWAYS void store_some(float *to, vec value, long count) {
    if (count >= LANES) store(to, value);
    else __builtin_memcpy(to, &value, 4 * count);
}

#if LANES == 16
#define COUNTING {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
#elif LANES == 8
#define COUNTING {0, 1, 2, 3, 4, 5, 6, 7}
#else
#define COUNTING {0, 1, 2, 3}
#endif

/* a where which is set, b elsewhere. */
ALWAYS vec choose(mask which, vec a, vec b) { return (vec)((which & (mask)a) | (~which & (mask)b)); }

/* A square of LANES x LANES, turned over its diagonal: blocks of 1, 2, 4 ... change places. */
ALWAYS void transpose(vec *square) {
    const mask lane = COUNTING;
    _Pragma("GCC unroll 4") for (int size = 1; size < LANES; size *= 2) {
        mask odd = (lane & size) != 0;
        mask upper = lane + (odd & (LANES - size)), lower = lane + (odd & (LANES - size)) + size;
        _Pragma("GCC unroll 16") for (int i = 0; i < LANES; i++) {
            if (i & size) continue;
            vec a = square[i], b = square[i + size];
            square[i] = __builtin_shuffle(a, b, upper);
            square[i + size] = __builtin_shuffle(a, b, lower);
        }
    }
}

ALWAYS long least(long a, long b) { return a < b ? a : b; }
ALWAYS long most(long a, long b) { return a > b ? a : b; }
ALWAYS long round_up(long count, long unit) { return (count + unit - 1) / unit * unit; }

typedef struct {
    long first, last;
} range_t;

/* Which of count things the member of a team does. */
ALWAYS range_t share(long count, long member, long team) {
    return (range_t){count * member / team, count * (member + 1) / team};
}

#endif
