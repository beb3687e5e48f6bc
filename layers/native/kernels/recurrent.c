/* All steps of LSTM and RNN, once the input is projected, and their gradients up to the gates'.
 *
 * The sequences are shared by teams of threads, each of one thread where there are sequences enough: it
 * then goes through time without waiting for anybody. Where a team has several threads each has its units,
 * and they wait for each other once a step. The packed state has two places in turn, as one thread may
 * write the next while another still reads.
 *
 * A block of sums is of 4 LANES columns: the four gates of LANES units, or 4 LANES units with one gate. */

#include <omp.h>

#include "functions.h"
#include "products.h"

/* What a call is given: the matching numbers in recurrent.py. T steps, N sequences, D units. */
typedef struct {
    const float *weight;               /* (gates D, D) */
    const float *cont;                 /* (T, N) */
    float *gates;                      /* (T, N, gates D), the projected input that becomes the gates */
    float *before, *output;            /* (T, N, D): what each step starts from, and h */
    float *cells, *squashed;           /* (T + 1, N, D) and (T, N, D): c, tanh c */
    const float *offset;               /* (gates D), or for each sequence */
    const float *hidden;               /* (N, D) */
    const float *towards;              /* (T, N, D): gradient of h by what follows the layer */
    float *inner;                      /* (T, N, gates D): gradient of the gates before squashing */
    float *room;
    long offset_step, steps, batch, size, threads;
} call_t;

/* Sequences that are worth a team. */
#define FEWEST 8

typedef struct {
    long units, blocks, depth;    /* of a block of sums; how many; of the product */
    long back_blocks, back_depth; /* the same for the gradient of h */
    long teams, tiles;            /* blocks of rows that a team has */
} plan_t;

ALWAYS plan_t make_plan(int gates, long batch, long size, long threads) {
    plan_t p = {.units = WIDTH / gates, .teams = most(1, least(threads, batch / FEWEST))};
    p.tiles = ((batch + p.teams - 1) / p.teams + HEIGHT - 1) / HEIGHT;
    p.blocks = (size + p.units - 1) / p.units;
    p.depth = round_up(p.blocks * p.units, CHUNK);
    p.back_blocks = (size + WIDTH - 1) / WIDTH;
    p.back_depth = p.back_blocks * WIDTH * gates;
    return p;
}

/* room[0] and room[1] become the floats that forward and backward take, for gates, batch, size and
 * threads. */
void recurrent_room(const long *given, long *room) {
    plan_t p = make_plan(given[0], given[1], given[2], given[3]);
    room[0] = p.blocks * right_size(p.depth) + 2 * p.teams * p.tiles * left_size(p.depth);
    room[1] = p.back_blocks * right_size(p.back_depth) + 2 * p.teams * p.tiles * left_size(p.back_depth) +
              given[1] * p.back_blocks * WIDTH;
}

/* What a thread does: sequences, blocks of units, and the two places of its team's packed state. */
typedef struct {
    range_t sequences, blocks;
    float *left[2];
    int waits; /* for the others of its team */
} part_t;

ALWAYS part_t make_part(const plan_t *p, long batch, long blocks, float *left, long left_each, long thread,
                        long threads) {
    long teams = least(p->teams, threads), members = threads / teams, team = thread % teams;
    long member = thread / teams; /* whoever is too many for whole teams has nothing to do */
    part_t part = {.sequences = share(batch, team, teams), .waits = members > 1};
    part.blocks = member < members ? share(blocks, member, members) : (range_t){0, 0};
    part.left[0] = left + 2 * team * p->tiles * left_each;
    part.left[1] = part.left[0] + p->tiles * left_each;
    return part;
}

/* The unit and the gate that quarter j of a block begins with. */
ALWAYS long unit_of(int gates, long block, long j) { return gates == 4 ? block * LANES : (block * 4 + j) * LANES; }
ALWAYS long gate_of(int gates, long j) { return gates == 4 ? j : 0; }

ALWAYS void pack_forward(int gates, const call_t *c, const plan_t *p, range_t mine, float *right) {
    for (long block = mine.first; block < mine.last; block++)
        for (long j = 0; j < 4; j++) {
            matrix_t turned = {c->weight + gate_of(gates, j) * c->size * c->size, 1, c->size, c->size, c->size};
            for (long k = 0; k < p->depth; k += LANES)
                pack_right(&turned, k, unit_of(gates, block, j), right + block * right_size(p->depth), p->depth, j, k);
        }
}

/* The depth of the gradient's product goes by blocks of sums, and in these by quarters. */
ALWAYS void pack_backward(int gates, const call_t *c, const plan_t *p, range_t mine, float *right) {
    for (long block = mine.first; block < mine.last; block++)
        for (long k = 0; k < p->back_depth; k += LANES) {
            long from = k / WIDTH, j = k % WIDTH / LANES;
            matrix_t weight = {c->weight + gate_of(gates, j) * c->size * c->size, c->size, 1, c->size, c->size};
            for (long quarter = 0; quarter < 4; quarter++)
                pack_right(&weight, unit_of(gates, from, j), block * WIDTH + quarter * LANES,
                           right + block * right_size(p->back_depth), p->back_depth, quarter, k);
        }
}

