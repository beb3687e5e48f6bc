/* Normalisation by the statistics of the batch, with what follows it: weight and bias, a sum, a ReLU.
 *
 * A blob is pixels x channels, channels innermost. Sums over pixels are taken in float over a block of
 * pixels and in double over blocks. The squares in a block are taken about the block's own mean, so that
 * nothing is lost where the mean is large next to the deviation (Chan, Golub and LeVeque 1983). Memory is
 * what takes the time: each thread goes over its pixels once for the sums and once for the result.
 */

#include <math.h>
#include <omp.h>

#include "numbers.h"

/* Values of a block, which the cache nearest to the core holds twice, and its pixels within limits. */
#define BLOCK 16384
#define MOST_PIXELS 64
#define LEAST_PIXELS 32
#define GROUP 4 /* vectors whose sums stay in registers */
/* Values between what is read and what is asked of memory meanwhile: the processor does not see that
 * itself where blocks are read in columns, or backwards. */
#define AHEAD 4096

/* What is summed: moments of x, or gradients, all or those that a ReLU after weight and bias lets through. */
enum { MOMENTS, GRADIENTS, OPEN_GRADIENTS };

typedef struct {
    long pixels, channels, threads;
    double *sums; /* thread x 2 x channels */
    const number *x, *addend;
    const number *grad;         /* of the top; where masked is given, that is what is read, and is first made */
    const number *y, *unmasked; /* of unmasked, where y > 0 */
    number *masked, *result;    /* the result may be left out */
    /* One for each channel: y = (x - mean) factor + shift, deviation being 1 / sqrt(variance + eps); from
     * the gradient's product with factor, that of x differs by (x - mean) slope + offset. */
    const float *weight, *bias;
    float *mean, *variance, *deviation, *factor, *shift;
    float *slope, *offset, *weight_gradient, *bias_gradient;
    float eps;
} work_t;

/* Of a vector, the first so many lanes; the others are 0 and stay where they are. */
ALWAYS vec load_lanes(const float *from, long lanes) {
    if (lanes == LANES) return load(from);
    vec value = {0};
    for (long i = 0; i < lanes; i++) value[i] = from[i];
    return value;
}

ALWAYS vec load_some_numbers(const number *from, long lanes) {
    if (lanes == LANES) return load_numbers(from);
    number some[LANES] = {0};
    for (long i = 0; i < lanes; i++) some[i] = from[i];
    return load_numbers(some);
}

ALWAYS vec load_ahead(const number *from, long lanes, long ahead) {
    __builtin_prefetch(from + ahead, 0, 2);
    return load_some_numbers(from, lanes);
}

ALWAYS void store_some_numbers(number *to, vec value, long lanes) {
    if (lanes == LANES) return store_numbers(to, value);
    number some[LANES];
    store_numbers(some, value);
    for (long i = 0; i < lanes; i++) to[i] = some[i];
}

ALWAYS vec zero_where(mask condition, vec value) { return (vec)(~condition & (mask)value); }

/* Adds the sums of x and x^2 over count pixels to sums[0] and sums[1]. */
ALWAYS void add_moments(const work_t *w, double *sums, long pixel, long count, long c, int width, long lanes) {
    const number *x = w->x + pixel * w->channels + c;
    vec mean[GROUP] = {0}, rest[GROUP] = {0}, square[GROUP] = {0};
    for (long p = 0; p < count; p++)
        UNROLL for (int i = 0; i < width; i++) mean[i] += load_ahead(x + p * w->channels + i * LANES, lanes, AHEAD);
    UNROLL for (int i = 0; i < width; i++) mean[i] /= (float)count;
    for (long p = 0; p < count; p++)
        UNROLL for (int i = 0; i < width; i++) {
            vec d = load_some_numbers(x + p * w->channels + i * LANES, lanes) - mean[i];
            rest[i] += d; /* what rounding has left of it */
            square[i] += d * d;
        }
    UNROLL for (int i = 0; i < width; i++) {
        float means[LANES], rests[LANES], squares[LANES];
        store(means, mean[i]), store(rests, rest[i]), store(squares, square[i]);
        for (long lane = 0; lane < lanes; lane++) {
            double m = means[lane], r = rests[lane], *to = sums + c + i * LANES + lane;
            to[0] += m * count + r;
            to[w->channels] += squares[lane] + m * (2 * r + m * count);
        }
    }
}

/* The gradient of d factor + shift. */
ALWAYS vec let_through(vec grad, vec d, vec factor, vec shift, int kind) {
    return kind == OPEN_GRADIENTS ? zero_where(d * factor + shift <= 0, grad) : grad;
}

