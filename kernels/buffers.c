/* Moving and comparing megabytes without holding the interpreter lock. */

#include "native.h"

#include <string.h>

/* False with ValueError set unless all lengths together fit into `room`. */
static bool lengths_fit(const any_u32 *length, Py_ssize_t rows, Py_ssize_t room)
{
    for (Py_ssize_t i = 0; i < rows; i++) {
        if ((int64_t)length[i] > room) {
            PyErr_SetString(PyExc_ValueError, "the ranges do not fit into the room");
            return false;
        }
        room -= length[i];
    }
    return true;
}

/* (body, start i64[n], length u32[n], room) -> bytes written */
PyObject *native_gather(PyObject *self, PyObject *args)
{
    Py_buffer body, start, length, room;
    if (!PyArg_ParseTuple(args, "y*y*y*w*", &body, &start, &length, &room))
        return NULL;
    Py_ssize_t rows = length.len / 4, written = 0;
    bool good = expect_items(&start, rows, 8, "start") && expect_items(&length, rows, 4, "length") &&
                ranges_within(start.buf, length.buf, rows, body.len) && lengths_fit(length.buf, rows, room.len);
    if (good) {
        const any_i64 *from = start.buf;
        const any_u32 *size = length.buf;
        char *to = room.buf;
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t i = 0; i < rows;) {
            int64_t begin = from[i], end = begin;
            for (; i < rows && from[i] == end; i++) /* neighbours go in one copy */
                end += size[i];
            memcpy(to + written, (const char *)body.buf + begin, (size_t)(end - begin));
            written += end - begin;
        }
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&body);
    PyBuffer_Release(&start);
    PyBuffer_Release(&length);
    PyBuffer_Release(&room);
    return good ? PyLong_FromSsize_t(written) : NULL;
}

/* (one, other) -> bool */
PyObject *native_same_bytes(PyObject *self, PyObject *args)
{
    Py_buffer one, other;
    if (!PyArg_ParseTuple(args, "y*y*", &one, &other))
        return NULL;
    bool same = one.len == other.len;
    if (same) {
        Py_BEGIN_ALLOW_THREADS
        same = memcmp(one.buf, other.buf, (size_t)one.len) == 0;
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&one);
    PyBuffer_Release(&other);
    return PyBool_FromLong(same);
}
