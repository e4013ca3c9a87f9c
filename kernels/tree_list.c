/* Names of a directory in order. */

#include "native.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BATCH_BYTES 32768 /* of directory entries per system call: about a thousand names */

struct linux_dirent {
    uint64_t ino;
    int64_t offset;
    unsigned short record_length;
    unsigned char type;
    char name[];
};

typedef struct {
    uint64_t prefix; /* first eight bytes as a big-endian number: orders most names without touching them */
    uint64_t ino;
    uint32_t at; /* in the blob of names as found */
    uint16_t length;
    uint8_t type;
} found_t;

typedef struct {
    growing_t blob; /* names as found, without separators */
    growing_t rows; /* found_t */
} names_t;

static void names_free(names_t *names)
{
    free(names->blob.data);
    free(names->rows.data);
}

static uint64_t prefix_of(const char *name, size_t length)
{
    uint64_t word = 0;
    memcpy(&word, name, length < 8 ? length : 8);
    return __builtin_bswap64(word);
}

static int add_name(names_t *names, const struct linux_dirent *entry)
{
    size_t length = strlen(entry->name);
    if (entry->name[0] == '.' && (length == 1 || (length == 2 && entry->name[1] == '.')))
        return 0;
    if (length == 0 || length >= NAME_ROOM || memchr(entry->name, '/', length))
        return EIO; /* a broken or hostile file system */
    if (names->blob.size + length > INT_MAX)
        return EOVERFLOW;
    found_t row = {prefix_of(entry->name, length), entry->ino, (uint32_t)names->blob.size, (uint16_t)length,
                   entry->type};
    char *room = grow(&names->blob, length);
    found_t *slot = grow(&names->rows, sizeof row);
    if (!room || !slot)
        return ENOMEM;
    memcpy(room, entry->name, length);
    *slot = row;
    return 0;
}

static int by_name(const void *left, const void *right, void *blob)
{
    const found_t *a = left, *b = right;
    if (a->prefix != b->prefix)
        return a->prefix < b->prefix ? -1 : 1;
    int order = memcmp((char *)blob + a->at, (char *)blob + b->at, a->length < b->length ? a->length : b->length);
    return order ? order : (int)a->length - (int)b->length;
}

/* All names of the directory, sorted bytewise; 0 or an errno. */
static int read_names(int fd, names_t *names)
{
    char buffer[BATCH_BYTES] __attribute__((aligned(8)));
    if (lseek(fd, 0, SEEK_SET) < 0)
        return errno;
    for (;;) {
        long got = syscall(SYS_getdents64, fd, buffer, sizeof buffer);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return errno;
        if (got == 0)
            break;
        for (long at = 0; at < got;) {
            const struct linux_dirent *entry = (const struct linux_dirent *)(buffer + at);
            int error = add_name(names, entry);
            if (error)
                return error;
            at += entry->record_length;
        }
    }
    size_t count = names->rows.size / sizeof(found_t);
    if (count > 1)
        qsort_r(names->rows.data, count, sizeof(found_t), by_name, names->blob.data);
    return 0;
}

/* (blob, offsets) or (blob, offsets, types) in sorted order. */
static PyObject *names_object(const names_t *names, bool with_types)
{
    const found_t *rows = (const found_t *)names->rows.data;
    Py_ssize_t count = (Py_ssize_t)(names->rows.size / sizeof(found_t));
    PyObject *blob = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)names->blob.size);
    PyObject *offsets = PyByteArray_FromStringAndSize(NULL, (count + 1) * 4);
    PyObject *types = with_types ? PyByteArray_FromStringAndSize(NULL, count) : NULL;
    if (!blob || !offsets || (with_types && !types)) {
        Py_XDECREF(blob);
        Py_XDECREF(offsets);
        Py_XDECREF(types);
        return NULL;
    }
    char *out = PyBytes_AS_STRING(blob);
    any_i32 *ends = (any_i32 *)PyByteArray_AS_STRING(offsets);
    int32_t end = ends[0] = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        memcpy(out + end, names->blob.data + rows[i].at, rows[i].length);
        ends[i + 1] = end += rows[i].length;
        if (types)
            PyByteArray_AS_STRING(types)[i] = (char)rows[i].type;
    }
    return types ? Py_BuildValue("NNN", blob, offsets, types) : Py_BuildValue("NN", blob, offsets);
}

