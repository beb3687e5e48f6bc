/* Products of matrices as a whole, for processors whose tiles make them faster than torch's. */

#include <omp.h>

#include "products.h"

/* A right side of this depth stays in a core's cache while a column of blocks is computed. */
#define DEEPEST 512
/* Rows and columns that are packed at a time, which bounds the room. */
#define LARGEST 2048

/* As few parts of count as possible, each at most limit, of about one size, a multiple of unit. */
ALWAYS long even_part(long count, long limit, long unit) {
    long parts = (count + limit - 1) / limit;
    return most(unit, round_up((count + parts - 1) / parts, unit));
}

typedef struct {
    long depth, rows, columns; /* of a part */
    long high, wide;           /* its blocks */
} parts_t;

ALWAYS parts_t make_parts(long rows, long depth, long columns) {
    parts_t p;
    p.depth = even_part(depth, DEEPEST, CHUNK);
    p.rows = even_part(rows, LARGEST, HEIGHT), p.columns = even_part(columns, LARGEST, WIDTH);
    p.high = p.rows / HEIGHT, p.wide = p.columns / WIDTH;
    return p;
}

/* room[0] becomes the floats that the product of rows x depth by depth x columns takes. */
void products_room(const long *given, long *room) {
    parts_t p = make_parts(given[0], given[1], given[2]);
    room[0] = p.high * left_size(p.depth) + p.wide * right_size(p.depth);
}

/* The packed blocks of both sides that this thread does. */
ALWAYS void pack_sides(const parts_t *p, const matrix_t *a, const matrix_t *b, long row, long k0, long column,
                       float *left, float *right, int right_too, long thread, long threads) {
    range_t highs = share(p->high, thread, threads), squares = share(right_too ? p->wide * 4 : 0, thread, threads);
    for (long i = highs.first; i < highs.last; i++)
        for (long k = 0; k < p->depth; k += LANES)
            pack_left(a, row + i * HEIGHT, k0 + k, left + i * left_size(p->depth), k);
    for (long i = squares.first; i < squares.last; i++)
        for (long k = 0; k < p->depth; k += LANES)
            pack_right(b, k0 + k, column + i * LANES, right + i / 4 * right_size(p->depth), p->depth, i % 4, k);
}

/* The block of c at (row, column), of which some lies beyond c's edges. */
ALWAYS void put_block(const float *left, const float *right, long depth, float *c, long rows, long columns, long row,
                      long column, int add) {
    float *to = c + row * columns + column;
    if (row + HEIGHT <= rows && column + WIDTH <= columns) {
        multiply(left, right, depth, to, columns, add);
        return;
    }
    float block[HEIGHT * WIDTH] __attribute__((aligned(64)));
    multiply(left, right, depth, block, WIDTH, 0);
    for (long i = 0; i < HEIGHT && row + i < rows; i++)
        for (long j = 0; j < WIDTH && column + j < columns; j++) {
            float *one = to + i * columns + j;
            *one = block[i * WIDTH + j] + (add ? *one : 0);
        }
}

/* c = a b; given: rows, depth and columns, then what a row and what a column of a is apart, and of b. */
void products_multiply(const float *a_data, const float *b_data, float *c, float *room, const long *given,
                       long threads) {
    long rows = given[0], depth = given[1], columns = given[2];
    matrix_t a = {a_data, given[3], given[4], rows, depth}, b = {b_data, given[5], given[6], depth, columns};
    parts_t p = make_parts(rows, depth, columns);
    float *left = room, *right = room + p.high * left_size(p.depth);
#pragma omp parallel num_threads(threads)
    {
        long thread = omp_get_thread_num(), team = omp_get_num_threads();
        begin_products();
        for (long k0 = 0; k0 < depth; k0 += p.depth)
            for (long column = 0; column < columns; column += p.columns)
                for (long row = 0; row < rows; row += p.rows) {
                    pack_sides(&p, &a, &b, row, k0, column, left, right, row == 0, thread, team);
#pragma omp barrier
                    /* All rows of one right side after another, which stays in this thread's cache. */
                    range_t mine = share(p.high * p.wide, thread, team);
                    for (long item = mine.first; item < mine.last; item++) {
                        long i = item % p.high, j = item / p.high;
                        if (row + i * HEIGHT >= rows || column + j * WIDTH >= columns) continue;
                        put_block(left + i * left_size(p.depth), right + j * right_size(p.depth), p.depth, c, rows,
                                  columns, row + i * HEIGHT, column + j * WIDTH, k0 > 0);
                    }
#pragma omp barrier
                }
        end_products();
    }
}
