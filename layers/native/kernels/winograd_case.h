/* The four operations of one F(OUT x OUT, TAPS x TAPS), with the tables CASE(filter), CASE(output) and
 * TILE_TABLE. Blobs have their channels innermost, filters are [outputs][tap][channels].
 *
 * Arrays of points are [point][column / COLUMNS][depth][column % COLUMNS] where they are the right side of
 * a product, and the same with LANES where they are its left.
 *
 * Tiles are done a block at a time, each by one thread, which needs no waiting; or, if shared, a block by
 * all: the filters' points, where they are many, are then read once and not once a thread. */

#define TILE (OUT + TAPS - 1)
#define POINTS (TILE * TILE)
#define AREA (TAPS * TAPS)

/* points of [channels][outputs], which is the right side of the convolution; SPARE floats are between them. */
void CASE(filters)(const float *filters, long channels, long outputs, float *points, long threads) {
    long stride = round_up(outputs, COLUMNS) * channels + SPARE;
#pragma omp parallel for num_threads(threads) schedule(static) collapse(2)
    for (long k = 0; k < outputs; k += COLUMNS)
        for (long c = 0; c < channels; c += LANES) {
            float turned[AREA][LANES][COLUMNS];
            long some = least(COLUMNS, outputs - k);
            for (int i = 0; i < some; i++)
                for (int tap = 0; tap < AREA; tap++) {
                    const float *from = filters + ((k + i) * AREA + tap) * channels + c;
                    __builtin_prefetch(from + 2 * LANES); /* of so many rows, the processor would not */
                    for (int j = 0; j < LANES; j++) turned[tap][j][i] = from[j];
                }
            for (int j = 0; j < LANES; j++)
                for (int i = 0; i < some; i += LANES) {
                    vec in[AREA], out[POINTS];
                    UNROLL_ALL for (int tap = 0; tap < AREA; tap++) in[tap] = load(turned[tap][j] + i);
                    spread_square(TILE, TAPS, CASE(filter), in, out);
                    UNROLL_ALL for (int p = 0; p < POINTS; p++)
                        store(points + p * stride + k * channels + (c + j) * COLUMNS + i, out[p]);
                }
        }
}

/* The same of filters turned round, for the gradient: points of [outputs][channels]. */
void CASE(turned_filters)(const float *filters, long channels, long outputs, float *points, long threads) {
    long stride = round_up(channels, COLUMNS) * outputs + SPARE;
#pragma omp parallel for num_threads(threads) schedule(static) collapse(2)
    for (long first = 0; first < channels; first += COLUMNS)
        for (long k = 0; k < outputs; k++)
            for (long c = first; c < least(first + COLUMNS, channels); c += LANES) {
                vec in[AREA], out[POINTS];
                UNROLL_ALL for (int tap = 0; tap < AREA; tap++)
                    in[tap] = load(filters + (k * AREA + AREA - 1 - tap) * channels + c);
                spread_square(TILE, TAPS, CASE(filter), in, out);
                UNROLL_ALL for (int p = 0; p < POINTS; p++)
                    store(points + p * stride + first * outputs + k * COLUMNS + c - first, out[p]);
            }
}

/* The outputs of the tiles first + mine, of a block of rows tiles, from their points; plus bias and other,
 * where given, and not less than 0 if rectified. */
ALWAYS void CASE(put)(const plan_t *p, const float *points, long stride, long rows, long first, range_t mine,
                      const float *bias, const float *other, long rectified, float *y) {
    for (long t = mine.first; t < mine.last; t++) {
        long image = (first + t) / (p->down * p->across), tile = (first + t) % (p->down * p->across);
        long row = tile / p->across * OUT, column = tile % p->across * OUT;
        long high = least(OUT, p->out_height - row), wide = least(OUT, p->out_width - column);
        long corner = ((image * p->out_height + row) * p->out_width + column) * p->y_step;
        for (long k = 0; k < p->outputs; k += LANES) {
            const float *from = points + (k / COLUMNS * rows + t) * COLUMNS + k % COLUMNS;
            vec in[POINTS], out[OUT * OUT], offset = {0};
            UNROLL for (int i = 0; i < TILE; i++)
                UNROLL for (int j = 0; j < TILE; j++) in[i * TILE + j] = load(from + (i * TILE + j) * stride);
            gather_square(TILE, OUT, CASE(output), in, out);
            if (bias) offset = load(bias + k);
            for (int i = 0; i < high; i++)
                for (int j = 0; j < wide; j++) {
                    long place = corner + (i * p->out_width + j) * p->y_step + k;
                    vec value = out[i * OUT + j] + offset;
                    if (other) value += load(other + place);
                    store(y + place, rectified ? rectify(value) : value);
                }
        }
    }
}

/* y, from x and the points of the filters; other is added to it, both in the same places. room: POINTS * (block * (channels + outputs, rounded up to
 * COLUMNS) + 2 SPARE) floats, for each thread unless shared. */
