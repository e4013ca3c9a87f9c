/* Choosing cut points among candidates, and the Python functions of the chunker. */

#include "native.h"

#include "chunk.h"

#include <string.h>

enum { KIND_GEAR = 0, KIND_FIXED = 1 };
#define LENGTH_MAX (64 << 20)
#define POSITION_MAX ((int64_t)1 << 61)
#define CUTS_MAX (1 << 26) /* that one call may make of a range without candidates: bounds its memory */

typedef struct {
    int kind;
    Py_ssize_t minimum, average, maximum;
    unsigned long long loose, strict; /* largest values */
} params_t;

static bool params_good(const params_t *params)
{
    if ((params->kind == KIND_GEAR || params->kind == KIND_FIXED) && params->minimum >= WINDOW &&
        params->minimum <= params->average && params->average <= params->maximum && params->maximum <= LENGTH_MAX)
        return true;
    PyErr_SetString(PyExc_ValueError, "chunk lengths out of order");
    return false;
}

static bool gear_of(gear_t *gear, const Py_buffer *table, const params_t *params)
{
    if (!expect_items(table, 256, 8, "table"))
        return false;
    memcpy(gear->table, table->buf, sizeof gear->table);
    gear->loose = params->loose;
    gear->strict = params->strict;
    return true;
}

/* Selection: `last` is where the open chunk starts. */
typedef struct {
    const params_t *params;
    int64_t last;
    growing_t cuts; /* int64 */
} selection_t;

static void cut(selection_t *selection, int64_t position)
{
    int64_t *slot = grow(&selection->cuts, sizeof *slot);
    if (slot)
        *slot = position;
    selection->last = position;
}

static int64_t full_length(const params_t *params)
{
    return params->kind == KIND_FIXED ? params->average : params->maximum;
}

/* No candidate lies between the last one considered and `position`: chunks that are full end there. */
static void advance(selection_t *selection, int64_t position)
{
    int64_t full = full_length(selection->params);
    while (position - selection->last >= full && !selection->cuts.failed)
        cut(selection, selection->last + full);
}

static void consider(selection_t *selection, int64_t position, bool strict)
{
    const params_t *params = selection->params;
    advance(selection, position);
    int64_t length = position - selection->last;
    if (length >= params->minimum && (strict || length >= params->average))
        cut(selection, position);
}

static void finish(selection_t *selection, int64_t end)
{
    advance(selection, end);
    if (selection->last < end)
        cut(selection, end);
}

/* (data, table, params, context) -> candidates i64 */
PyObject *native_candidates(PyObject *self, PyObject *args)
{
    Py_buffer data, table;
    params_t params;
    Py_ssize_t context;
    gear_t gear;
    if (!PyArg_ParseTuple(args, "y*y*(innnKK)n", &data, &table, &params.kind, &params.minimum, &params.average,
                          &params.maximum, &params.loose, &params.strict, &context))
        return NULL;
    PyObject *result = NULL;
    uint32_t *found = malloc(SPAN_MAX * sizeof *found);
    growing_t out = {0};
    if (!found) {
        PyErr_NoMemory();
    } else if (params_good(&params) && gear_of(&gear, &table, &params)) {
        if (context < 0 || context > data.len) {
            PyErr_SetString(PyExc_ValueError, "the context must lie in the data");
        } else {
            Py_BEGIN_ALLOW_THREADS
            size_t lo = (size_t)context + 1, end = (size_t)data.len + 1;
            for (; lo < end && params.kind == KIND_GEAR; lo += SPAN_MAX) {
                size_t hi = end - lo > SPAN_MAX ? lo + SPAN_MAX : end;
                size_t count = scan_gear(data.buf, 0, lo, hi, &gear, found);
                int64_t *items = count ? grow(&out, count * sizeof *items) : NULL;
                for (size_t i = 0; items && i < count; i++)
                    items[i] = 2 * (int64_t)(lo - (size_t)context) + found[i];
            }
            Py_END_ALLOW_THREADS
            result = bytearray_of(&out);
        }
    }
    free(found);
    free(out.data);
    PyBuffer_Release(&data);
    PyBuffer_Release(&table);
    return result;
}

