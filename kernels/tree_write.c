/* Creating many small files and directories. Nothing that exists is ever written to. */

#include "native.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { WRITE_OWNER = 1, WRITE_MODE = 2, WRITE_TIMES = 4 };

static struct timespec timespec_of(int64_t nanoseconds)
{
    int64_t seconds = nanoseconds / 1000000000, rest = nanoseconds % 1000000000;
    if (rest < 0)
        seconds--, rest += 1000000000;
    return (struct timespec){.tv_sec = seconds, .tv_nsec = rest};
}

static int write_all(int fd, const char *data, int64_t length)
{
    while (length > 0) {
        ssize_t n = write(fd, data, (size_t)length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno;
        if (n == 0)
            return EIO;
        data += n;
        length -= n;
    }
    return 0;
}

/* Owner before mode, because chown takes setuid bits away; times last, because everything else moves them. */
static int apply_metadata(int fd, const struct stat *created, const row_t *meta, int flags)
{
    bool foreign = created->st_uid != meta->uid || created->st_gid != meta->gid;
    if (flags & WRITE_OWNER && foreign && fchown(fd, meta->uid, meta->gid) < 0)
        return errno;
    if (flags & WRITE_MODE && fchmod(fd, meta->mode & 07777) < 0)
        return errno;
    if (flags & WRITE_TIMES) {
        struct timespec times[2] = {timespec_of(meta->atime), timespec_of(meta->mtime)};
        if (futimens(fd, times) < 0)
            return errno;
    }
    return 0;
}

/* Takes a file of ours away again, but not what somebody else has put in its place meanwhile. */
static void remove_created(int directory, const char *name, const struct stat *created)
{
    struct stat now;
    if (fstatat(directory, name, &now, AT_SYMLINK_NOFOLLOW) == 0 && now.st_ino == created->st_ino &&
        now.st_dev == created->st_dev)
        unlinkat(directory, name, 0);
}

static int write_row(int directory, const char *name, const char *data, int64_t length, const row_t *meta, int flags)
{
    int fd;
    do
        fd = openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY, 0600);
    while (fd < 0 && errno == EINTR);
    if (fd < 0)
        return errno;
    struct stat created = {0};
    int error = fstat(fd, &created) < 0 ? errno : write_all(fd, data, length);
    if (!error)
        error = apply_metadata(fd, &created, meta, flags);
    if (close(fd) < 0 && !error && errno != EINTR) /* network file systems report a full disk here */
        error = errno;
    if (error)
        remove_created(directory, name, &created);
    return error;
}

static bool ranges_fit(const any_i64 *start, const any_i64 *length, Py_ssize_t rows, Py_ssize_t size)
{
    for (Py_ssize_t i = 0; i < rows; i++) {
        if (start[i] < 0 || start[i] > size || length[i] < 0 || length[i] > size - start[i]) {
            PyErr_Format(PyExc_ValueError, "row %zd does not lie in the body", i);
            return false;
        }
    }
    return true;
}

/* (root_fd, blob, offsets, body, start i64[n], length i64[n], meta STAT[n], flags, errors i32[n]) */
PyObject *native_write_files(PyObject *self, PyObject *args)
{
    int root, flags;
    Py_buffer blob, offsets, body, start, length, meta, errors;
    paths_t paths;
    if (!PyArg_ParseTuple(args, "iy*y*y*y*y*y*iw*", &root, &blob, &offsets, &body, &start, &length, &meta, &flags,
                          &errors))
        return NULL;
    bool good = paths_of(&paths, &blob, &offsets) && expect_items(&start, paths.rows, 8, "start") &&
                expect_items(&length, paths.rows, 8, "length") &&
                expect_items(&meta, paths.rows, sizeof(row_t), "meta") &&
                expect_items(&errors, paths.rows, 4, "errors") &&
                ranges_fit(start.buf, length.buf, paths.rows, body.len);
    if (good) {
        Py_BEGIN_ALLOW_THREADS
        cursor_t cursor = cursor_at(root);
        for (Py_ssize_t i = 0; i < paths.rows; i++) {
            char name[NAME_ROOM];
            size_t n = (size_t)(paths.offsets[i + 1] - paths.offsets[i]);
            int error = cursor_enter(&cursor, paths.blob + paths.offsets[i], n, name);
            if (!error)
                error = write_row(cursor.fd, name, (const char *)body.buf + ((any_i64 *)start.buf)[i],
                                  ((any_i64 *)length.buf)[i], (const row_t *)meta.buf + i, flags);
            ((any_i32 *)errors.buf)[i] = error;
        }
        cursor_close(&cursor);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&blob);
    PyBuffer_Release(&offsets);
    PyBuffer_Release(&body);
    PyBuffer_Release(&start);
    PyBuffer_Release(&length);
    PyBuffer_Release(&meta);
    PyBuffer_Release(&errors);
    if (!good)
        return NULL;
    Py_RETURN_NONE;
}

/* (root_fd, blob, offsets, errors i32[n]) */
PyObject *native_create_directories(PyObject *self, PyObject *args)
{
    int root;
    Py_buffer blob, offsets, errors;
    paths_t paths;
    if (!PyArg_ParseTuple(args, "iy*y*w*", &root, &blob, &offsets, &errors))
        return NULL;
    bool good = paths_of(&paths, &blob, &offsets) && expect_items(&errors, paths.rows, 4, "errors");
    if (good) {
        Py_BEGIN_ALLOW_THREADS
        cursor_t cursor = cursor_at(root);
        for (Py_ssize_t i = 0; i < paths.rows; i++) {
            char name[NAME_ROOM];
            size_t length = (size_t)(paths.offsets[i + 1] - paths.offsets[i]);
            int error = cursor_enter(&cursor, paths.blob + paths.offsets[i], length, name);
            if (!error && mkdirat(cursor.fd, name, 0700) < 0)
                error = errno;
            ((any_i32 *)errors.buf)[i] = error;
        }
        cursor_close(&cursor);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&blob);
    PyBuffer_Release(&offsets);
    PyBuffer_Release(&errors);
    if (!good)
        return NULL;
    Py_RETURN_NONE;
}
