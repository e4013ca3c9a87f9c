/* Finding candidates: the loop that looks at every byte. Plain C, because it was measured to be as good as any:
 * one value alone waits for its own additions, so four streams run side by side; one branch for two positions,
 * because with one a byte the branches are the limit. Eight streams in AVX-512 registers, with permutes in place of
 * table loads, gave 10 % more on large files and 20 % less on small ones (Zen 4): not worth a second version. */

#include "chunk.h"

#define STREAMS 4
#define STREAM_MIN 128 /* positions a stream should have, as starting it costs 63 */
#define UNLIKELY(condition) __builtin_expect(condition, 0)

/* The value one byte before position lo. */
static uint64_t warm_value(const uint8_t *data, size_t begin, size_t lo, const gear_t *gear)
{
    uint64_t value = 0;
    for (size_t i = lo - begin > WINDOW ? lo - WINDOW : begin; i + 1 < lo; i++)
        value = (value << 1) + gear->table[data[i]];
    return value;
}

static size_t scan_one(const uint8_t *data, size_t begin, size_t lo, size_t hi, const gear_t *gear, uint32_t *out)
{
    uint64_t value = warm_value(data, begin, lo, gear);
    size_t found = 0;
    for (size_t p = lo; p < hi; p++) {
        value = (value << 1) + gear->table[data[p - 1]];
        if (UNLIKELY(value <= gear->loose))
            out[found++] = (uint32_t)(p - lo) << 1 | (value <= gear->strict);
    }
    return found;
}

#define RECORD(k, value, i)                                                                                            \
    if ((value) <= loose)                                                                                              \
    out[(k) * span + counts[k]++] = (uint32_t)(i) << 1 | ((value) <= gear->strict)

/* Two positions of stream k. */
#define STEP(k)                                                                                                        \
    do {                                                                                                               \
        uint64_t first = (value[k] << 1) + table[at[(k) * span + i]];                                                  \
        value[k] = (first << 1) + table[at[(k) * span + i + 1]];                                                       \
        uint64_t least = first < value[k] ? first : value[k];                                                          \
        if (UNLIKELY(least <= loose)) {                                                                                \
            RECORD(k, first, i);                                                                                       \
            RECORD(k, value[k], i + 1);                                                                                \
        }                                                                                                              \
    } while (0)

/* STREAMS lists, each from the start of its `span` items of out, become one. */
static size_t join_streams(uint32_t *out, const size_t *counts, size_t span)
{
    size_t total = counts[0];
    for (size_t k = 1; k < STREAMS; k++) {
        for (size_t i = 0; i < counts[k]; i++)
            out[total + i] = out[k * span + i] + (uint32_t)(2 * k * span);
        total += counts[k];
    }
    return total;
}

/* The first STREAMS * span positions from lo on. */
static inline __attribute__((always_inline)) size_t scan_streams(const uint8_t *data, size_t begin, size_t lo,
                                                                 size_t span, const gear_t *gear, uint32_t *out)
{
    const uint64_t *table = gear->table, loose = gear->loose;
    const uint8_t *at = data + lo - 1;
    uint64_t value[STREAMS];
    size_t counts[STREAMS] = {0};
    for (size_t k = 0; k < STREAMS; k++)
        value[k] = warm_value(data, begin, lo + k * span, gear);
    for (size_t i = 0; i < span; i += 2) {
        STEP(0);
        STEP(1);
        STEP(2);
        STEP(3);
    }
    return join_streams(out, counts, span);
}

size_t scan_gear(const uint8_t *data, size_t begin, size_t lo, size_t hi, const gear_t *gear, uint32_t *out)
{
    if (hi - lo == SPAN_MAX) /* distances the compiler knows make the loop 10 % faster */
        return scan_streams(data, begin, lo, SPAN_MAX / STREAMS, gear, out);
    size_t span = (hi - lo) / STREAMS & ~(size_t)1;
    if (span < STREAM_MIN)
        return scan_one(data, begin, lo, hi, gear, out);
    size_t found = scan_streams(data, begin, lo, span, gear, out), done = STREAMS * span;
    size_t rest = scan_one(data, begin, lo + done, hi, gear, out + found);
    for (size_t i = 0; i < rest; i++)
        out[found + i] += (uint32_t)(2 * done);
    return found + rest;
}