ALWAYS void clear(float *room, long count, long thread, long threads) {
    range_t mine = share(count, thread, threads);
    for (long i = mine.first; i < mine.last; i++) room[i] = 0;
}

/* Sequence n, the team's number row, has the state h of units from unit on before step t. */
ALWAYS void begin_step(const call_t *c, const plan_t *p, long t, long n, long row, long unit, vec h, float *left) {
    vec kept = h * c->cont[t * c->batch + n];
    store_some(c->before + (t * c->batch + n) * c->size + unit, kept, c->size - unit);
    put_left(left + row / HEIGHT * left_size(p->depth), row % HEIGHT, unit, kept);
}

ALWAYS vec lstm_step(const call_t *c, long t, long n, long unit, const float *sums) {
    long count = c->size - unit, place = (t * c->batch + n) * c->size + unit;
    float *gates = c->gates + (t * c->batch + n) * 4 * c->size + unit;
    const float *offset = c->offset + n * c->offset_step + unit;
    vec z[4];
    UNROLL for (int j = 0; j < 4; j++)
        z[j] = load(sums + j * LANES) + load_some(gates + j * c->size, count) + load_some(offset + j * c->size, count);
    vec enter = sigmoid(z[0]), forget = sigmoid(z[1]) * c->cont[t * c->batch + n], out = sigmoid(z[2]);
    vec value = hyperbolic_tangent(z[3]);
    vec cell = forget * load_some(c->cells + place, count) + enter * value;
    vec squashed = hyperbolic_tangent(cell), h = out * squashed;
    store_some(gates, enter, count), store_some(gates + c->size, forget, count);
    store_some(gates + 2 * c->size, out, count), store_some(gates + 3 * c->size, value, count);
    store_some(c->cells + c->batch * c->size + place, cell, count);
    store_some(c->squashed + place, squashed, count);
    store_some(c->output + place, h, count);
    return h;
}

ALWAYS vec tanh_step(const call_t *c, long t, long n, long unit, const float *sums) {
    long count = c->size - unit, place = (t * c->batch + n) * c->size + unit;
    vec z = load(sums) + load_some(c->gates + place, count) + load_some(c->offset + n * c->offset_step + unit, count);
    vec h = hyperbolic_tangent(z);
    store_some(c->output + place, h, count);
    return h;
}

/* The tail of a step for one sequence and the units of one block of sums. */
ALWAYS void finish_step(int gates, const call_t *c, const plan_t *p, long t, long n, long row, long block,
                        const float *sums, float *next) {
    for (long j = 0; j < (gates == 4 ? 1 : 4); j++) {
        long unit = unit_of(gates, block, j);
        if (unit >= c->size) break;
        vec h = gates == 4 ? lstm_step(c, t, n, unit, sums) : tanh_step(c, t, n, unit, sums + j * LANES);
        if (t + 1 < c->steps) begin_step(c, p, t + 1, n, row, unit, h, next);
    }
}

/* The step of a thread's sequences and units. */
ALWAYS void forward_step(int gates, const call_t *c, const plan_t *p, const part_t *part, const float *right, long t) {
    float sums[HEIGHT * WIDTH] __attribute__((aligned(64)));
    long left_each = left_size(p->depth), rows = part->sequences.last - part->sequences.first;
    for (long block = part->blocks.first; block < part->blocks.last; block++)
        for (long first = 0; first < rows; first += HEIGHT) {
            multiply(part->left[t % 2] + first / HEIGHT * left_each, right + block * right_size(p->depth), p->depth,
                     sums, WIDTH, 0);
            for (long row = first; row < least(first + HEIGHT, rows); row++)
                finish_step(gates, c, p, t, part->sequences.first + row, row, block, sums + (row - first) * WIDTH,
                            part->left[(t + 1) % 2]);
        }
}

ALWAYS void forward(int gates, const call_t *c) {
    plan_t p = make_plan(gates, c->batch, c->size, c->threads);
    long left_each = left_size(p.depth), left_all = 2 * p.teams * p.tiles * left_each;
    float *left = c->room, *right = left + left_all;
#pragma omp parallel num_threads(c->threads)
    {
        long thread = omp_get_thread_num(), team = omp_get_num_threads();
        part_t part = make_part(&p, c->batch, p.blocks, left, left_each, thread, team);
        long rows = part.sequences.last - part.sequences.first;
        begin_products(least(HEIGHT, rows));
        clear(left, left_all, thread, team);
        pack_forward(gates, c, &p, share(p.blocks, thread, team), right);
#pragma omp barrier
        for (long row = 0; row < rows; row++)
            for (long unit = part.blocks.first * p.units; unit < least(part.blocks.last * p.units, c->size);
                 unit += LANES) {
                long n = part.sequences.first + row;
                vec h = load_some(c->hidden + n * c->size + unit, c->size - unit);
                begin_step(c, &p, 0, n, row, unit, h, part.left[0]);
            }
        for (long t = 0; t < c->steps; t++) {
            if (part.waits) {
#pragma omp barrier
            }
            forward_step(gates, c, &p, &part, right, t);
        }
        end_products();
    }
}

