/* The module kernels._native: its function table and what the other files share. kernels/native.py wraps it. */

#include "native.h"

#include <limits.h>

/* Takes a column of byte strings apart; false with ValueError set unless every row lies inside the blob. */
bool paths_of(paths_t *paths, const Py_buffer *blob, const Py_buffer *offsets)
{
    if (offsets->len < 4 || offsets->len % 4) {
        PyErr_SetString(PyExc_ValueError, "offsets must be int32[n + 1]");
        return false;
    }
    paths->blob = blob->buf;
    paths->offsets = offsets->buf;
    paths->rows = offsets->len / 4 - 1;
    int64_t before = 0;
    for (Py_ssize_t i = 0; i <= paths->rows; i++) {
        int64_t offset = paths->offsets[i];
        if (offset < before || offset > blob->len) {
            PyErr_Format(PyExc_ValueError, "offset %zd does not lie in the blob", i);
            return false;
        }
        before = offset;
    }
    return true;
}

/* False with ValueError set unless the buffer is exactly `items` items of `item_size` bytes. */
bool expect_items(const Py_buffer *buffer, Py_ssize_t items, Py_ssize_t item_size, const char *what)
{
    if (items >= 0 && items <= PY_SSIZE_T_MAX / item_size && buffer->len == items * item_size)
        return true;
    PyErr_Format(PyExc_ValueError, "%s must have %zd items of %zd bytes, not %zd bytes", what, items, item_size,
                 buffer->len);
    return false;
}

/* False with ValueError set unless every [start, start + length) lies in a body of `size` bytes. */
bool ranges_within(const any_i64 *start, const any_u32 *length, Py_ssize_t rows, Py_ssize_t size)
{
    for (Py_ssize_t i = 0; i < rows; i++) {
        if (start[i] < 0 || start[i] > size || (int64_t)length[i] > size - start[i]) {
            PyErr_Format(PyExc_ValueError, "row %zd does not lie in the body", i);
            return false;
        }
    }
    return true;
}

/* Room for `more` bytes at the end, counted as used; NULL when memory is short. Needs no GIL. */
void *grow(growing_t *bytes, size_t more)
{
    if (bytes->failed)
        return NULL;
    if (!bytes->data || more > bytes->capacity - bytes->size) { /* NULL means failure, even of no bytes */
        size_t capacity = bytes->capacity ? bytes->capacity : 4096;
        while (capacity - bytes->size < more && capacity <= SIZE_MAX / 4)
            capacity *= 2;
        char *data = capacity - bytes->size < more ? NULL : realloc(bytes->data, capacity);
        if (!data) {
            bytes->failed = true;
            return NULL;
        }
        bytes->data = data;
        bytes->capacity = capacity;
    }
    void *room = bytes->data + bytes->size;
    bytes->size += more;
    return room;
}

/* A bytearray (so that NumPy may write to its view) of what has grown. */
PyObject *bytearray_of(growing_t *bytes)
{
    if (bytes->failed)
        return PyErr_NoMemory();
    return PyByteArray_FromStringAndSize(bytes->data, (Py_ssize_t)bytes->size);
}

PyObject *raise_errno(int error, const char *path, Py_ssize_t length)
{
    PyObject *name = PyBytes_FromStringAndSize(path, length);
    if (!name)
        return NULL;
    errno = error;
    PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, name);
    Py_DECREF(name);
    return NULL;
}

static PyMethodDef methods[] = {
    {"open_beneath", native_open_beneath, METH_VARARGS, NULL},
    {"list_directory", native_list_directory, METH_VARARGS, NULL},
    {"stat_names", native_stat_names, METH_VARARGS, NULL},
    {"stat_paths", native_stat_paths, METH_VARARGS, NULL},
    {"scan_directory", native_scan_directory, METH_VARARGS, NULL},
    {"look_at", native_look_at, METH_VARARGS, NULL},
    {"read_files", native_read_files, METH_VARARGS, NULL},
    {"write_files", native_write_files, METH_VARARGS, NULL},
    {"create_directories", native_create_directories, METH_VARARGS, NULL},
    {"join_sorted", native_join_sorted, METH_VARARGS, NULL},
    {"gather", native_gather, METH_VARARGS, NULL},
    {"same_bytes", native_same_bytes, METH_VARARGS, NULL},
    {"find_ids", native_find_ids, METH_VARARGS, NULL},
    {"find_guided", native_find_guided, METH_VARARGS, NULL},
    {"can_hash", native_can_hash, METH_NOARGS, NULL},
    {"hash_chunks", native_hash_chunks, METH_VARARGS, NULL},
    {"candidates", native_candidates, METH_VARARGS, NULL},
    {"select", native_select, METH_VARARGS, NULL},
    {"cut_files", native_cut_files, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "kernels._native",
    .m_doc = "Compiled hot loops; kernels/native.py is their Python face.",
    .m_size = 0,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&module);
}
