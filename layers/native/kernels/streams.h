/* Stores past the caches: of what is too large to stay there, they take a third of the time, as memory
 * is not read before it is written. */

#ifndef CORTADO_STREAMS_H
#define CORTADO_STREAMS_H

#include <stdint.h>

#include "numbers.h"

/* Bytes of a blob from which on the caches of a processor are too small for it. */
#define TOO_LARGE (1L << 22)

/* Whether to store so: a blob of this many numbers, in rows of whole vectors. */
ALWAYS int streams(const number *to, long count, long row) {
    return count * NUMBER_BYTES >= TOO_LARGE && row % LANES == 0 && (uintptr_t)to % sizeof(numbers) == 0;
}

ALWAYS void put(int streams, number *to, vec value) {
#if defined(__AVX512F__) && NUMBER_BYTES * LANES == 64
    if (streams) return _mm512_stream_si512((void *)to, (__m512i)narrow(value));
#elif defined(__AVX__) && NUMBER_BYTES * LANES == 32
    if (streams) return _mm256_stream_si256((void *)to, (__m256i)narrow(value));
#elif defined(__SSE2__) && NUMBER_BYTES * LANES == 16
    if (streams) return _mm_stream_si128((void *)to, (__m128i)narrow(value));
#endif
    (void)streams;
    store_numbers(to, value);
}

/* After the last: lets other threads see them. */
ALWAYS void end_streams(void) {
#if defined(__SSE__)
    _mm_sfence();
#endif
}

#endif
