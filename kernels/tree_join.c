/* Matching two columns of paths that are both in manifest order. */

#include "native.h"

#include <string.h>

/* model.entries.order_key: the directory with every slash as the smallest byte, then the name. */
static int compare_paths(const char *a, size_t a_length, const char *b, size_t b_length)
{
    size_t a_parent = parent_length(a, a_length), b_parent = parent_length(b, b_length);
    size_t shared = a_parent < b_parent ? a_parent : b_parent;
    if (memcmp(a, b, shared)) {
        size_t i = 0;
        for (; i < shared; i++) {
            unsigned char x = (unsigned char)a[i], y = (unsigned char)b[i];
            x = x == '/' ? 0 : x;
            y = y == '/' ? 0 : y;
            if (x != y)
                return x < y ? -1 : 1;
        }
    }
    if (a_parent != b_parent)
        return a_parent < b_parent ? -1 : 1;
    size_t a_skip = a_parent + (a_parent < a_length && a[a_parent] == '/');
    size_t b_skip = b_parent + (b_parent < b_length && b[b_parent] == '/');
    size_t a_name = a_length - a_skip, b_name = b_length - b_skip;
    int order = memcmp(a + a_skip, b + b_skip, a_name < b_name ? a_name : b_name);
    if (order)
        return order;
    return a_name < b_name ? -1 : a_name > b_name;
}

static int compare_rows(const paths_t *a, Py_ssize_t i, const paths_t *b, Py_ssize_t j)
{
    size_t a_length = (size_t)(a->offsets[i + 1] - a->offsets[i]);
    size_t b_length = (size_t)(b->offsets[j + 1] - b->offsets[j]);
    return compare_paths(a->blob + a->offsets[i], a_length, b->blob + b->offsets[j], b_length);
}

static Py_ssize_t join(const paths_t *a, const paths_t *b, any_i32 *match)
{
    Py_ssize_t j = 0;
    for (Py_ssize_t i = 0; i < a->rows; i++) {
        int order = 1;
        while (j < b->rows && (order = compare_rows(b, j, a, i)) < 0)
            j++;
        match[i] = j < b->rows && order == 0 ? (int32_t)j : -1;
    }
    while (a->rows && j < b->rows && compare_rows(b, j, a, a->rows - 1) <= 0)
        j++;
    return j;
}

/* (a_blob, a_offsets, b_blob, b_offsets, match i32[rows of a]) -> used */
PyObject *native_join_sorted(PyObject *self, PyObject *args)
{
    Py_buffer a_blob, a_offsets, b_blob, b_offsets, match;
    paths_t a, b;
    if (!PyArg_ParseTuple(args, "y*y*y*y*w*", &a_blob, &a_offsets, &b_blob, &b_offsets, &match))
        return NULL;
    bool good = paths_of(&a, &a_blob, &a_offsets) && paths_of(&b, &b_blob, &b_offsets) &&
                expect_items(&match, a.rows, 4, "match");
    Py_ssize_t used = 0;
    if (good) {
        Py_BEGIN_ALLOW_THREADS
        used = join(&a, &b, match.buf);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&a_blob);
    PyBuffer_Release(&a_offsets);
    PyBuffer_Release(&b_blob);
    PyBuffer_Release(&b_offsets);
    PyBuffer_Release(&match);
    return good ? PyLong_FromSsize_t(used) : NULL;
}
