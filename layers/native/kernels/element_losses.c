/* Losses that are a sum over pairs of elements, and their gradients, in one pass over memory each. */

#include <omp.h>

#include "functions.h"

/* Elements that are summed by one thread, in vectors and then in double: the same for any team. */
#define PART 4096

/* log(1 + e) for e from 0 to 1, by the series of 2 artanh(e / (2 + e)). */
ALWAYS vec log_one_plus(vec e) {
    vec s = e / (2 + e), t = s * s, sum = (vec){0} + 1.0f / 17;
    _Pragma("GCC unroll 8") for (int odd = 15; odd > 0; odd -= 2) sum = sum * t + 1.0f / odd;
    return 2 * s * sum;
}

/* -(t log sigmoid(x) + (1 - t) log(1 - sigmoid(x))), without a difference of large numbers. */
ALWAYS vec sigmoid_loss(vec x, vec t, float unused) {
    (void)unused;
    vec less, scale = exponential(limited(choose(x > 0, -x, x), -87, 88), &less);
    return choose(x > 0, x, (vec){0}) - x * t + log_one_plus(scale + scale * less);
}
ALWAYS vec sigmoid_slope(vec x, vec t, float unused) {
    (void)unused;
    return sigmoid(x) - t;
}

/* d^2 / (2 beta) for |d| < beta, else |d| - beta / 2; d = a - b. */
ALWAYS vec smooth_l1_loss(vec a, vec b, float beta) {
    vec d = a - b, size = choose(d < 0, -d, d);
    return choose(size < beta, d * d * (0.5f / beta), size - 0.5f * beta);
}
ALWAYS vec smooth_l1_slope(vec a, vec b, float beta) {
    vec d = a - b, one = (vec){0} + 1, size = choose(d < 0, -d, d);
    vec sign = choose(d > 0, one, choose(d < 0, -one, d));
    return choose(size < beta, d / beta, sign);
}

/* *result becomes factor times the sum of the loss over count pairs; sums has a place for each part. */
#define LOSS(name)                                                                                            \
    void element_losses_##name(const float *a, const float *b, double *sums, float *result, float factor,    \
                               long count, float option, long threads) {                                     \
        long parts = (count + PART - 1) / PART;                                                               \
        _Pragma("omp parallel for num_threads(most(1, least(threads, parts / 4))) schedule(static)")          \
        for (long part = 0; part < parts; part++) {                                                           \
            long last = least(count, (part + 1) * PART);                                                      \
            vec sum = {0};                                                                                    \
            double total = 0;                                                                                 \
            for (long i = part * PART; i < last; i += LANES) {                                                \
                vec each = name##_loss(load_some(a + i, last - i), load_some(b + i, last - i), option);       \
                if (last - i < LANES)                                                                         \
                    for (int lane = last - i; lane < LANES; lane++) each[lane] = 0;                           \
                sum += each;                                                                                  \
            }                                                                                                 \
            for (int lane = 0; lane < LANES; lane++) total += sum[lane];                                      \
            sums[part] = total;                                                                               \
        }                                                                                                     \
        double whole = 0;                                                                                     \
        for (long part = 0; part < parts; part++) whole += sums[part];                                        \
        *result = whole * factor;                                                                             \
    }

/* factor and *towards times the gradient for a, and if minus is not null, that for b. */
#define SLOPE(name)                                                                                           \
    void element_losses_##name##_gradient(const float *a, const float *b, const float *towards, float factor, \
                                          float *gradient, float *minus, long count, float option,            \
                                          long threads) {                                                     \
        long parts = (count + PART - 1) / PART;                                                               \
        float all = *towards * factor;                                                                        \
        _Pragma("omp parallel for num_threads(most(1, least(threads, parts / 4))) schedule(static)")          \
        for (long part = 0; part < parts; part++) {                                                           \
            long last = least(count, (part + 1) * PART);                                                      \
            for (long i = part * PART; i < last; i += LANES) {                                                \
                vec slope = name##_slope(load_some(a + i, last - i), load_some(b + i, last - i), option);     \
                store_some(gradient + i, slope * all, last - i);                                              \
                if (minus) store_some(minus + i, slope * -all, last - i);                                     \
            }                                                                                                 \
        }                                                                                                     \
    }

LOSS(sigmoid)
SLOPE(sigmoid)
LOSS(smooth_l1)
SLOPE(smooth_l1)
