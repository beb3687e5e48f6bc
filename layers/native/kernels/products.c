/* Products of matrices as a whole, for processors whose tiles make them faster than torch's. */

#include <omp.h>

#include "products.h"

/* Depth and columns of what is packed of b at a time, for all threads. */
#define DEEPEST 512
#define WIDEST 2048
/* Floats of the rows of a that a thread packs for itself, small enough to stay in its cache. */
#define GROUP (3 << 15)

/* As few parts of count as possible, each at most limit, of about one size, a multiple of unit. */
ALWAYS long even_part(long count, long limit, long unit) {
    long parts = (count + limit - 1) / limit;
    return most(unit, round_up((count + parts - 1) / parts, unit));
}

typedef struct {
    long depth, columns, group;   /* of a part; blocks of rows at a time */
    long high, wide;              /* blocks of all rows, and of a part's columns */
    long teams;                   /* rows are shared by this many teams of threads, columns in each */
} parts_t;

ALWAYS parts_t make_parts(long rows, long depth, long columns, long threads) {
    parts_t p = {.high = (rows + HEIGHT - 1) / HEIGHT, .depth = even_part(depth, DEEPEST, CHUNK)};
    p.columns = even_part(columns, WIDEST, WIDTH), p.wide = p.columns / WIDTH;
    p.teams = least(threads, p.high);
    p.group = even_part((p.high + p.teams - 1) / p.teams, most(1, GROUP / left_size(p.depth)), 1);
    return p;
}

/* room[0] becomes the floats that a product takes, for rows, depth, columns and threads. */
void products_room(const long *given, long *room) {
    parts_t p = make_parts(given[0], given[1], given[2], given[3]);
    room[0] = p.wide * right_size(p.depth) + given[3] * p.group * left_size(p.depth);
}

/* The block of c at (row, column), of which some may lie beyond c's edges. */
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

/* Rows of c (those of the blocks in mine) and columns (of the blocks in panels, the first at column). */
ALWAYS void multiply_rows(const parts_t *p, const matrix_t *a, range_t mine, range_t panels, long k0, long column,
                          const float *right, float *left, float *c, long columns) {
    for (long first = mine.first; first < mine.last; first += p->group) {
        long last = least(first + p->group, mine.last), each = left_size(p->depth);
        for (long i = first; i < last; i++)
            for (long k = 0; k < p->depth; k += LANES)
                pack_left(a, i * HEIGHT, k0 + k, left + (i - first) * each, k);
        for (long j = panels.first; j < panels.last; j++)
            for (long i = first; i < last; i++)
                put_block(left + (i - first) * each, right + j * right_size(p->depth), p->depth, c, a->rows, columns,
                          i * HEIGHT, column + j * WIDTH, k0 > 0);
    }
}

/* c = a b; given: rows, depth and columns, then what a row and what a column of a is apart, and of b. */
void products_multiply(const float *a_data, const float *b_data, float *c, float *room, const long *given,
                       long threads) {
    long rows = given[0], depth = given[1], columns = given[2];
    matrix_t a = {a_data, given[3], given[4], rows, depth}, b = {b_data, given[5], given[6], depth, columns};
    parts_t p = make_parts(rows, depth, columns, threads);
    float *right = room;
#pragma omp parallel num_threads(threads)
    {
        long thread = omp_get_thread_num(), team = omp_get_num_threads();
        /* Whoever is too many for whole teams only packs. */
        long teams = least(p.teams, team), size = team / teams, member = thread / teams;
        range_t mine = share(p.high, thread % teams, teams);
        float *left = room + p.wide * right_size(p.depth) + thread * p.group * left_size(p.depth);
        begin_products(least(rows, HEIGHT));
        for (long k0 = 0; k0 < depth; k0 += p.depth)
            for (long column = 0; column < columns; column += p.columns) {
                long wide = least(p.wide, (columns - column + WIDTH - 1) / WIDTH);
                range_t squares = share(wide * 4, thread, team);
                for (long i = squares.first; i < squares.last; i++)
                    for (long k = 0; k < p.depth; k += LANES)
                        pack_right(&b, k0 + k, column + i * LANES, right + i / 4 * right_size(p.depth), p.depth, i % 4, k);
#pragma omp barrier
                if (member < size)
                    multiply_rows(&p, &a, mine, share(wide, member, size), k0, column, right, left, c, columns);
#pragma omp barrier
            }
        end_products();
    }
}
