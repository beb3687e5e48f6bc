/* All steps of LSTM and RNN, once the input is projected, and their gradients up to the gates'.
 *
 * Each thread has its units, whose columns of the recurrent weights it packs once, so that they stay in its
 * cache. A step is a product with the state of all units and then, while its block of sums is at hand,
 * gates and state of its own units; the threads wait for each other once a step. The packed state has two
 * places in turn, as one thread may write the next while another still reads.
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

typedef struct {
    long units, blocks, depth, tiles; /* of a block of sums; how many; of the product; of rows */
    long back_blocks, back_depth;     /* the same for the gradient of h */
} plan_t;

ALWAYS plan_t make_plan(int gates, long batch, long size) {
    plan_t p = {.units = WIDTH / gates, .tiles = (batch + HEIGHT - 1) / HEIGHT};
    p.blocks = (size + p.units - 1) / p.units;
    p.depth = round_up(p.blocks * p.units, CHUNK);
    p.back_blocks = (size + WIDTH - 1) / WIDTH;
    p.back_depth = p.back_blocks * WIDTH * gates;
    return p;
}

/* room[0] and room[1] become the floats that forward and backward take, for gates, batch and size. */
void recurrent_room(const long *given, long *room) {
    plan_t p = make_plan(given[0], given[1], given[2]);
    room[0] = p.blocks * right_size(p.depth) + 2 * p.tiles * left_size(p.depth);
    room[1] = p.back_blocks * right_size(p.back_depth) + 2 * p.tiles * left_size(p.back_depth) +
              p.tiles * HEIGHT * p.back_blocks * WIDTH;
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

/* Sequence n with units from unit on has the state h before step t. */
ALWAYS void begin_step(const call_t *c, const plan_t *p, long t, long n, long unit, vec h, float *left) {
    vec kept = h * c->cont[t * c->batch + n];
    store_some(c->before + (t * c->batch + n) * c->size + unit, kept, c->size - unit);
    put_left(left + n / HEIGHT * left_size(p->depth), n % HEIGHT, unit, kept);
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
ALWAYS void finish_step(int gates, const call_t *c, const plan_t *p, long t, long n, long block, const float *sums,
                        float *next) {
    for (long j = 0; j < (gates == 4 ? 1 : 4); j++) {
        long unit = unit_of(gates, block, j);
        if (unit >= c->size) break;
        vec h = gates == 4 ? lstm_step(c, t, n, unit, sums) : tanh_step(c, t, n, unit, sums + j * LANES);
        if (t + 1 < c->steps) begin_step(c, p, t + 1, n, unit, h, next);
    }
}

ALWAYS void forward(int gates, const call_t *c) {
    plan_t p = make_plan(gates, c->batch, c->size);
    long left_each = left_size(p.depth), right_each = right_size(p.depth), place = p.tiles * left_each;
    float *left = c->room, *right = left + 2 * place;
#pragma omp parallel num_threads(c->threads)
    {
        long thread = omp_get_thread_num(), team = omp_get_num_threads();
        range_t mine = share(p.blocks, thread, team);
        float sums[HEIGHT * WIDTH] __attribute__((aligned(64)));
        begin_products();
        clear(left, 2 * place, thread, team);
        pack_forward(gates, c, &p, mine, right);
#pragma omp barrier
        for (long n = 0; n < c->batch; n++)
            for (long unit = mine.first * p.units; unit < least(mine.last * p.units, c->size); unit += LANES)
                begin_step(c, &p, 0, n, unit, load_some(c->hidden + n * c->size + unit, c->size - unit), left);
        for (long t = 0; t < c->steps; t++) {
            float *now = left + t % 2 * place, *next = left + (t + 1) % 2 * place;
#pragma omp barrier
            for (long block = mine.first; block < mine.last; block++)
                for (long tile = 0; tile < p.tiles; tile++) {
                    long first = tile * HEIGHT, last = least(first + HEIGHT, c->batch);
                    multiply(now + tile * left_each, right + block * right_each, p.depth, sums, WIDTH, 0);
                    for (long n = first; n < last; n++)
                        finish_step(gates, c, &p, t, n, block, sums + (n - first) * WIDTH, next);
                }
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
ALWAYS void finish_gradient(int gates, const call_t *c, const plan_t *p, long t, long n, long unit, vec back,
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
        put_left(left + n / HEIGHT * left_size(p->back_depth), n % HEIGHT, unit * gates + j * LANES, z[j]);
    }
}

ALWAYS void backward(int gates, const call_t *c) {
    plan_t p = make_plan(gates, c->batch, c->size);
    long left_each = left_size(p.back_depth), right_each = right_size(p.back_depth), place = p.tiles * left_each;
    long columns = p.back_blocks * WIDTH;
    float *left = c->room, *right = left + 2 * place, *dc = right + p.back_blocks * right_each;
#pragma omp parallel num_threads(c->threads)
    {
        long thread = omp_get_thread_num(), team = omp_get_num_threads();
        range_t mine = share(p.back_blocks, thread, team);
        float sums[HEIGHT * WIDTH] __attribute__((aligned(64)));
        begin_products();
        clear(left, 2 * place, thread, team);
        clear(dc, p.tiles * HEIGHT * columns, thread, team);
        pack_backward(gates, c, &p, mine, right);
        for (long t = c->steps - 1; t >= 0; t--) {
            float *now = left + t % 2 * place, *last = left + (t + 1) % 2 * place;
#pragma omp barrier
            for (long block = mine.first; block < mine.last; block++)
                for (long tile = 0; tile < p.tiles; tile++) {
                    long first = tile * HEIGHT, end = least(first + HEIGHT, c->batch);
                    if (t + 1 < c->steps)
                        multiply(last + tile * left_each, right + block * right_each, p.back_depth, sums, WIDTH, 0);
                    for (long n = first; n < end; n++)
                        for (long i = 0; i < WIDTH && block * WIDTH + i < c->size; i += LANES)
                            finish_gradient(gates, c, &p, t, n, block * WIDTH + i, load(sums + (n - first) * WIDTH + i),
                                            dc + n * columns + block * WIDTH + i, now);
                }
        }
        end_products();
    }
}

void recurrent_lstm_forward(const call_t *c) { forward(4, c); }
void recurrent_lstm_backward(const call_t *c) { backward(4, c); }
void recurrent_tanh_forward(const call_t *c) { forward(1, c); }
void recurrent_tanh_backward(const call_t *c) { backward(1, c); }
