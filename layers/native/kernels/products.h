/* Products of float32 matrices, in blocks of HEIGHT x WIDTH whose sums stay in registers.
 *
 * Both sides are packed first, a square of LANES x LANES at a time, and each block is then one call of
 * multiply. Two ways of computing have the same functions:
 *
 * Vectors: a left side is [depth / LANES][row][LANES], a right side two panels of [depth][2 LANES].
 *
 * Tiles (AMX): a float is exactly the sum of three numbers of bfloat16, 8 bits each. Of the nine products
 * of the parts of two floats the six largest are taken: the others are below 2^-24 of the whole. The tiles
 * add 32 products before they round a sum, so that the result is closer than that of a chain of float32
 * additions (tests/layers/native/test_products.py), at two to three times the speed. A value that is
 * infinite has parts that are not numbers, so its products are NaN and never finite. */

#ifndef CORTADO_PRODUCTS_H
#define CORTADO_PRODUCTS_H

#include "vectors.h"

/* The product of vectors is made in tiles of ROWS x COLUMNS. */
#define ROWS (LANES > 8 ? 8 : 4)
#define COLUMNS (2 * LANES)
#define WIDTH (4 * LANES)

/* c, ROWS x COLUMNS with rows apart by c_row, becomes a b, or that is added to it. b is depth x COLUMNS; row i of a has its
 * element of depth g * count + q at a[g * group + i * row + q * step]. What comes after b, from next on, is
 * fetched into the cache meanwhile, unless that is null. */
ALWAYS void product(const float *a, long groups, long group, long count, long row, long step,
                    const float *b, float *c, long c_row, int add, const float *next) {
    vec sum[ROWS][2];
    UNROLL for (int i = 0; i < ROWS; i++)
        UNROLL for (int j = 0; j < 2; j++) sum[i][j] = (vec){0};
    for (long g = 0; g < groups; g++, a += group)
        for (long q = 0; q < count; q++, b += COLUMNS) {
            vec left = load(b), right = load(b + LANES);
            if (next) {
                __builtin_prefetch(next, 0, 2);
                __builtin_prefetch(next + LANES, 0, 2);
                next += COLUMNS;
            }
            UNROLL for (int i = 0; i < ROWS; i++) {
                float x = a[i * row + q * step];
                sum[i][0] += x * left;
                sum[i][1] += x * right;
            }
        }
    UNROLL for (int i = 0; i < ROWS; i++)
        UNROLL for (int j = 0; j < 2; j++) {
            float *to = c + i * c_row + j * LANES;
            if (add) sum[i][j] += load(to);
            store(to, sum[i][j]);
        }
}

#if defined(__AMX_BF16__) && defined(__AVX512BF16__)

#include <immintrin.h>

#define HEIGHT 16
#define CHUNK 32 /* what depths are rounded up to */
#define PARTS 3
#define PLACE 256 /* floats that a tile takes: 16 lines of 64 bytes */

/* The compiler does not know what the instructions on tiles read. */
#define IN_MEMORY __asm__ volatile("" ::: "memory")

/* Floats that the packed sides of a block take. */
ALWAYS long left_size(long depth) { return depth / CHUNK * PARTS * PLACE; }
ALWAYS long right_size(long depth) { return 4 * left_size(depth); }

/* Each thread calls these around its products, of which this many rows (up to HEIGHT) are wanted. */
ALWAYS void begin_products(long rows) {
    struct {
        unsigned char palette, start, none[14];
        unsigned short bytes[16];
        unsigned char rows[16];
    } shape = {.palette = 1};
    for (int i = 0; i < 8; i++) shape.bytes[i] = 64, shape.rows[i] = i < 7 ? rows : 16;
    IN_MEMORY;
    _tile_loadconfig(&shape);
}
ALWAYS void end_products(void) { _tile_release(); }

/* The parts as floats whose lower halves are zero; they add up to x. */
ALWAYS void split(vec x, __m512i *parts) {
    __m512 rest = (__m512)x;
    UNROLL for (int i = 0; i < PARTS; i++) {
        __m512i wide = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(rest));
        parts[i] = _mm512_slli_epi32(wide, 16);
        rest -= (__m512)parts[i];
    }
}

/* Columns k to k + LANES of a row of a left side: tiles are [chunk][part][row][32]. */
ALWAYS void put_left(float *left, long row, long k, vec x) {
    __m512 rest = (__m512)x;
    char *to = (char *)(left + k / CHUNK * PARTS * PLACE) + row * 64 + k % CHUNK * 2;
    UNROLL for (int i = 0; i < PARTS; i++) {
        __m256i part = (__m256i)_mm512_cvtneps_pbh(rest);
        _mm256_storeu_si256((__m256i *)(to + i * PLACE * 4), part);
        rest -= (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(part), 16);
    }
}

