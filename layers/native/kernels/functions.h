/* Functions of vectors, accurate to about two units in the last place. */

#ifndef CORTADO_FUNCTIONS_H
#define CORTADO_FUNCTIONS_H

#include "vectors.h"

/* exp(x) = 2^n (1 + p): 2^n, and p = exp(x - n log 2) - 1 in *less. x is within -87 and 88, or NaN. */
ALWAYS vec exponential(vec x, vec *less) {
    const float shift = 12582912; /* 1.5 * 2^23: what is added to it is rounded to integers */
    vec shifted = x * 1.44269504f + shift;
    vec n = shifted - shift;
    vec r = x - n * 0.693145752f; /* log 2, the upper bits and the rest */
    r = r - n * 1.42860677e-6f;
    /* (exp(r) - 1 - r) / r^2, fitted to the least relative error of exp(r) - 1 over |r| < log 2 / 2. */
    vec q = r * 1.99154791e-4f + 1.39420491e-3f;
    q = q * r + 8.33327044e-3f, q = q * r + 4.16663438e-2f, q = q * r + 1.66666672e-1f, q = q * r + 0.5f;
    *less = r + r * r * q;
    return (vec)(((mask)shifted << 23) + (127 << 23));
}

/* NaN stays. */
ALWAYS vec limited(vec x, float low, float high) {
    x = choose(x < low, (vec){0} + low, x);
    return choose(x > high, (vec){0} + high, x);
}

ALWAYS vec sigmoid(vec x) {
    vec less, scale = exponential(limited(-x, -87, 88), &less);
    vec y = 1 / (1 + (scale + scale * less));
    return choose(x < -88, (vec){0}, y);
}

/* By exp(2 x) - 1, so that it is as accurate near 0. */
ALWAYS vec hyperbolic_tangent(vec x) {
    vec less, scale = exponential(limited(2 * x, -20, 20), &less);
    vec grown = scale * less + (scale - 1);
    return grown / (grown + 2);
}

#endif