/* Adds the sums of the gradient and of that times x - mean to sums[0] and sums[1]. */
ALWAYS void add_gradients(const work_t *w, double *sums, long pixel, long count, long c, int width, long lanes,
                          int kind) {
    vec mean[GROUP], factor[GROUP], shift[GROUP], sum[GROUP] = {0}, product[GROUP] = {0};
    UNROLL for (int i = 0; i < width; i++) {
        mean[i] = load_lanes(w->mean + c + i * LANES, lanes);
        factor[i] = load_lanes(w->factor + c + i * LANES, lanes);
        shift[i] = load_lanes(w->shift + c + i * LANES, lanes);
    }
    for (long p = 0; p < count; p++)
        UNROLL for (int i = 0; i < width; i++) {
            long at = (pixel + p) * w->channels + c + i * LANES;
            vec d = load_ahead(w->x + at, lanes, AHEAD) - mean[i];
            vec grad = let_through(load_ahead(w->grad + at, lanes, AHEAD), d, factor[i], shift[i], kind);
            sum[i] += grad;
            product[i] += grad * d;
        }
    UNROLL for (int i = 0; i < width; i++) {
        float parts[2][LANES];
        store(parts[0], sum[i]), store(parts[1], product[i]);
        double *to = sums + c + i * LANES;
        for (long row = 0; row < 2; row++, to += w->channels)
            for (long lane = 0; lane < lanes; lane++) to[lane] += parts[row][lane];
    }
}

ALWAYS void add_block(const work_t *w, double *sums, long pixel, long count, long c, int width, long lanes, int kind) {
    if (kind == MOMENTS) add_moments(w, sums, pixel, count, c, width, lanes);
    else add_gradients(w, sums, pixel, count, c, width, lanes, kind);
}

ALWAYS void add_pixels(const work_t *w, double *sums, long pixel, long count, int kind) {
    long c = 0, channels = w->channels;
    for (; c + GROUP * LANES <= channels; c += GROUP * LANES) add_block(w, sums, pixel, count, c, GROUP, LANES, kind);
    for (; c + LANES <= channels; c += LANES) add_block(w, sums, pixel, count, c, 1, LANES, kind);
    if (c < channels) add_block(w, sums, pixel, count, c, 1, channels - c, kind);
}

/* Of the gradients of some pixels, those that the ReLU that gave y lets through. */
static void make_masked(const work_t *w, long pixel, long count) {
    const number *y = w->y + pixel * w->channels, *grad = w->unmasked + pixel * w->channels;
    number *masked = w->masked + pixel * w->channels;
    for (long i = 0, values = count * w->channels; i < values; i += LANES) {
        long lanes = least(values - i, LANES);
        vec open = zero_where(load_ahead(y + i, lanes, AHEAD) <= 0, load_ahead(grad + i, lanes, AHEAD));
        store_some_numbers(masked + i, open, lanes);
    }
}

static void sum_part(const work_t *w, range_t part, double *sums, int kind) {
    long block = BLOCK / w->channels;
    block = block < LEAST_PIXELS ? LEAST_PIXELS : least(block, MOST_PIXELS);
    for (long i = 0; i < 2 * w->channels; i++) sums[i] = 0;
    for (long pixel = part.first; pixel < part.last; pixel += block) {
        long count = least(block, part.last - pixel);
        if (w->masked) make_masked(w, pixel, count);
        if (kind == MOMENTS) add_pixels(w, sums, pixel, count, MOMENTS);
        else if (kind == GRADIENTS) add_pixels(w, sums, pixel, count, GRADIENTS);
        else add_pixels(w, sums, pixel, count, OPEN_GRADIENTS);
    }
}

/* A channel's sum over the members of the team. */
ALWAYS double total(const work_t *w, long row, long c, long team) {
    double sum = 0;
    for (long member = 0; member < team; member++) sum += w->sums[(2 * member + row) * w->channels + c];
    return sum;
}

ALWAYS void put(const work_t *w, long at, long c, long lanes, int add, int relu) {
    vec d = load_ahead(w->x + at, lanes, -AHEAD) - load_lanes(w->mean + c, lanes);
    vec y = d * load_lanes(w->factor + c, lanes) + load_lanes(w->shift + c, lanes);
    if (add) y += load_ahead(w->addend + at, lanes, -AHEAD);
    store_some_numbers(w->result + at, relu ? rectify(y) : y, lanes);
}

ALWAYS void put_gradient(const work_t *w, long at, long c, long lanes, int kind) {
    vec factor = load_lanes(w->factor + c, lanes), shift = load_lanes(w->shift + c, lanes);
    vec d = load_ahead(w->x + at, lanes, -AHEAD) - load_lanes(w->mean + c, lanes);
    vec grad = let_through(load_ahead(w->grad + at, lanes, -AHEAD), d, factor, shift, kind);
    vec loss = d * load_lanes(w->slope + c, lanes) + load_lanes(w->offset + c, lanes);
    store_some_numbers(w->result + at, factor * grad - loss, lanes);
}

/* Runs BODY, with at, c and lanes, for each vector of some pixels, the last pixel first: of what has been
 * summed, the cache still holds the end. */
