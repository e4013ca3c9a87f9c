/* Finding chunk ids in a sorted table, which is often a memory-mapped file much larger than the caches. */

#include "native.h"

#include <string.h>

#define ID_BYTES 32
#define AHEAD 8 /* queries whose likely row is fetched in advance */

static uint64_t prefix_at(const uint8_t *id)
{
    uint64_t word;
    memcpy(&word, id, 8);
    return __builtin_bswap64(word);
}

/* Where a prefix lies among `rows` evenly spread ones. */
static size_t likely_row(uint64_t prefix, size_t rows)
{
    return (size_t)(((unsigned __int128)prefix * rows) >> 64);
}

/* Ids are evenly spread, so a few guesses come close; halving finishes, and bounds the work on a hostile table. */
static int64_t find(const uint8_t *table, size_t rows, const uint8_t *id)
{
    size_t lo = 0, hi = rows; /* the row is in [lo, hi) */
    uint64_t wanted = prefix_at(id), low = 0, high = UINT64_MAX;
    for (int tries = 0; lo < hi; tries++) {
        size_t middle = lo + (hi - lo) / 2;
        if (tries < 8 && low < high && wanted >= low && wanted <= high) {
            size_t step = (size_t)(((unsigned __int128)(wanted - low) * (hi - lo)) / ((unsigned __int128)(high - low) + 1));
            middle = lo + step;
        }
        int order = memcmp(table + middle * ID_BYTES, id, ID_BYTES);
        if (order == 0)
            return (int64_t)middle;
        if (order < 0) {
            lo = middle + 1;
            low = prefix_at(table + middle * ID_BYTES);
        } else {
            hi = middle;
            high = prefix_at(table + middle * ID_BYTES);
        }
    }
    return -1;
}

/* (table u8[n * 32], queries u8[m * 32], rows i64[m]) */
PyObject *native_find_ids(PyObject *self, PyObject *args)
{
    Py_buffer table, queries, rows;
    if (!PyArg_ParseTuple(args, "y*y*w*", &table, &queries, &rows))
        return NULL;
    Py_ssize_t count = queries.len / ID_BYTES;
    bool good = expect_items(&table, table.len / ID_BYTES, ID_BYTES, "table") &&
                expect_items(&queries, count, ID_BYTES, "queries") && expect_items(&rows, count, 8, "rows");
    if (good) {
        const uint8_t *ids = table.buf, *query = queries.buf;
        size_t n = (size_t)(table.len / ID_BYTES);
        any_i64 *out = rows.buf;
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t i = 0; i < count; i++) {
            if (n && i + AHEAD < count)
                __builtin_prefetch(ids + ID_BYTES * likely_row(prefix_at(query + (i + AHEAD) * ID_BYTES), n));
            out[i] = find(ids, n, query + i * ID_BYTES);
        }
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&table);
    PyBuffer_Release(&queries);
    PyBuffer_Release(&rows);
    if (!good)
        return NULL;
    Py_RETURN_NONE;
}
