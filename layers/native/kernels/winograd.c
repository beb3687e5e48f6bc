/* Winograd's minimal filtering for 3x3 and 5x5 convolutions at stride 1, channels innermost.
 *
 * F(m x m, r x r) gives m x m outputs from tiles of n x n inputs, n = m + r - 1, with n^2 products in
 * place of m^2 r^2 (Lavin and Gray 2016). With the polynomials' values at the points 0, a, -a, (b, -b)
 * and infinity, tile and filter become V = B d B^T and U = G w G^T, and the outputs A^T (U V) A, where
 * the products sum over channels: one matrix product a point. The gradient of the bottom is a
 * convolution with the filters turned round; that of the filters is G^T (sum over tiles of V (A dy A^T)) G.
 *
 * The tables of 6 x 6 tiles use 3/4 and 3/2: their rounding errors are a third of those of 1 and 2.
 */

#include <omp.h>

#include "products.h"

/* Floats between the arrays of two points, so that these do not fall on the same lines of the cache. */
#define SPARE 16
#define MOST 6 /* points along a side */

typedef struct {
    long images, height, width, pad;
    long channels, outputs; /* of the group */
    long x_step, y_step;    /* floats from one pixel to the next */
    long out_height, out_width, down, across, tiles;
} plan_t;

ALWAYS plan_t make_plan(const long *given, long taps, long out) {
    plan_t p = {.images = given[0], .height = given[1], .width = given[2], .pad = given[3],
                .channels = given[4], .outputs = given[5], .x_step = given[6], .y_step = given[7]};
    p.out_height = p.height + 2 * p.pad - taps + 1;
    p.out_width = p.width + 2 * p.pad - taps + 1;
    p.down = (p.out_height + out - 1) / out;
    p.across = (p.out_width + out - 1) / out;
    p.tiles = p.images * p.down * p.across;
    return p;
}

/* The sum of every by-th element of in, from the given on, times the table's; the table is constant, so
 * that zeros and ones cost nothing. */
ALWAYS vec weighted(const float *table, const vec *in, long step, int length, int from, int by) {
    vec sum = {0};
    int any = 0;
    UNROLL for (int j = from; j < length; j += by) {
        if (table[j] == 0) continue;
        vec term = in[j * step];
        if (table[j] != 1) term *= table[j];
        if (any) sum += term;
        else sum = term;
        any = 1;
    }
    return sum;
}

/* out[p] = sum over j of table[p][j] in[j]. Points p and -p share their even and odd parts. */
ALWAYS void spread(int tile, int length, const float *table, const vec *in, long from, vec *out) {
    out[0] = weighted(table, in, from, length, 0, 1);
    UNROLL for (int p = 1; p < tile - 1; p += 2) {
        vec even = weighted(table + p * length, in, from, length, 0, 2);
        vec odd = weighted(table + p * length, in, from, length, 1, 2);
        out[p] = even + odd;
        out[p + 1] = even - odd;
    }
    out[tile - 1] = weighted(table + (tile - 1) * length, in, from, length, 0, 1);
}

/* out[j] = sum over p of table[p][j] in[p]. */
ALWAYS void gather(int tile, int length, const float *table, const vec *in, long from, vec *out, long to) {
    vec even[MOST], odd[MOST];
    UNROLL for (int p = 1; p < tile - 1; p += 2) {
        even[p] = in[p * from] + in[(p + 1) * from];
        odd[p] = in[p * from] - in[(p + 1) * from];
    }
    UNROLL for (int j = 0; j < length; j++) {
        vec sum = (j % 2 ? odd : even)[1] * table[length + j];
        UNROLL for (int p = 3; p < tile - 1; p += 2) sum += (j % 2 ? odd : even)[p] * table[p * length + j];
        if (table[j] != 0) sum += table[j] * in[0];
        if (table[(tile - 1) * length + j] != 0) sum += table[(tile - 1) * length + j] * in[(tile - 1) * from];
        out[j * to] = sum;
    }
}

/* spread and gather of both axes: table in table^T, and table^T in table. */
ALWAYS void spread_square(int tile, int length, const float *table, const vec *in, vec *out) {
    vec half[MOST * MOST];
    UNROLL for (int j = 0; j < length; j++) spread(tile, length, table, in + j, length, half + j * tile);
    UNROLL for (int p = 0; p < tile; p++) spread(tile, length, table, half + p, tile, out + p * tile);
}

ALWAYS void gather_square(int tile, int length, const float *table, const vec *in, vec *out) {
    vec half[MOST * MOST];
    UNROLL for (int p = 0; p < tile; p++) gather(tile, length, table, in + p, tile, half + p, tile);
    UNROLL for (int j = 0; j < length; j++) gather(tile, length, table, half + j * tile, 1, out + j * length, 1);
}

/* A blob of images with channels innermost, its squares of pixels at regular places. */
typedef struct {
    const float *data, *zeros; /* zeros: what lies beyond the border */
    long height, width, step, channels;
    long stride, pad;          /* square (i, j) begins at pixel (i, j) * stride - pad */
    long down, across;         /* squares in an image */
} squares_t;

