/* MAX and AVE pooling of images with channels innermost, and their gradients.
 *
 * Windows are clipped to the image, and each has at least one pixel. MAX notes for every window which
 * pixel was the largest, counted along its rows, in one byte. A gradient is gathered, pixel by pixel
 * from the windows over it, so that each is written once and threads never meet.
 */

#include <omp.h>

#include "streams.h"

typedef int ints __attribute__((vector_size(4 * LANES)));
typedef unsigned char bytes __attribute__((vector_size(LANES)));
typedef unsigned char loose_bytes __attribute__((vector_size(LANES), aligned(1), may_alias));

ALWAYS ints all(int value) { return (ints){0} + value; }

ALWAYS void store_bytes(unsigned char *to, ints values) {
    *(loose_bytes *)to = __builtin_convertvector(values, bytes);
}

/* The compiler's own conversion goes through memory. */
ALWAYS ints load_bytes(const unsigned char *from) {
#if defined(__AVX512F__)
    return (ints)_mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)from));
#elif defined(__AVX2__)
    return (ints)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)from));
#else
    ints values;
    for (int i = 0; i < LANES; i++) values[i] = from[i];
    return values;
#endif
}

/* Windows along one axis. */
typedef struct {
    long size, out, kernel, stride, pad;
} axis_t;

typedef struct {
    long images, channels, threads;
    axis_t down, across;
} plan_t;

ALWAYS axis_t make_axis(const long *given) {
    return (axis_t){.size = given[0], .out = given[1], .kernel = given[2], .stride = given[3], .pad = given[4]};
}

ALWAYS plan_t make_plan(const long *given) {
    return (plan_t){.images = given[0], .channels = given[1], .threads = given[2],
                    .down = make_axis(given + 3), .across = make_axis(given + 8)};
}

/* The pixels that a window covers, and where the first of them lies in it. */
typedef struct {
    long first, count, from;
} window_t;

ALWAYS window_t window(axis_t a, long index) {
    long start = index * a.stride - a.pad, from = start < 0 ? -start : 0;
    return (window_t){.first = start + from, .count = least(a.kernel, a.size - start) - from, .from = from};
}

/* What each window along an axis is divided by, inverted: its size without what lies beyond the padded
 * image, as Caffe counts. */
ALWAYS void weigh(axis_t a, float *weights) {
    for (long i = 0; i < a.out; i++) weights[i] = 1.0f / least(a.kernel, a.size + 2 * a.pad - i * a.stride);
}

/* Moves a range of windows on to those that cover a pixel; without a division, which takes longer than
 * the pixel. */
ALWAYS void move(axis_t a, long pixel, range_t *windows) {
    while (windows->first * a.stride + a.kernel <= pixel + a.pad) windows->first++;
    while (windows->last < a.out && windows->last * a.stride <= pixel + a.pad) windows->last++;
}

/* The channels that a step at c works on: the last step overlaps the one before it. */
ALWAYS long place(long c, long channels) { return least(c, channels - LANES); }

/* Pixels in memory: rows of them, and where in the window they are. */
typedef struct {
    const number *data;
    long row, step, height, width, from, kernel;
} pixels_t;

/* The largest of height x width pixels, the first of equals, but the last NaN. */
ALWAYS void largest(pixels_t p, long height, long width, long channels, int past, number *y,
                    unsigned char *which) {
    for (long i = 0; i < channels; i += LANES) {
        long c = place(i, channels);
        vec best = load_numbers(p.data + c);
        ints at = all(p.from);
        UNROLL for (long h = 0; h < height; h++)
            UNROLL for (long w = 0; w < width; w++) {
                vec x = load_numbers(p.data + h * p.row + w * p.step + c);
                ints take = (x > best) | (x != x);
                best = (vec)((take & (ints)x) | (~take & (ints)best));
                if (which) at = (take & all(p.from + h * p.kernel + w)) | (~take & at);
            }
        put(past, y + c, best);
        if (which) store_bytes(which + c, at);
    }
}

ALWAYS void weighted_sum(pixels_t p, long height, long width, float weight, long channels, int past,
                         number *y) {
    for (long i = 0; i < channels; i += LANES) {
        long c = place(i, channels);
        vec sum = {0};
        UNROLL for (long h = 0; h < height; h++)
            UNROLL for (long w = 0; w < width; w++) sum += load_numbers(p.data + h * p.row + w * p.step + c);
        put(past, y + c, sum * weight);
    }
}

/* Calls the function with a height and width as constants, where they are usual ones. */
#define BY_SIZE(function, p, ...)                                                    \
    do {                                                                             \
        if ((p).height == 3 && (p).width == 3) function(p, 3, 3, __VA_ARGS__);       \
        else if ((p).height == 2 && (p).width == 2) function(p, 2, 2, __VA_ARGS__);  \
        else if ((p).height == 2 && (p).width == 1) function(p, 2, 1, __VA_ARGS__);  \
        else if ((p).height == 1 && (p).width == 2) function(p, 1, 2, __VA_ARGS__);  \
        else if ((p).height == 1 && (p).width == 1) function(p, 1, 1, __VA_ARGS__);  \
        else function(p, (p).height, (p).width, __VA_ARGS__);                        \
    } while (0)

typedef enum { MARKED, PLAIN, AVERAGE } kind_t;

