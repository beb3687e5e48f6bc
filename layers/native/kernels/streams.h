/* Stores past the caches: of what is too large to stay there, they take a third of the time, as memory
 * is not read before it is written. */

#ifndef CORTADO_STREAMS_H
#define CORTADO_STREAMS_H

#include <stdint.h>

#if defined(__SSE__)
#include <immintrin.h>
#endif

#include "vectors.h"

/* Floats of a blob from which on the caches of a processor are too small for it. */
#define TOO_LARGE (1L << 20)

/* Whether to store so: a blob of this many floats, in rows of whole vectors. */
ALWAYS int streams(const float *to, long floats, long row) {
    return floats >= TOO_LARGE && row % LANES == 0 && (uintptr_t)to % sizeof(vec) == 0;
}

ALWAYS void put(int streams, float *to, vec value) {
#if defined(__AVX512F__)
    if (streams) return _mm512_stream_ps(to, (__m512)value);
#elif defined(__AVX__)
    if (streams) return _mm256_stream_ps(to, (__m256)value);
#elif defined(__SSE__)
    if (streams) return _mm_stream_ps(to, (__m128)value);
#endif
    (void)streams;
    store(to, value);
}

/* After the last: lets other threads see them. */
ALWAYS void end_streams(void) {
#if defined(__SSE__)
    _mm_sfence();
#endif
}

#endif