/* (fd) -> (blob, offsets, types) */
PyObject *native_list_directory(PyObject *self, PyObject *args)
{
    int fd, error;
    names_t names = {0};
    if (!PyArg_ParseTuple(args, "i", &fd))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    error = read_names(fd, &names);
    Py_END_ALLOW_THREADS
    PyObject *result = NULL;
    if (error) {
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
    } else {
        result = names_object(&names, true);
    }
    names_free(&names);
    return result;
}

typedef struct {
    uint64_t ino;
    uint32_t row;
} visit_t;

static int by_inode(const void *left, const void *right)
{
    uint64_t a = ((const visit_t *)left)->ino, b = ((const visit_t *)right)->ino;
    return a < b ? -1 : a > b;
}

/* lstat of the first `count` names. Visited by inode number: on a cold disk inode tables are then read once, in
 * order. 0 or an errno. */
static int stat_found(int fd, const names_t *names, size_t count, growing_t *out)
{
    const found_t *found = (const found_t *)names->rows.data;
    row_t *rows = grow(out, count * sizeof(row_t));
    visit_t *visits = malloc(count * sizeof(visit_t) + 1);
    if (!rows || !visits) {
        free(visits);
        return ENOMEM;
    }
    for (size_t i = 0; i < count; i++)
        visits[i] = (visit_t){found[i].ino, (uint32_t)i};
    if (count > 1)
        qsort(visits, count, sizeof(visit_t), by_inode);
    for (size_t i = 0; i < count; i++) {
        const found_t *row = &found[visits[i].row];
        char name[NAME_ROOM];
        memcpy(name, names->blob.data + row->at, row->length);
        name[row->length] = 0;
        row_lstat(&rows[visits[i].row], fd, name);
    }
    free(visits);
    return 0;
}

static int scan(int root, const Py_buffer *path, Py_ssize_t limit, names_t *names, growing_t *stats)
{
    int flags = O_RDONLY | O_DIRECTORY | O_NONBLOCK;
    int fd = open_below(root, path->buf, (size_t)path->len, flags | O_NOATIME, 0);
    if (fd < 0 && errno == EPERM) /* O_NOATIME is for owners */
        fd = open_below(root, path->buf, (size_t)path->len, flags, 0);
    if (fd < 0)
        return errno;
    int error = read_names(fd, names);
    size_t count = names->rows.size / sizeof(found_t);
    if (!error)
        error = stat_found(fd, names, count < (size_t)limit ? count : (size_t)limit, stats);
    close(fd);
    return error;
}

/* (root_fd, path, limit) -> (blob, offsets, stats) */
PyObject *native_scan_directory(PyObject *self, PyObject *args)
{
    int root, error;
    Py_ssize_t limit;
    Py_buffer path;
    if (!PyArg_ParseTuple(args, "iy*n", &root, &path, &limit))
        return NULL;
    PyObject *result = NULL;
    if (limit < 0) {
        PyErr_SetString(PyExc_ValueError, "limit must not be negative");
    } else {
        names_t names = {0};
        growing_t stats = {0};
        Py_BEGIN_ALLOW_THREADS
        error = scan(root, &path, limit, &names, &stats);
        Py_END_ALLOW_THREADS
        if (error) {
            raise_errno(error, path.buf, path.len);
        } else {
            PyObject *pair = names_object(&names, false);
            PyObject *rows = bytearray_of(&stats);
            if (pair && rows)
                result = Py_BuildValue("OOO", PyTuple_GET_ITEM(pair, 0), PyTuple_GET_ITEM(pair, 1), rows);
            Py_XDECREF(pair);
            Py_XDECREF(rows);
        }
        names_free(&names);
        free(stats.data);
    }
    PyBuffer_Release(&path);
    return result;
}
