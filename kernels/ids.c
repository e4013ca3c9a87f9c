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

typedef struct {
    const uint8_t *ids;
    const any_u32 *starts;
    const any_u16 *marks;
    size_t rows, buckets;
} guided_t;

/* bucket ‖ fraction, 32 bits each: kernels/ids.py says what they are. */
static uint64_t place_of(const guided_t *table, const uint8_t *id)
{
    return (uint64_t)(((unsigned __int128)prefix_at(id) * table->buckets) >> 32);
}

static void prefetch_marks(const guided_t *table, const uint8_t *id)
{
    size_t row = table->starts[place_of(table, id) >> 32];
    if (row < table->rows)
        __builtin_prefetch(table->marks + row);
}

/* The first row of an id. Rows of a bucket are sorted by mark and id; only ids that have the mark are compared. */
static int64_t find_guided(const guided_t *table, const uint8_t *id)
{
    uint64_t place = place_of(table, id);
    size_t lo = table->starts[place >> 32], hi = table->starts[(place >> 32) + 1];
    uint16_t mark = (uint16_t)(place >> 16);
    if (hi > table->rows)
        return -1; /* not our guide: nothing is read outside of the table */
    while (lo < hi) {
        size_t middle = lo + (hi - lo) / 2;
        int order = (int)table->marks[middle] - mark;
        if (order == 0)
            order = memcmp(table->ids + middle * ID_BYTES, id, ID_BYTES);
        if (order < 0) {
            lo = middle + 1;
        } else {
            hi = middle;
        }
    }
    if (lo >= table->rows || table->marks[lo] != mark || memcmp(table->ids + lo * ID_BYTES, id, ID_BYTES))
        return -1;
    return (int64_t)lo;
}

/* (table u8[n * 32], starts u32[b + 1], marks u16[n], queries u8[m * 32], rows i64[m]) */
PyObject *native_find_guided(PyObject *self, PyObject *args)
{
    Py_buffer ids, starts, marks, queries, rows;
    if (!PyArg_ParseTuple(args, "y*y*y*y*w*", &ids, &starts, &marks, &queries, &rows))
        return NULL;
    Py_ssize_t n = ids.len / ID_BYTES, count = queries.len / ID_BYTES, buckets = starts.len / 4 - 1;
    bool good = expect_items(&ids, n, ID_BYTES, "table") && expect_items(&marks, n, 2, "marks") &&
                expect_items(&starts, buckets + 1, 4, "starts") && expect_items(&queries, count, ID_BYTES, "queries") &&
                expect_items(&rows, count, 8, "rows");
    if (good && (buckets < 1 || buckets > UINT32_MAX)) {
        PyErr_SetString(PyExc_ValueError, "a guide has 1 to 2**32 - 1 buckets");
        good = false;
    }
    if (good) {
        guided_t table = {ids.buf, starts.buf, marks.buf, (size_t)n, (size_t)buckets};
        const uint8_t *query = queries.buf;
        any_i64 *out = rows.buf;
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t i = 0; i < count; i++) {
            if (i + 2 * AHEAD < count)
                __builtin_prefetch(table.starts + (place_of(&table, query + (i + 2 * AHEAD) * ID_BYTES) >> 32));
            if (i + AHEAD < count)
                prefetch_marks(&table, query + (i + AHEAD) * ID_BYTES);
            out[i] = find_guided(&table, query + i * ID_BYTES);
        }
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&ids);
    PyBuffer_Release(&starts);
    PyBuffer_Release(&marks);
    PyBuffer_Release(&queries);
    PyBuffer_Release(&rows);
    if (!good)
        return NULL;
    Py_RETURN_NONE;
}
