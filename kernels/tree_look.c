/* What entries have beside their lstat: link targets, inode flags, and whether there are extended attributes. */

#include "native.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/xattr.h>
#include <unistd.h>

/* What chattr(1) may set on any file; the others (extents, index, ...) describe how a file system stores it. */
#define SETTABLE_FLAGS 0x000380FFu
#define TARGET_ROOM 4096 /* bytes a link can hold, and one for telling that it does not hold more */

/* For the number of bytes of all names that listxattr gave, or its failure. */
static uint32_t xattrs_flag(ssize_t listed)
{
    bool none = listed == 0 || (listed < 0 && (errno == ENOTSUP || errno == ENODATA || errno == ENOSYS));
    return none ? 0 : READ_HAS_XATTRS;
}

uint32_t attributes_of(int fd)
{
    int flags = 0;
    uint32_t found = 0;
    if (ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0)
        found = (uint32_t)flags & SETTABLE_FLAGS;
    return found | xattrs_flag(flistxattr(fd, NULL, 0));
}

static uint32_t look_at_directory(int parent, const char *name)
{
    int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
    int fd = openat(parent, name, flags | O_NOATIME);
    if (fd < 0 && errno == EPERM) /* O_NOATIME is for owners */
        fd = openat(parent, name, flags);
    if (fd < 0)
        return READ_HAS_XATTRS;
    uint32_t found = attributes_of(fd);
    close(fd);
    return found;
}

/* The target is added to `targets`; whether that was possible. */
static bool add_target(int parent, const char *name, growing_t *targets)
{
    char target[TARGET_ROOM];
    ssize_t length = readlinkat(parent, name, target, sizeof target);
    if (length <= 0 || length == sizeof target)
        return false;
    char *room = grow(targets, (size_t)length);
    if (room)
        memcpy(room, target, (size_t)length);
    return true;
}

static uint32_t look_at(int parent, const char *name, uint32_t mode, growing_t *targets)
{
    if (S_ISDIR(mode))
        return look_at_directory(parent, name);
    if (S_ISLNK(mode) && !add_target(parent, name, targets))
        return READ_HAS_XATTRS;
    char path[NAME_ROOM + 40]; /* it may not be possible to open what is no directory, or it may act */
    snprintf(path, sizeof path, "/proc/self/fd/%d/%s", parent, name);
    return xattrs_flag(llistxattr(path, NULL, 0));
}

/* (root_fd, blob, offsets, modes u32[n], flags u32[n], ends i32[n + 1]) -> targets */
PyObject *native_look_at(PyObject *self, PyObject *args)
{
    int root;
    Py_buffer blob, offsets, modes, flags, ends;
    paths_t paths;
    growing_t targets = {0};
    PyObject *result = NULL;
    if (!PyArg_ParseTuple(args, "iy*y*y*w*w*", &root, &blob, &offsets, &modes, &flags, &ends))
        return NULL;
    bool good = paths_of(&paths, &blob, &offsets) && expect_items(&modes, paths.rows, 4, "modes") &&
                expect_items(&flags, paths.rows, 4, "flags") && expect_items(&ends, paths.rows + 1, 4, "ends");
    if (good && paths.rows > INT32_MAX / TARGET_ROOM) {
        PyErr_SetString(PyExc_ValueError, "too many rows for one call");
        good = false;
    }
    if (good) {
        const any_u32 *mode = modes.buf;
        any_u32 *found = flags.buf;
        any_i32 *end = ends.buf;
        Py_BEGIN_ALLOW_THREADS
        cursor_t cursor = cursor_at(root);
        end[0] = 0;
        for (Py_ssize_t i = 0; i < paths.rows; i++) {
            char name[NAME_ROOM];
            size_t length = (size_t)(paths.offsets[i + 1] - paths.offsets[i]);
            int error = cursor_enter(&cursor, paths.blob + paths.offsets[i], length, name);
            found[i] = error ? READ_HAS_XATTRS : look_at(cursor.fd, name, mode[i], &targets);
            end[i + 1] = (int32_t)targets.size;
        }
        cursor_close(&cursor);
        Py_END_ALLOW_THREADS
        result = targets.failed ? PyErr_NoMemory() : PyBytes_FromStringAndSize(targets.data, (Py_ssize_t)targets.size);
    }
    free(targets.data);
    PyBuffer_Release(&blob);
    PyBuffer_Release(&offsets);
    PyBuffer_Release(&modes);
    PyBuffer_Release(&flags);
    PyBuffer_Release(&ends);
    return result;
}