/* Rows k and k + 1 (k even) of a quarter of a right side: tiles are [chunk][quarter][part][k / 2][column][k % 2]. */
ALWAYS void put_right(float *right, long depth, long quarter, long k, vec even, vec odd) {
    __m512i low[PARTS], high[PARTS];
    split(even, low);
    split(odd, high);
    float *to = right + (k / CHUNK * 4 + quarter) * PARTS * PLACE + k % CHUNK / 2 * 16;
    UNROLL for (int i = 0; i < PARTS; i++)
        _mm512_storeu_si512(to + i * PLACE, _mm512_or_si512(_mm512_srli_epi32(low[i], 16), high[i]));
    (void)depth;
}

/* The smaller products of a chunk come first, so that their sum is as exact as can be. */
#define QUARTER(j)                                                          \
    _tile_loadd(7, right + (j * PARTS + 2) * PLACE, 64);                     \
    _tile_dpbf16ps(j, 4, 7);                                                \
    _tile_loadd(7, right + (j * PARTS + 1) * PLACE, 64);                     \
    _tile_dpbf16ps(j, 5, 7);                                                \
    _tile_dpbf16ps(j, 4, 7);                                                \
    _tile_loadd(7, right + j * PARTS * PLACE, 64);                           \
    _tile_dpbf16ps(j, 6, 7);                                                \
    _tile_dpbf16ps(j, 5, 7);                                                \
    _tile_dpbf16ps(j, 4, 7);

/* c, HEIGHT x WIDTH with rows apart by c_row, becomes the product of depth, or that is added to it. */
ALWAYS void multiply(const float *left, const float *right, long depth, float *c, long c_row, int add) {
    IN_MEMORY;
    if (add) {
        _tile_loadd(0, c, 4 * c_row);
        _tile_loadd(1, c + 16, 4 * c_row);
        _tile_loadd(2, c + 32, 4 * c_row);
        _tile_loadd(3, c + 48, 4 * c_row);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (long k = 0; k < depth; k += CHUNK, left += PARTS * PLACE, right += 4 * PARTS * PLACE) {
        _tile_loadd(4, left, 64);
        _tile_loadd(5, left + PLACE, 64);
        _tile_loadd(6, left + 2 * PLACE, 64);
        QUARTER(0) QUARTER(1) QUARTER(2) QUARTER(3)
    }
    _tile_stored(0, c, 4 * c_row);
    _tile_stored(1, c + 16, 4 * c_row);
    _tile_stored(2, c + 32, 4 * c_row);
    _tile_stored(3, c + 48, 4 * c_row);
    IN_MEMORY;
}

#else

#define HEIGHT ROWS
#define CHUNK LANES

ALWAYS long left_size(long depth) { return depth * HEIGHT; }
ALWAYS long right_size(long depth) { return depth * WIDTH; }

ALWAYS void begin_products(long rows) { (void)rows; }
ALWAYS void end_products(void) {}

ALWAYS void put_left(float *left, long row, long k, vec x) { store(left + k * HEIGHT + row * LANES, x); }

ALWAYS void put_right(float *right, long depth, long quarter, long k, vec even, vec odd) {
    float *to = right + (quarter / 2 * depth + k) * COLUMNS + quarter % 2 * LANES;
    store(to, even);
    store(to + COLUMNS, odd);
}

ALWAYS void multiply(const float *left, const float *right, long depth, float *c, long c_row, int add) {
    for (long half = 0; half < 2; half++)
        product(left, depth / LANES, HEIGHT * LANES, LANES, LANES, 1, right + half * depth * COLUMNS,
                c + half * COLUMNS, c_row, add, 0);
}

#endif

/* A matrix in memory: element (i, j) is data[i * down + j * across], and one of the two is 1. */
typedef struct {
    const float *data;
    long down, across, rows, columns;
} matrix_t;

/* The square from (row, column) on, of zeros beyond the matrix. */
ALWAYS void load_square(const matrix_t *m, long row, long column, vec *to) {
    const float *from = m->data + row * m->down + column * m->across;
    long rows = most(0, least(LANES, m->rows - row)), columns = most(0, least(LANES, m->columns - column));
    int turned = m->across != 1;
    long lines = turned ? columns : rows, length = turned ? rows : columns, step = turned ? m->across : m->down;
    if (lines == LANES && length == LANES)
        UNROLL for (int i = 0; i < LANES; i++) to[i] = load(from + i * step);
    else
        for (int i = 0; i < LANES; i++) to[i] = i < lines && length ? load_some(from + i * step, length) : (vec){0};
    if (turned) transpose(to);
}

/* The columns from the given one on as the columns k to k + LANES of a left side, for HEIGHT rows. */
ALWAYS void pack_left(const matrix_t *m, long row, long column, float *left, long k) {
    vec square[LANES];
    load_square(m, row, column, square);
    UNROLL for (int i = 0; i < HEIGHT; i++) put_left(left, i, k, square[i]);
}

/* The square from (row, column) on as the rows k to k + LANES of a quarter of a right side. */
ALWAYS void pack_right(const matrix_t *m, long row, long column, float *right, long depth, long quarter, long k) {
    vec square[LANES];
    load_square(m, row, column, square);
    UNROLL for (int i = 0; i < LANES; i += 2)
        put_right(right, depth, quarter, k + i, square[i], square[i + 1]);
}

#endif
