/* lstat of many names at once. */

#include "native.h"

#include <errno.h>
#include <fcntl.h>

/* Times outside of the years 1677..2262 are cut to that range. */
static int64_t nanoseconds(struct timespec t)
{
    __int128 time = (__int128)t.tv_sec * 1000000000 + t.tv_nsec;
    return time > INT64_MAX ? INT64_MAX : time < INT64_MIN ? INT64_MIN : (int64_t)time;
}

void row_from_stat(row_t *row, const struct stat *st)
{
    *row = (row_t){
        .mode = st->st_mode, .uid = st->st_uid, .gid = st->st_gid, .nlink = (uint32_t)st->st_nlink,
        .size = st->st_size, .mtime = nanoseconds(st->st_mtim), .ctime = nanoseconds(st->st_ctim),
        .atime = nanoseconds(st->st_atim), .ino = st->st_ino, .dev = st->st_dev, .rdev = st->st_rdev,
        .blocks = st->st_blocks,
    };
}

void row_lstat(row_t *row, int directory, const char *name)
{
    struct stat st;
    if (fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | (*name ? 0 : AT_EMPTY_PATH)) == 0)
        row_from_stat(row, &st);
    else
        *row = (row_t){.error = errno};
}

/* (dir_fd, blob, offsets, lo, hi, out STAT[hi - lo]) */
PyObject *native_stat_names(PyObject *self, PyObject *args)
{
    int fd;
    Py_ssize_t lo, hi;
    Py_buffer blob, offsets, out;
    paths_t names;
    if (!PyArg_ParseTuple(args, "iy*y*nnw*", &fd, &blob, &offsets, &lo, &hi, &out))
        return NULL;
    bool good = paths_of(&names, &blob, &offsets);
    if (good && !(0 <= lo && lo <= hi && hi <= names.rows)) {
        PyErr_SetString(PyExc_ValueError, "no such range of rows");
        good = false;
    }
    good = good && expect_items(&out, hi - lo, sizeof(row_t), "out");
    if (good) {
        row_t *rows = out.buf;
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t i = lo; i < hi; i++) {
            char name[NAME_ROOM];
            const char *start = names.blob + names.offsets[i];
            int error = copy_name(name, start, (size_t)(names.offsets[i + 1] - names.offsets[i]));
            if (error)
                rows[i - lo] = (row_t){.error = error};
            else
                row_lstat(&rows[i - lo], fd, name);
        }
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&blob);
    PyBuffer_Release(&offsets);
    PyBuffer_Release(&out);
    if (!good)
        return NULL;
    Py_RETURN_NONE;
}

/* (root_fd, blob, offsets, out STAT[n]) */
PyObject *native_stat_paths(PyObject *self, PyObject *args)
{
    int root;
    Py_buffer blob, offsets, out;
    paths_t paths;
    if (!PyArg_ParseTuple(args, "iy*y*w*", &root, &blob, &offsets, &out))
        return NULL;
    bool good = paths_of(&paths, &blob, &offsets) && expect_items(&out, paths.rows, sizeof(row_t), "out");
    if (good) {
        row_t *rows = out.buf;
        Py_BEGIN_ALLOW_THREADS
        cursor_t cursor = cursor_at(root);
        for (Py_ssize_t i = 0; i < paths.rows; i++) {
            char name[NAME_ROOM] = "";
            size_t length = (size_t)(paths.offsets[i + 1] - paths.offsets[i]);
            int error = length ? cursor_enter(&cursor, paths.blob + paths.offsets[i], length, name) : 0;
            if (error)
                rows[i] = (row_t){.error = error};
            else
                row_lstat(&rows[i], length ? cursor.fd : root, name);
        }
        cursor_close(&cursor);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&blob);
    PyBuffer_Release(&offsets);
    PyBuffer_Release(&out);
    if (!good)
        return NULL;
    Py_RETURN_NONE;
}