/* The gradient of the gates for that of h, into z, and of c before this step, in dc. */
ALWAYS void lstm_gradient(const call_t *c, long t, long n, long unit, vec dh, float *dc, vec *z) {
    long count = c->size - unit, place = (t * c->batch + n) * c->size + unit;
    const float *gates = c->gates + (t * c->batch + n) * 4 * c->size + unit;
    vec enter = load_some(gates, count), forget = load_some(gates + c->size, count);
    vec out = load_some(gates + 2 * c->size, count), value = load_some(gates + 3 * c->size, count);
    vec squashed = load_some(c->squashed + place, count), cell = load_some(c->cells + place, count);
    vec sum = load(dc) + dh * out * (1 - squashed * squashed);
    z[0] = sum * value * (enter * (1 - enter));
    z[1] = sum * cell * (forget * (1 - forget));
    z[2] = dh * squashed * (out * (1 - out));
    z[3] = sum * enter * (1 - value * value);
    store(dc, sum * forget);
}

/* The same tail backward: back is the gradient that h gets from the next step. */
ALWAYS void finish_gradient(int gates, const call_t *c, const plan_t *p, long t, long n, long row, long unit, vec back,
                            float *dc, float *left) {
    long count = c->size - unit, place = (t * c->batch + n) * c->size + unit;
    vec dh = load_some(c->towards + place, count), z[4];
    if (t + 1 < c->steps) dh += back * c->cont[(t + 1) * c->batch + n];
    if (gates == 4) {
        lstm_gradient(c, t, n, unit, dh, dc, z);
    } else {
        vec h = load_some(c->output + place, count);
        z[0] = dh * (1 - h * h);
    }
    for (long j = 0; j < gates; j++) {
        store_some(c->inner + ((t * c->batch + n) * gates + j) * c->size + unit, z[j], count);
        put_left(left + row / HEIGHT * left_size(p->back_depth), row % HEIGHT, unit * gates + j * LANES, z[j]);
    }
}

ALWAYS void backward_step(int gates, const call_t *c, const plan_t *p, const part_t *part, const float *right,
                          float *dc, long t) {
    float sums[HEIGHT * WIDTH] __attribute__((aligned(64)));
    long left_each = left_size(p->back_depth), rows = part->sequences.last - part->sequences.first;
    for (long block = part->blocks.first; block < part->blocks.last; block++)
        for (long first = 0; first < rows; first += HEIGHT) {
            if (t + 1 < c->steps)
                multiply(part->left[(t + 1) % 2] + first / HEIGHT * left_each, right + block * right_size(p->back_depth),
                         p->back_depth, sums, WIDTH, 0);
            for (long row = first; row < least(first + HEIGHT, rows); row++)
                for (long i = 0, unit = block * WIDTH; i < WIDTH && unit < c->size; i += LANES, unit += LANES) {
                    long n = part->sequences.first + row;
                    finish_gradient(gates, c, p, t, n, row, unit, load(sums + (row - first) * WIDTH + i),
                                    dc + n * p->back_blocks * WIDTH + unit, part->left[t % 2]);
                }
        }
}

ALWAYS void backward(int gates, const call_t *c) {
    plan_t p = make_plan(gates, c->batch, c->size, c->threads);
    long left_each = left_size(p.back_depth), left_all = 2 * p.teams * p.tiles * left_each;
    float *left = c->room, *right = left + left_all, *dc = right + p.back_blocks * right_size(p.back_depth);
#pragma omp parallel num_threads(c->threads)
    {
        long thread = omp_get_thread_num(), team = omp_get_num_threads();
        part_t part = make_part(&p, c->batch, p.back_blocks, left, left_each, thread, team);
        begin_products(least(HEIGHT, part.sequences.last - part.sequences.first));
        clear(left, left_all, thread, team);
        clear(dc, c->batch * p.back_blocks * WIDTH, thread, team);
        pack_backward(gates, c, &p, share(p.back_blocks, thread, team), right);
#pragma omp barrier
        for (long t = c->steps - 1; t >= 0; t--) {
            backward_step(gates, c, &p, &part, right, dc, t);
            if (part.waits) {
#pragma omp barrier
            }
        }
        end_products();
    }
}

void recurrent_lstm_forward(const call_t *c) { forward(4, c); }
void recurrent_lstm_backward(const call_t *c) { backward(4, c); }
void recurrent_tanh_forward(const call_t *c) { forward(1, c); }
void recurrent_tanh_backward(const call_t *c) { backward(1, c); }