/* (candidates i64[n], params, start, end, final) -> cuts i64 */
PyObject *native_select(PyObject *self, PyObject *args)
{
    Py_buffer candidates;
    params_t params;
    long long start, end;
    int final;
    if (!PyArg_ParseTuple(args, "y*(innnKK)LLp", &candidates, &params.kind, &params.minimum, &params.average,
                          &params.maximum, &params.loose, &params.strict, &start, &end, &final))
        return NULL;
    PyObject *result = NULL;
    if (!params_good(&params)) {
    } else if (candidates.len % 8 || start < 0 || start > end || end > POSITION_MAX) {
        PyErr_SetString(PyExc_ValueError, "need int64 candidates and 0 <= start <= end");
    } else if ((end - start) / full_length(&params) > CUTS_MAX) {
        PyErr_SetString(PyExc_ValueError, "the range is too long for one call");
    } else {
        selection_t selection = {.params = &params, .last = start};
        const any_i64 *items = candidates.buf;
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t i = 0; i < candidates.len / 8 && params.kind == KIND_GEAR; i++)
            if (items[i] >> 1 > selection.last && items[i] >> 1 <= end)
                consider(&selection, items[i] >> 1, items[i] & 1);
        if (final)
            finish(&selection, end);
        else
            advance(&selection, end);
        Py_END_ALLOW_THREADS
        result = bytearray_of(&selection.cuts);
        free(selection.cuts.data);
    }
    PyBuffer_Release(&candidates);
    return result;
}

/* Cuts data[start..end) on its own: windows are scanned from the shortest chunk length on, so that no byte before
 * the file is ever looked at, and what lies before the shortest length after a cut is skipped. */
static void cut_file(const uint8_t *data, size_t start, size_t end, const gear_t *gear, uint32_t *found,
                     selection_t *selection)
{
    size_t minimum = (size_t)selection->params->minimum;
    selection->last = (int64_t)start;
    size_t lo = start + minimum;
    while (selection->params->kind == KIND_GEAR && lo < end && !selection->cuts.failed) {
        size_t hi = end - lo > SPAN_MAX ? lo + SPAN_MAX : end;
        size_t count = scan_gear(data, start, lo, hi, gear, found);
        for (size_t i = 0; i < count; i++)
            consider(selection, (int64_t)(lo + (found[i] >> 1)), found[i] & 1);
        advance(selection, (int64_t)hi - 1);
        size_t next = (size_t)selection->last + minimum;
        lo = next > hi ? next : hi;
    }
    finish(selection, (int64_t)end);
}

/* -1 or the row that does not lie in the body. */
static Py_ssize_t cut_all(const Py_buffer *body, const Py_buffer *start, const Py_buffer *length, const gear_t *gear,
                          uint32_t *found, selection_t *selection, any_i32 *counts)
{
    const any_i64 *starts = start->buf, *lengths = length->buf;
    size_t before = 0;
    for (Py_ssize_t i = 0; i < start->len / 8; i++) {
        int64_t at = starts[i], n = lengths[i];
        if (at < 0 || at > body->len || n < 0 || n > body->len - at)
            return i;
        cut_file(body->buf, (size_t)at, (size_t)(at + n), gear, found, selection);
        counts[i] = (int32_t)((selection->cuts.size - before) / sizeof(int64_t));
        before = selection->cuts.size;
    }
    return -1;
}

/* (body, start i64[n], length i64[n], table, params, counts i32[n]) -> ends i64 */
PyObject *native_cut_files(PyObject *self, PyObject *args)
{
    Py_buffer body, start, length, table, counts;
    params_t params;
    gear_t gear;
    if (!PyArg_ParseTuple(args, "y*y*y*y*(innnKK)w*", &body, &start, &length, &table, &params.kind, &params.minimum,
                          &params.average, &params.maximum, &params.loose, &params.strict, &counts))
        return NULL;
    PyObject *result = NULL;
    uint32_t *found = malloc(SPAN_MAX * sizeof *found);
    if (!found) {
        PyErr_NoMemory();
    } else if (params_good(&params) && gear_of(&gear, &table, &params) &&
               expect_items(&start, start.len / 8, 8, "start") &&
               expect_items(&length, start.len / 8, 8, "length") &&
               expect_items(&counts, start.len / 8, 4, "counts")) {
        selection_t selection = {.params = &params};
        Py_ssize_t bad;
        Py_BEGIN_ALLOW_THREADS
        bad = cut_all(&body, &start, &length, &gear, found, &selection, counts.buf);
        Py_END_ALLOW_THREADS
        if (bad >= 0)
            PyErr_Format(PyExc_ValueError, "row %zd does not lie in the body", bad);
        else
            result = bytearray_of(&selection.cuts);
        free(selection.cuts.data);
    }
    free(found);
    PyBuffer_Release(&body);
    PyBuffer_Release(&start);
    PyBuffer_Release(&length);
    PyBuffer_Release(&table);
    PyBuffer_Release(&counts);
    return result;
}