/* One row of windows of an image that begins at x; each is weighed by weight times its column's. */
ALWAYS void pool_row(kind_t kind, const plan_t *plan, const number *x, long row, float weight,
                     const float *weights, int past, number *y, unsigned char *which) {
    axis_t across = plan->across;
    long channels = plan->channels, line = across.size * channels;
    window_t rows = window(plan->down, row);
    for (long o = 0; o < across.out; o++, y += channels) {
        window_t columns = window(across, o);
        pixels_t p = {.data = x + rows.first * line + columns.first * channels, .row = line, .step = channels,
                      .height = rows.count, .width = columns.count,
                      .from = rows.from * across.kernel + columns.from, .kernel = across.kernel};
        if (kind == AVERAGE) BY_SIZE(weighted_sum, p, weight * weights[o], channels, past, y);
        else if (kind == MARKED) BY_SIZE(largest, p, channels, past, y, which + o * channels);
        else BY_SIZE(largest, p, channels, past, y, 0);
    }
}

ALWAYS void pool(kind_t kind, const number *x, number *y, unsigned char *which, const long *given) {
    plan_t plan = make_plan(given);
    long out = plan.down.out, line = plan.across.out * plan.channels;
    long image = plan.down.size * plan.across.size * plan.channels;
    float down[out], across[plan.across.out];
    weigh(plan.down, down);
    weigh(plan.across, across);
    int past = streams(y, plan.images * out * line, plan.channels);
#pragma omp parallel num_threads(plan.threads)
    {
        range_t mine = share(plan.images * out, omp_get_thread_num(), omp_get_num_threads());
        for (long r = mine.first; r < mine.last; r++)
            pool_row(kind, &plan, x + r / out * image, r % out, down[r % out], across, past, y + r * line,
                     kind == MARKED ? which + r * line : 0);
        if (past) end_streams();
    }
}

/* The top y of the bottom x; which becomes the pixels taken, if it is given. */
void pooling_maximum(const number *x, number *y, unsigned char *which, const long *given) {
    if (which) pool(MARKED, x, y, which, given);
    else pool(PLAIN, x, y, 0, given);
}

void pooling_average(const number *x, number *y, const long *given) { pool(AVERAGE, x, y, 0, given); }

/* The windows over one pixel: their gradients, which of its pixels it is for the first of them, by how
 * much less for the next row and column, and how they are weighed. */
typedef struct {
    const number *grad;
    const unsigned char *which;
    long row, step, height, width;
    int pixel, up, left;
    const float *down, *across;
} over_t;

ALWAYS void gather(over_t o, long height, long width, kind_t kind, long channels, int past, number *result) {
    for (long i = 0; i < channels; i += LANES) {
        long c = place(i, channels);
        vec sum = {0};
        UNROLL for (long h = 0; h < height; h++)
            UNROLL for (long w = 0; w < width; w++) {
                long at = h * o.row + w * o.step + c;
                vec grad = load_numbers(o.grad + at);
                if (kind == AVERAGE) sum += grad * (o.down[h] * o.across[w]);
                else sum += (vec)((load_bytes(o.which + at) == all(o.pixel - h * o.up - w * o.left)) & (ints)grad);
            }
        put(past, result + c, sum);
    }
}

/* The gradient of one row of pixels, from those of the windows of an image. */
ALWAYS void gather_row(kind_t kind, const plan_t *plan, const number *grad, const unsigned char *which,
                       long row, range_t rows, const float *down, const float *across, int past, number *result) {
    axis_t a = plan->across, d = plan->down;
    long channels = plan->channels, line = a.out * channels;
    range_t columns = {0, 0};
    for (long x = 0; x < a.size; x++, result += channels) {
        move(a, x, &columns);
        long at = rows.first * line + columns.first * channels;
        over_t o = {.grad = grad + at, .which = which + at, .row = line, .step = channels,
                    .height = rows.last - rows.first, .width = columns.last - columns.first,
                    .pixel = (row + d.pad - rows.first * d.stride) * a.kernel + x + a.pad - columns.first * a.stride,
                    .up = d.stride * a.kernel, .left = a.stride,
                    .down = down + rows.first, .across = across + columns.first};
        BY_SIZE(gather, o, kind, channels, past, result);
    }
}

ALWAYS void gradient(kind_t kind, const number *grad, const unsigned char *which, number *result, const long *given) {
    plan_t plan = make_plan(given);
    long size = plan.down.size, line = plan.across.size * plan.channels;
    long image = plan.down.out * plan.across.out * plan.channels;
    float down[plan.down.out], across[plan.across.out];
    weigh(plan.down, down);
    weigh(plan.across, across);
    int past = streams(result, plan.images * size * line, plan.channels);
#pragma omp parallel num_threads(plan.threads)
    {
        range_t mine = share(plan.images * size, omp_get_thread_num(), omp_get_num_threads()), rows = {0, 0};
        for (long r = mine.first; r < mine.last; r++) {
            long from = r / size * image;
            if (r % size == 0) rows = (range_t){0, 0};
            move(plan.down, r % size, &rows);
            gather_row(kind, &plan, grad + from, which + from, r % size, rows, down, across, past,
                       result + r * line);
        }
        if (past) end_streams();
    }
}

/* The gradient of the bottom for that of the top. */
void pooling_maximum_gradient(const number *grad, const unsigned char *which, number *result, const long *given) {
    gradient(MARKED, grad, which, result, given);
}

void pooling_average_gradient(const number *grad, number *result, const long *given) {
    gradient(AVERAGE, grad, (const unsigned char *)grad, result, given);
}
