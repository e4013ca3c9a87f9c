/* Reading many small files back to back into one body. */

#include "native.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static int open_to_read(int directory, const char *name)
{
    /* O_NONBLOCK: the name may have become a FIFO or a device since it was looked at. */
    int flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, fd;
    int first = flags | O_NOATIME;
    do {
        fd = openat(directory, name, first);
        if (fd < 0 && errno == EPERM && first != flags) { /* O_NOATIME is for owners */
            first = flags;
            errno = EINTR;
        }
    } while (fd < 0 && errno == EINTR);
    return fd;
}

/* Up to `limit` bytes; how many, or -1 with errno. */
static int64_t read_up_to(int fd, char *body, int64_t limit)
{
    int64_t got = 0;
    while (got < limit) {
        ssize_t n = read(fd, body + got, (size_t)(limit - got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        got += n;
    }
    return got;
}

static bool is_same_version(const row_t *row, const struct stat *now)
{
    row_t after;
    row_from_stat(&after, now);
    return row->ino == after.ino && row->dev == after.dev && row->size == after.size && row->mtime == after.mtime &&
           row->ctime == after.ctime;
}

/* What could not be opened: why, unless it is no file (a link, a socket), which says more. */
static void note_unopened(row_t *row, int directory, const char *name)
{
    int error = errno;
    row_lstat(row, directory, name);
    if (!row->error && !S_ISREG(row->mode))
        row->flags |= READ_NOT_REGULAR;
    else
        row->error = error;
}

/* Fills the row from before the read (so that a later backup sees a change that came after it); bytes read. */
static int64_t read_row(row_t *row, int directory, const char *name, char *body, int64_t limit)
{
    struct stat before, after;
    int64_t got = 0;
    int fd = open_to_read(directory, name);
    if (fd < 0) {
        note_unopened(row, directory, name);
        return 0;
    }
    if (fstat(fd, &before) < 0) {
        row->error = errno;
        goto done;
    }
    row_from_stat(row, &before);
    if (!S_ISREG(before.st_mode)) {
        row->flags |= READ_NOT_REGULAR;
        goto done;
    }
    row->flags |= attributes_of(fd);
    got = read_up_to(fd, body, limit);
    if (got < 0 || fstat(fd, &after) < 0) {
        row->error = errno;
        got = 0;
    } else if (!is_same_version(row, &after) || (limit >= 0 && after.st_size != limit)) {
        row->flags |= READ_CHANGED;
    }
done:
    close(fd);
    return got;
}

static bool limits_fit(const any_i64 *limits, Py_ssize_t rows, Py_ssize_t room)
{
    for (Py_ssize_t i = 0; i < rows; i++) {
        if (limits[i] <= 0)
            continue;
        if (limits[i] > room) {
            PyErr_SetString(PyExc_ValueError, "the body is too small for the limits");
            return false;
        }
        room -= limits[i];
    }
    return true;
}

/* (root_fd, blob, offsets, limits i64[n], body, stats STAT[n], lengths i64[n]) */
PyObject *native_read_files(PyObject *self, PyObject *args)
{
    int root;
    Py_buffer blob, offsets, limits, body, stats, lengths;
    paths_t paths;
    if (!PyArg_ParseTuple(args, "iy*y*y*w*w*w*", &root, &blob, &offsets, &limits, &body, &stats, &lengths))
        return NULL;
    bool good = paths_of(&paths, &blob, &offsets) && expect_items(&limits, paths.rows, 8, "limits") &&
                expect_items(&stats, paths.rows, sizeof(row_t), "stats") &&
                expect_items(&lengths, paths.rows, 8, "lengths") && limits_fit(limits.buf, paths.rows, body.len);
    if (good) {
        row_t *rows = stats.buf;
        any_i64 *got = lengths.buf;
        const any_i64 *most = limits.buf;
        Py_BEGIN_ALLOW_THREADS
        cursor_t cursor = cursor_at(root);
        char *to = body.buf;
        for (Py_ssize_t i = 0; i < paths.rows; i++) {
            char name[NAME_ROOM];
            size_t length = (size_t)(paths.offsets[i + 1] - paths.offsets[i]);
            int error = cursor_enter(&cursor, paths.blob + paths.offsets[i], length, name);
            rows[i] = (row_t){.error = error};
            got[i] = error ? 0 : read_row(&rows[i], cursor.fd, name, to, most[i]);
            to += got[i];
        }
        cursor_close(&cursor);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&blob);
    PyBuffer_Release(&offsets);
    PyBuffer_Release(&limits);
    PyBuffer_Release(&body);
    PyBuffer_Release(&stats);
    PyBuffer_Release(&lengths);
    if (!good)
        return NULL;
    Py_RETURN_NONE;
}