#define EACH_VECTOR(BODY)                                                   \
    for (long pixel = part.last - 1; pixel >= part.first; pixel--) {        \
        long c = 0, at = pixel * w->channels, lanes = LANES;                \
        for (; c + LANES <= w->channels; c += LANES, at += LANES) BODY;     \
        if ((lanes = w->channels - c)) BODY;                                \
    }

static void put_part(const work_t *w, range_t part, int relu) {
    if (w->addend && relu) EACH_VECTOR(put(w, at, c, lanes, 1, 1))
    else if (w->addend) EACH_VECTOR(put(w, at, c, lanes, 1, 0))
    else if (relu) EACH_VECTOR(put(w, at, c, lanes, 0, 1))
    else EACH_VECTOR(put(w, at, c, lanes, 0, 0))
}

static void put_gradient_part(const work_t *w, range_t part, int kind) {
    if (kind == OPEN_GRADIENTS) EACH_VECTOR(put_gradient(w, at, c, lanes, OPEN_GRADIENTS))
    else EACH_VECTOR(put_gradient(w, at, c, lanes, GRADIENTS))
}

static void settle(const work_t *w, range_t channels, long team) {
    for (long c = channels.first; c < channels.last; c++) {
        double mean = total(w, 0, c, team) / w->pixels, variance = total(w, 1, c, team) / w->pixels - mean * mean;
        variance = variance < 0 ? 0 : variance;
        double deviation = 1 / sqrt(variance + w->eps);
        w->mean[c] = mean;
        w->variance[c] = variance * w->pixels / (w->pixels - 1);
        w->deviation[c] = deviation;
        w->factor[c] = w->weight ? deviation * w->weight[c] : deviation;
        w->shift[c] = w->bias ? w->bias[c] : 0;
    }
}

static void settle_gradient(const work_t *w, range_t channels, long team) {
    for (long c = channels.first; c < channels.last; c++) {
        double sum = total(w, 0, c, team), product = total(w, 1, c, team), deviation = w->deviation[c];
        w->bias_gradient[c] = sum;
        w->weight_gradient[c] = product * deviation;
        w->offset[c] = w->factor[c] * sum / w->pixels;
        w->slope[c] = w->factor[c] * deviation * deviation * product / w->pixels;
    }
}

typedef void settle_t(const work_t *, range_t, long);
typedef void put_t(const work_t *, range_t, int);

/* Sums, what follows from them for each channel, and the result. */
static void run(const work_t *w, int sum_kind, settle_t *settle_channels, put_t *put_results, int put_kind) {
#pragma omp parallel num_threads(w->threads)
    {
        long member = omp_get_thread_num(), team = omp_get_num_threads();
        range_t part = share(w->pixels, member, team);
        sum_part(w, part, w->sums + 2 * member * w->channels, sum_kind);
#pragma omp barrier
        settle_channels(w, share(w->channels, member, team), team);
#pragma omp barrier
        if (w->result) put_results(w, part, put_kind);
    }
}

/* The rows of what forward leaves for backward: a float for each channel. */
enum { MEAN, VARIANCE, DEVIATION, FACTOR, SHIFT };

ALWAYS work_t begin(const number *x, float *found, double *sums, long pixels, long channels, long threads) {
    return (work_t){.x = x, .sums = sums, .pixels = pixels, .channels = channels, .threads = threads,
                    .mean = found + MEAN * channels, .variance = found + VARIANCE * channels,
                    .deviation = found + DEVIATION * channels, .factor = found + FACTOR * channels,
                    .shift = found + SHIFT * channels};
}

/* y = (x - mean) / sqrt(variance + eps) weight + bias + addend, with relu at least 0; weight, bias and
 * addend may be left out. Also the rows of found; the variance there is the estimate for the population. */
void batch_norm_forward(const number *x, const float *weight, const float *bias, const number *addend, number *y,
                        float *found, double *sums, long pixels, long channels, float eps, long relu, long threads) {
    work_t w = begin(x, found, sums, pixels, channels, threads);
    w.weight = weight, w.bias = bias, w.addend = addend, w.result = y, w.eps = eps;
    run(&w, MOMENTS, settle, put_part, relu);
}

/* The gradients of x (which may be left out) and of weight and bias: two rows of gradients, and two more to
 * work in. A ReLU after an addend needs y, and the gradient of the addend is what it lets through. */
void batch_norm_backward(const number *x, const number *grad, const number *y, float *found, number *x_gradient,
                         number *addend_gradient, float *gradients, double *sums, long pixels, long channels,
                         long relu, long threads) {
    work_t w = begin(x, found, sums, pixels, channels, threads);
    w.weight_gradient = gradients, w.bias_gradient = gradients + channels;
    w.slope = gradients + 2 * channels, w.offset = gradients + 3 * channels, w.result = x_gradient;
    w.y = y, w.unmasked = grad, w.masked = addend_gradient, w.grad = y ? addend_gradient : grad;
    int kind = relu && !y ? OPEN_GRADIENTS : GRADIENTS;
    run(&w, kind, settle_gradient, put_gradient_part, kind);
}
