/* Products of few rows with a large matrix of weights [outputs][inputs], both ways. The weights are read
 * once, some of their rows side by side, as fast as memory gives them. What is small, the rows x or the
 * gradient for them, is kept in chunks of columns, [chunk][row][column], which stay in the first cache one at
 * a time; as rows of the blob they might all lie in the same places of it.
 */

#include <omp.h>
#include <string.h>

#include "vectors.h"

/* Rows of weights that are read side by side, and rows of x whose values stay in registers. */
#if LANES == 16
#define STREAMS 8
#define TILE 3
#define BACK_TILE 2
#else
#define STREAMS 4
#define TILE 2
#define BACK_TILE 1
#endif
#define CHUNK 128
/* Rows of weights for which a chunk of the gradient is in the first cache once. */
#define GROUP (2 * STREAMS)
/* The most rows of x. */
#define MOST_ROWS 32

typedef struct {
    long rows, inputs, outputs, rectified, threads;
} call_t;

/* Some columns of all rows, side by side. */
typedef struct {
    long first, count;
    float *values;
} chunk_t;

ALWAYS chunk_t chunk_at(const call_t *c, float *room, long first, long end) {
    return (chunk_t){first, least(CHUNK, end - first), room + first * c->rows};
}

/* Weights of the chunk after this one, which are fetched bit by bit while this one is multiplied, so that memory
 * never rests. */
typedef struct {
    const float *const *w;
    long column, next, each;
} ahead_t;

#define LINES (CHUNK / LANES)

ALWAYS ahead_t ahead_of(const chunk_t *chunk, const float *const *w, long tiles) {
    return (ahead_t){w, chunk->first + chunk->count, 0, (STREAMS + tiles - 1) / tiles};
}

ALWAYS void fetch(ahead_t *a) {
    for (long i = 0; i < a->each; i++, a->next++)
        __builtin_prefetch(a->w[a->next / LINES % STREAMS] + a->column + a->next % LINES * LANES);
}

/* ---- forward ---- */

/* sums[row][stream] += x[row] * w[stream] for tile rows of a chunk. */
ALWAYS void add_dots(const chunk_t *x, long row, const float *const *w, int tile, ahead_t *ahead,
                     vec (*sums)[STREAMS]) {
    const float *values = x->values + row * x->count;
    vec sum[TILE][STREAMS];
    UNROLL_ALL for (int t = 0; t < tile; t++) UNROLL_ALL for (int s = 0; s < STREAMS; s++) sum[t][s] = sums[row + t][s];
    for (long c = 0; c < x->count; c += LANES) {
        vec a[TILE];
        fetch(ahead);
        UNROLL_ALL for (int t = 0; t < tile; t++) a[t] = load(values + t * x->count + c);
        UNROLL_ALL for (int s = 0; s < STREAMS; s++) {
            vec b = load(w[s] + x->first + c);
            UNROLL_ALL for (int t = 0; t < tile; t++) sum[t][s] += a[t] * b;
        }
    }
    UNROLL_ALL for (int t = 0; t < tile; t++) UNROLL_ALL for (int s = 0; s < STREAMS; s++) sums[row + t][s] = sum[t][s];
}

static void dots_of_streams(const call_t *c, float *room, const float *const *w, vec (*sums)[STREAMS]) {
    memset(sums, 0, c->rows * sizeof *sums);
    for (long first = 0; first < c->inputs; first += CHUNK) {
        chunk_t x = chunk_at(c, room, first, c->inputs);
        ahead_t ahead = ahead_of(&x, w, (c->rows + TILE - 1) / TILE);
        long row = c->rows % TILE;
        if (row == 1) add_dots(&x, 0, w, 1, &ahead, sums);
        else if (row) add_dots(&x, 0, w, TILE - 1, &ahead, sums);
        for (; row < c->rows; row += TILE) add_dots(&x, row, w, TILE, &ahead, sums);
    }
}

ALWAYS float total(vec value) {
    float sum = 0;
    UNROLL_ALL for (int lane = 0; lane < LANES; lane++) sum += value[lane];
    return sum;
}

