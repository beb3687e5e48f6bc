/* Local response normalisation across channels, which are innermost, and its gradient.
 *
 * y_i = x_i s_i^-b with s_i = k + a * (sum of x^2 over the channels around i). So
 * dx_i = g_i s_i^-b - 2 a b x_i * (sum of g_j y_j / s_j over the channels around i). A few pixels are done
 * at a time, whose squares and ratios stay in the first cache; the scale s is summed again for the
 * gradient, which takes less time than to write and read it.
 */

#include <float.h>
#include <math.h>
#include <omp.h>

#include "streams.h"

/* Floats of an array of some pixels: two of them fit in the first cache. */
#define ROOM 4096

#if defined(__AVX512F__)
/* Some bits, and one step of Newton's method for the others. Zero and infinity are beyond that. */
ALWAYS vec inverse_root(vec x) {
    vec rough = (vec)_mm512_rsqrt14_ps((__m512)x);
    return choose((x > 0) & (x <= FLT_MAX), rough * (1.5f - 0.5f * x * rough * rough), rough);
}

ALWAYS vec root(vec x) {
    vec rough = (vec)_mm512_rsqrt14_ps((__m512)x);
    return choose((x > 0) & (x <= FLT_MAX), x * rough * (1.5f - 0.5f * x * rough * rough), x);
}
#else
ALWAYS vec root(vec x) {
#if defined(__AVX__)
    return (vec)_mm256_sqrt_ps((__m256)x);
#elif defined(__SSE__)
    return (vec)_mm_sqrt_ps((__m128)x);
#else
    for (int i = 0; i < LANES; i++) x[i] = sqrtf(x[i]);
    return x;
#endif
}

ALWAYS vec inverse_root(vec x) { return 1.0f / root(x); }
#endif

/* The power -beta of the number whose inverse root is given; beta in quarters. */
ALWAYS vec power(int quarters, vec inverse) {
    if (quarters == 2) return inverse;
    return inverse * (quarters == 4 ? inverse : root(inverse));
}

typedef struct {
    long pixels, channels, reach, threads;
    long lead, row, most; /* floats before a row's channels and in a row, and rows that fit in ROOM */
    float factor, offset, slope;
} plan_t;

ALWAYS plan_t make_plan(const long *given, float factor, float offset, float slope) {
    plan_t p = {.pixels = given[0], .channels = given[1], .reach = given[2], .threads = given[3],
                .factor = factor, .offset = offset, .slope = slope};
    p.lead = round_up(p.reach, LANES);
    p.row = round_up(p.lead + p.channels + p.reach, LANES);
    p.most = ROOM / p.row;
    return p;
}

/* The channels that a step at c works on: the last step overlaps the one before it. */
ALWAYS long place(long c, long channels) { return least(c, channels - LANES); }

ALWAYS vec sum_around(const float *at, long reach) {
    vec sum = load(at);
    for (long d = 1; d <= reach; d++) sum += load(at - d) + load(at + d);
    return sum;
}

ALWAYS void square(const plan_t *p, const number *x, long count, float *squares) {
    for (long i = 0; i < count; i++)
        for (long c = 0; c < p->channels; c += LANES) {
            long at = place(c, p->channels);
            vec value = load_numbers(x + i * p->channels + at);
            store(squares + i * p->row + p->lead + at, value * value);
        }
}

ALWAYS vec inverse_scale_root(const plan_t *p, long reach, const float *squares) {
    return inverse_root(p->offset + p->factor * sum_around(squares, reach));
}

ALWAYS void forward_pixels(const plan_t *p, int quarters, long reach, const number *x, long count,
                           float *squares, int past, number *y) {
    square(p, x, count, squares);
    for (long i = 0; i < count; i++)
        for (long c = 0; c < p->channels; c += LANES) {
            long at = place(c, p->channels), pixel = i * p->channels + at;
            vec inverse = inverse_scale_root(p, reach, squares + i * p->row + p->lead + at);
            put(past, y + pixel, load_numbers(x + pixel) * power(quarters, inverse));
        }
}

ALWAYS void backward_pixels(const plan_t *p, int quarters, long reach, const number *x, const number *grad,
                            long count, float *squares, float *direct, float *ratios, int past, number *result) {
    square(p, x, count, squares);
    for (long i = 0; i < count; i++)
        for (long c = 0; c < p->channels; c += LANES) {
            long at = place(c, p->channels), pixel = i * p->channels + at, own = i * p->row + p->lead + at;
            vec inverse = inverse_scale_root(p, reach, squares + own);
            vec scaled = load_numbers(grad + pixel) * power(quarters, inverse);
            store(direct + own, scaled);
            store(ratios + own, scaled * load_numbers(x + pixel) * (inverse * inverse));
        }
    for (long i = 0; i < count; i++)
        for (long c = 0; c < p->channels; c += LANES) {
            long at = place(c, p->channels), pixel = i * p->channels + at, own = i * p->row + p->lead + at;
            vec across = p->slope * sum_around(ratios + own, reach);
            put(past, result + pixel, load(direct + own) + load_numbers(x + pixel) * across);
        }
}

/* The top (no grad), or the gradient of the bottom for that of the top. */
ALWAYS void normalise(const plan_t *p, int quarters, long reach, const number *x, const number *grad, number *to) {
    int past = streams(to, p->pixels * p->channels, p->channels);
#pragma omp parallel num_threads(p->threads)
    {
        /* What lies between the rows stays zero. */
        float squares[ROOM] __attribute__((aligned(64))) = {0}, ratios[ROOM] __attribute__((aligned(64)));
        float direct[ROOM] __attribute__((aligned(64)));
        if (grad) for (int i = 0; i < ROOM; i++) ratios[i] = 0;
        range_t mine = share(p->pixels, omp_get_thread_num(), omp_get_num_threads());
        for (long i = mine.first; i < mine.last; i += p->most) {
            long count = least(p->most, mine.last - i), from = i * p->channels;
            if (grad) backward_pixels(p, quarters, reach, x + from, grad + from, count, squares, direct, ratios, past, to + from);
            else forward_pixels(p, quarters, reach, x + from, count, squares, past, to + from);
        }
        if (past) end_streams();
    }
}

/* Constants for the usual reach of 2 and powers. */
ALWAYS void by_case(const plan_t *p, long quarters, const number *x, const number *grad, number *to) {
    if (quarters == 3 && p->reach == 2) normalise(p, 3, 2, x, grad, to);
    else if (quarters == 3) normalise(p, 3, p->reach, x, grad, to);
    else if (quarters == 2) normalise(p, 2, p->reach, x, grad, to);
    else normalise(p, 4, p->reach, x, grad, to);
}

/* s = offset + factor * the sum of squares; quarters is four times beta. */
void lrn_forward(const number *x, number *y, long quarters, float factor, float offset, const long *given) {
    plan_t p = make_plan(given, factor, offset, 0);
    by_case(&p, quarters, x, 0, y);
}

/* slope is -2 factor beta. */
void lrn_backward(const number *x, const number *grad, number *result, long quarters, float factor, float offset,
                  float slope, const long *given) {
    plan_t p = make_plan(given, factor, offset, slope);
    by_case(&p, quarters, x, grad, result);
}