void CASE(convolve)(const float *x, const float *filters, const float *bias, const float *other,
                    long rectified, const float *zeros, float *y, float *room, const long *given, long block,
                    long shared, long threads) {
    plan_t p = make_plan(given, TAPS, OUT);
    squares_t tiles = {x, zeros, p.height, p.width, p.x_step, p.channels, OUT, p.pad, p.down, p.across};
    long blocks = (p.tiles + block - 1) / block, columns = round_up(p.outputs, COLUMNS);
    long panels = columns / COLUMNS;
    long v_stride = block * p.channels + SPARE, m_stride = block * columns + SPARE;
    long u_stride = columns * p.channels + SPARE;
#pragma omp parallel num_threads(threads)
    {
        /* There may be fewer threads than asked for. */
        long thread = omp_get_thread_num(), crew = omp_get_num_threads();
        long member = shared ? thread : 0, team = shared ? crew : 1;
        float *v = room + (shared ? 0 : thread) * POINTS * (v_stride + m_stride), *m = v + POINTS * v_stride;
        for (long number = shared ? 0 : thread; number < blocks; number += shared ? 1 : crew) {
            long first = number * block, count = least(block, p.tiles - first);
            range_t mine = share(count, member, team), items = share(POINTS * panels, member, team);
            to_points(TILE, TILE, TILE_TABLE, &tiles, first, mine, block, LANES, v, v_stride);
            if (shared) {
#pragma omp barrier
            }
            for (long item = items.first; item < items.last; item++) {
                long point = item / panels, panel = item % panels;
                const float *right = filters + point * u_stride + panel * COLUMNS * p.channels;
                const float *next = item + 1 < items.last ? right + COLUMNS * p.channels : 0;
                for (long t = 0; t < count; t += ROWS)
                    product(v + point * v_stride + t * LANES, p.channels / LANES, block * LANES, LANES, LANES, 1,
                            right, m + point * m_stride + (panel * block + t) * COLUMNS, COLUMNS, 0, t ? 0 : next);
            }
            if (shared) {
#pragma omp barrier
            }
            CASE(put)(&p, m, m_stride, block, first, mine, bias, other, rectified, y);
        }
    }
}

/* The gradient of the filters from that of y. room: POINTS * (block * (outputs + channels, rounded up to
 * COLUMNS) + 3 SPARE + outputs * these channels) floats, for each thread unless shared. */
void CASE(filters_gradient)(const float *x, const float *dy, const float *zeros, float *filters, float *room,
                            const long *given, long block, long shared, long threads) {
    plan_t p = make_plan(given, TAPS, OUT);
    squares_t tiles = {x, zeros, p.height, p.width, p.x_step, p.channels, OUT, p.pad, p.down, p.across};
    squares_t outs = {dy, zeros, p.out_height, p.out_width, p.y_step, p.outputs, OUT, 0, p.down, p.across};
    long blocks = (p.tiles + block - 1) / block, columns = round_up(p.channels, COLUMNS);
    long panels = columns / COLUMNS;
    long v_stride = block * columns + SPARE, m_stride = block * p.outputs + SPARE, u_stride = columns * p.outputs + SPARE;
    long each = POINTS * (v_stride + m_stride + u_stride), sums = 1;
#pragma omp parallel num_threads(threads)
    {
        long thread = omp_get_thread_num(), crew = omp_get_num_threads();
        long member = shared ? thread : 0, team = shared ? crew : 1;
        float *v = room + (shared ? 0 : thread) * each, *m = v + POINTS * v_stride, *u = m + POINTS * m_stride;
        int add = 0;
        if (thread == 0 && !shared) sums = least(crew, blocks);
        for (long number = shared ? 0 : thread; number < blocks; number += shared ? 1 : crew, add = 1) {
            long first = number * block, count = least(block, p.tiles - first);
            range_t mine = share(count, member, team), items = share(POINTS * panels, member, team);
            to_points(TILE, TILE, TILE_TABLE, &tiles, first, mine, block, COLUMNS, v, v_stride);
            to_points(TILE, OUT, CASE(output), &outs, first, mine, block, LANES, m, m_stride);
            if (shared) {
#pragma omp barrier
            }
            for (long item = items.first; item < items.last; item++) {
                long point = item / panels, panel = item % panels;
                for (long k = 0; k < p.outputs; k += ROWS)
                    product(m + point * m_stride + k / LANES * block * LANES + k % LANES, 1, 0, count, 1, LANES,
                            v + point * v_stride + panel * block * COLUMNS,
                            u + point * u_stride + (panel * p.outputs + k) * COLUMNS, COLUMNS, add, 0);
            }
            if (shared) {
#pragma omp barrier
            }
        }
    }
    const float *totals = room + POINTS * (v_stride + m_stride);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (long k = 0; k < p.outputs; k++)
        for (long c = 0; c < p.channels; c += LANES) {
            const float *from = totals + (c / COLUMNS * p.outputs + k) * COLUMNS + c % COLUMNS;
            vec in[POINTS], out[AREA];
            UNROLL_ALL for (int point = 0; point < POINTS; point++) {
                in[point] = load(from + point * u_stride);
                for (long sum = 1; sum < sums; sum++) in[point] += load(from + sum * each + point * u_stride);
            }
            gather_square(TILE, TAPS, CASE(filter), in, out);
            UNROLL_ALL for (int tap = 0; tap < AREA; tap++) store(filters + (k * AREA + tap) * p.channels + c, out[tap]);
        }
}

#undef CASE
#undef OUT
#undef TAPS
#undef TILE_TABLE
#undef TILE
#undef POINTS
#undef AREA