/* The points of the squares first + mine, by table: to[point][channel / group][square][channel % group],
 * points apart by stride, groups by rows squares. */
ALWAYS void to_points(int tile, int side, const float *table, const squares_t *s, long first, range_t mine,
                      long rows, long group, float *to, long stride) {
    for (long t = mine.first; t < mine.last; t++) {
        long image = (first + t) / (s->down * s->across), place = (first + t) % (s->down * s->across);
        const float *base = s->data + image * s->height * s->width * s->step, *pixel[MOST * MOST];
        long y = place / s->across * s->stride - s->pad, x = place % s->across * s->stride - s->pad;
        for (int i = 0; i < side; i++)
            for (int j = 0; j < side; j++) {
                int inside = y + i >= 0 && y + i < s->height && x + j >= 0 && x + j < s->width;
                pixel[i * side + j] = inside ? base + ((y + i) * s->width + x + j) * s->step : s->zeros;
            }
        for (long c = 0; c < s->channels; c += LANES) {
            vec in[MOST * MOST], out[MOST * MOST];
            UNROLL for (int i = 0; i < side; i++)
                UNROLL for (int j = 0; j < side; j++) in[i * side + j] = load(pixel[i * side + j] + c);
            spread_square(tile, side, table, in, out);
            float *place_to = to + (c / group * rows + t) * group + c % group;
            UNROLL for (int i = 0; i < tile; i++)
                UNROLL for (int j = 0; j < tile; j++) store(place_to + (i * tile + j) * stride, out[i * tile + j]);
        }
    }
}

/* The points of the tables: 0, a, -a, (b, -b), infinity. Row p of B is the product of (x - q) over all
 * other finite points q (all of them for infinity), that of A is (1, p, p^2 ...), and that of G the same
 * over the product of (p - q). */
#define A1 0.75f
#define A2 (A1 * A1)
#define A3 (A2 * A1)
#define A4 (A2 * A2)
#define B1 1.5f
#define B2 (B1 * B1)
#define B3 (B2 * B1)
#define B4 (B2 * B2)
#define FA (1 / (2 * A2 * (A2 - B2)))
#define FB (1 / (2 * B2 * (B2 - A2)))

static const float tile4[4 * 4] = {-1, 0, 1, 0, /**/ 0, 1, 1, 0, /**/ 0, -1, 1, 0, /**/ 0, -1, 0, 1};
static const float tile6[6 * 6] = {
    A2 * B2, 0, -A2 - B2, 0, 1, 0,                                             /* 0 */
    0, -A1 * B2, -B2, A1, 1, 0, /**/ 0, A1 * B2, -B2, -A1, 1, 0, /* a, -a */
    0, -B1 * A2, -A2, B1, 1, 0, /**/ 0, B1 * A2, -A2, -B1, 1, 0, /* b, -b */
    0, A2 * B2, 0, -A2 - B2, 0, 1,                                             /* infinity */
};

#define CASE(name) winograd_2_3_##name
#define OUT 2
#define TAPS 3
static const float CASE(filter)[4 * 3] = {-1, 0, 0, /**/ .5f, .5f, .5f, /**/ .5f, -.5f, .5f, /**/ 0, 0, 1};
static const float CASE(output)[4 * 2] = {1, 0, /**/ 1, 1, /**/ 1, -1, /**/ 0, 1};
#define TILE_TABLE tile4
#include "winograd_case.h"

#define CASE(name) winograd_4_3_##name
#define OUT 4
#define TAPS 3
static const float CASE(filter)[6 * 3] = {
    1 / (A2 * B2), 0, 0,
    FA, FA * A1, FA * A2, /**/ FA, -FA * A1, FA * A2,
    FB, FB * B1, FB * B2, /**/ FB, -FB * B1, FB * B2,
    0, 0, 1,
};
static const float CASE(output)[6 * 4] = {
    1, 0, 0, 0, /**/ 1, A1, A2, A3, /**/ 1, -A1, A2, -A3, /**/ 1, B1, B2, B3, /**/ 1, -B1, B2, -B3, /**/ 0, 0, 0, 1,
};
#define TILE_TABLE tile6
#include "winograd_case.h"

#define CASE(name) winograd_2_5_##name
#define OUT 2
#define TAPS 5
static const float CASE(filter)[6 * 5] = {
    1 / (A2 * B2), 0, 0, 0, 0,
    FA, FA * A1, FA * A2, FA * A3, FA * A4, /**/ FA, -FA * A1, FA * A2, -FA * A3, FA * A4,
    FB, FB * B1, FB * B2, FB * B3, FB * B4, /**/ FB, -FB * B1, FB * B2, -FB * B3, FB * B4,
    0, 0, 0, 0, 1,
};
static const float CASE(output)[6 * 2] = {1, 0, /**/ 1, A1, /**/ 1, -A1, /**/ 1, B1, /**/ 1, -B1, /**/ 0, 1};
#define TILE_TABLE tile6
#include "winograd_case.h"