/* y = x w^T + bias, no less than 0 if rectified; bias may be null. */
void few_rows_forward(const float *x, const float *weights, const float *bias, float *y, float *room,
                      const call_t *c) {
    long chunks = (c->inputs + CHUNK - 1) / CHUNK, parts = (c->outputs + STREAMS - 1) / STREAMS;
#pragma omp parallel num_threads(c->threads)
    {
#pragma omp for schedule(static)
        for (long i = 0; i < chunks; i++) {
            chunk_t to = chunk_at(c, room, i * CHUNK, c->inputs);
            for (long row = 0; row < c->rows; row++)
                memcpy(to.values + row * to.count, x + row * c->inputs + to.first, 4 * to.count);
        }
        range_t mine = share(parts, omp_get_thread_num(), omp_get_num_threads());
        vec sums[MOST_ROWS][STREAMS];
        for (long part = mine.first; part < mine.last; part++) {
            long output = part * STREAMS, count = least(STREAMS, c->outputs - output);
            const float *w[STREAMS];
            for (int s = 0; s < STREAMS; s++) w[s] = weights + least(output + s, c->outputs - 1) * c->inputs;
            dots_of_streams(c, room, w, sums);
            for (long row = 0; row < c->rows; row++)
                for (long s = 0; s < count; s++) {
                    float value = total(sums[row][s]) + (bias ? bias[output + s] : 0);
                    y[row * c->outputs + output + s] = c->rectified && value <= 0 ? 0 : value;
                }
        }
    }
}

/* ---- backward ---- */

/* to[row] += the sum over streams of factors[row][stream] * w[stream], for tile rows of a chunk. */
ALWAYS void add_rows(const chunk_t *to, long row, const float *const *w, int tile, ahead_t *ahead,
                     float (*factors)[STREAMS]) {
    float *values = to->values + row * to->count;
    vec factor[TILE][STREAMS];
    UNROLL_ALL for (int t = 0; t < tile; t++) UNROLL_ALL for (int s = 0; s < STREAMS; s++)
        factor[t][s] = (vec){0} + factors[row + t][s];
    for (long c = 0; c < to->count; c += LANES) {
        vec sum[TILE];
        fetch(ahead);
        /* From zero on: the errors of rounding grow with the length of a chain of sums. */
        UNROLL_ALL for (int t = 0; t < tile; t++) sum[t] = (vec){0};
        UNROLL_ALL for (int s = 0; s < STREAMS; s++) {
            vec b = load(w[s] + to->first + c);
            UNROLL_ALL for (int t = 0; t < tile; t++) sum[t] += factor[t][s] * b;
        }
        UNROLL_ALL for (int t = 0; t < tile; t++) {
            float *at = values + t * to->count + c;
            store(at, load(at) + sum[t]);
        }
    }
}

/* A chunk of the gradient, for the weights' rows from output on. */
static void add_streams(const call_t *c, const chunk_t *to, const float *grad, const float *weights, long output) {
    const float *w[STREAMS];
    float factors[MOST_ROWS][STREAMS];
    for (int s = 0; s < STREAMS; s++) {
        long there = output + s < c->outputs, index = there ? output + s : c->outputs - 1;
        w[s] = weights + index * c->inputs;
        for (long row = 0; row < c->rows; row++) factors[row][s] = there ? grad[row * c->outputs + index] : 0;
    }
    ahead_t ahead = ahead_of(to, w, (c->rows + BACK_TILE - 1) / BACK_TILE);
    long row = c->rows % BACK_TILE;
    if (row) add_rows(to, 0, w, 1, &ahead, factors);
    for (; row < c->rows; row += BACK_TILE) add_rows(to, row, w, BACK_TILE, &ahead, factors);
}

/* to = grad w: the gradient for x. */
void few_rows_backward(const float *grad, const float *weights, float *to, float *room, const call_t *c) {
#pragma omp parallel num_threads(c->threads)
    {
        range_t mine = share(c->inputs / LANES, omp_get_thread_num(), omp_get_num_threads());
        long begin = mine.first * LANES, end = mine.last * LANES;
        memset(room + begin * c->rows, 0, 4 * (end - begin) * c->rows);
        for (long group = 0; group < c->outputs; group += GROUP)
            for (long first = begin; first < end; first += CHUNK) {
                chunk_t part = chunk_at(c, room, first, end);
                for (long output = group; output < least(group + GROUP, c->outputs); output += STREAMS)
                    add_streams(c, &part, grad, weights, output);
            }
        for (long first = begin; first < end; first += CHUNK) {
            chunk_t part = chunk_at(c, room, first, end);
            for (long row = 0; row < c->rows; row++)
                memcpy(to + row * c->inputs + first, part.values + row * part.count, 4 * part.count);
        }
    }
}
