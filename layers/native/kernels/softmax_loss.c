/* The multinomial logistic loss of scores [rows][classes] and its gradient. */

#include <float.h>
#include <math.h>
#include <omp.h>

#include "functions.h"

typedef struct {
    long rows, classes;
    long ignores, ignored; /* whether there is a label that does not count, and which */
    long counts;           /* whether the divisor is the number of rows that count */
    long threads;
} call_t;

/* Rows for a thread to be worth its while: elements of their scores. */
#define FEWEST 16384

ALWAYS long useful_threads(const call_t *c) { return most(1, least(c->threads, c->rows * c->classes / FEWEST)); }

ALWAYS int is_ignored(const call_t *c, float label) { return c->ignores && (long)label == c->ignored; }

/* exp(x) for x up to 0, or NaN; 0 where it is below the normal floats. */
ALWAYS vec decay(vec x) {
    vec less, scale = exponential(limited(x, -87, 0), &less);
    return choose(x < -87, (vec){0}, scale + scale * less);
}

/* The softmax of a row; the score that is largest is taken off first, so that nothing overflows. */
static void softmax_row(const float *x, long classes, float *y) {
    long whole = classes / LANES * LANES;
    vec top = (vec){0} - INFINITY, sum = {0};
    for (long i = 0; i < whole; i += LANES) top = choose(load(x + i) > top, load(x + i), top);
    float largest = -INFINITY, total = 0;
    for (int lane = 0; lane < LANES; lane++) largest = top[lane] > largest ? top[lane] : largest;
    for (long i = whole; i < classes; i++) largest = x[i] > largest ? x[i] : largest;
    for (long i = 0; i < whole; i += LANES) {
        vec value = decay(load(x + i) - largest);
        sum += value;
        store(y + i, value);
    }
    if (whole < classes) {
        vec value = decay(load_some(x + whole, classes - whole) - largest);
        store_some(y + whole, value, classes - whole);
    }
    for (int lane = 0; lane < LANES; lane++) total += sum[lane];
    for (long i = whole; i < classes; i++) total += y[i];
    float share = 1 / total;
    for (long i = 0; i < whole; i += LANES) store(y + i, load(y + i) * share);
    for (long i = whole; i < classes; i++) y[i] *= share;
}

/* softmax, losses (one a row), loss (one number) and scale, what each row's gradient is multiplied by.
 * *bad becomes the number of labels that are no class: then nothing of it holds. */
void softmax_loss_forward(const float *x, const float *labels, float *softmax, float *losses, float *loss, float *scale,
                          float divisor, const call_t *c, long *bad) {
    long wrong = 0, counted = 0;
    for (long row = 0; row < c->rows; row++)
        wrong += !is_ignored(c, labels[row]) && !(labels[row] > -1 && labels[row] < c->classes);
    *bad = wrong;
    if (wrong) return;
#pragma omp parallel for num_threads(useful_threads(c)) schedule(static)
    for (long row = 0; row < c->rows; row++) {
        float *y = softmax + row * c->classes;
        softmax_row(x + row * c->classes, c->classes, y);
        float chance = is_ignored(c, labels[row]) ? 1 : y[(long)labels[row]];
        losses[row] = -logf(chance < FLT_MIN ? FLT_MIN : chance);
    }
    double total = 0;
    for (long row = 0; row < c->rows; row++) total += losses[row], counted += !is_ignored(c, labels[row]);
    *scale = 1 / (c->counts ? most(1, counted) : divisor);
    *loss = total * *scale;
}

/* The gradient of the scores, times towards, that of the loss. */
void softmax_loss_backward(const float *softmax, const float *labels, const float *scale, const float *towards,
                           float *gradient, const call_t *c) {
    float factor = *scale * *towards;
#pragma omp parallel for num_threads(useful_threads(c)) schedule(static)
    for (long row = 0; row < c->rows; row++) {
        const float *from = softmax + row * c->classes;
        float *to = gradient + row * c->classes, mine = is_ignored(c, labels[row]) ? 0 : factor;
        long i = 0;
        for (; i + LANES <= c->classes; i += LANES) store(to + i, load(from + i) * mine);
        for (; i < c->classes; i++) to[i] = from[i] * mine;
        if (!is_ignored(c, labels[row])) to[(long)labels[row]] -= mine;
    }
}
