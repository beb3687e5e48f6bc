/* The numbers of blobs: float, or bfloat16 (the upper half of a float) if compiled with BFLOAT16. All
 * arithmetic is in float: loads widen, which is exact, stores round to the nearest, of two to the even. */

#ifndef CORTADO_NUMBERS_H
#define CORTADO_NUMBERS_H

#if defined(__SSE__)
#include <immintrin.h>
#endif

#include "vectors.h"

#if defined(BFLOAT16)
#define NUMBER_BYTES 2
typedef unsigned short number;
#else
#define NUMBER_BYTES 4
typedef float number;
#endif

/* LANES numbers, as many as a vec has. */
typedef number numbers __attribute__((vector_size(NUMBER_BYTES * LANES)));
typedef number loose_numbers __attribute__((vector_size(NUMBER_BYTES * LANES), aligned(NUMBER_BYTES), may_alias));

#if defined(BFLOAT16)
typedef unsigned words __attribute__((vector_size(4 * LANES)));

ALWAYS vec widen(numbers values) {
    /* The compiler's own conversion goes through memory. */
#if defined(__AVX512F__)
    return (vec)((words)_mm512_cvtepu16_epi32((__m256i)values) << 16);
#elif defined(__AVX2__)
    return (vec)((words)_mm256_cvtepu16_epi32((__m128i)values) << 16);
#else
    return (vec)(__builtin_convertvector(values, words) << 16);
#endif
}

/* Not the processor's own instruction, which takes numbers next to zero for zero. */
ALWAYS numbers narrow(vec value) {
    words bits = (words)value, rounded = bits + 0x7fff + (bits >> 16 & 1);
    /* NaN stays NaN, which rounding could make infinite. */
    words chosen = (words)choose(value != value, (vec)(bits | 0x400000), (vec)rounded);
    return __builtin_convertvector(chosen >> 16, numbers);
}
#else
ALWAYS vec widen(numbers values) { return values; }
ALWAYS numbers narrow(vec value) { return value; }
#endif

ALWAYS vec load_numbers(const number *from) { return widen(*(const loose_numbers *)from); }
ALWAYS void store_numbers(number *to, vec value) { *(loose_numbers *)to = narrow(value); }

#endif
