/* Shared by the C files of kernels._native. Arguments come from Python as buffers and are hostile until checked. */

#ifndef LOX_NATIVE_H
#define LOX_NATIVE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#ifndef __linux__
#error "the compiled kernels are written for Linux; the reference variant runs elsewhere"
#endif
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the compiled kernels expect a little-endian machine; the reference variant runs elsewhere"
#endif

/* Columns may start at any address, so their items are read through types without alignment. */
typedef int32_t __attribute__((aligned(1), may_alias)) any_i32;
typedef uint32_t __attribute__((aligned(1), may_alias)) any_u32;
typedef uint16_t __attribute__((aligned(1), may_alias)) any_u16;
typedef int64_t __attribute__((aligned(1), may_alias)) any_i64;
typedef uint64_t __attribute__((aligned(1), may_alias)) any_u64;

/* A column of byte strings: row i is blob[offsets[i] .. offsets[i + 1]). */
typedef struct {
    const char *blob;
    const any_i32 *offsets;
    Py_ssize_t rows;
} paths_t;

/* One row of model.entries.STAT. */
typedef struct {
    uint32_t mode, uid, gid, nlink;
    int64_t size, mtime, ctime, atime;
    uint64_t ino, dev, rdev;
    int64_t blocks;
    int32_t error;
    uint32_t flags;
} __attribute__((packed, may_alias)) row_t;
_Static_assert(sizeof(row_t) == 88, "STAT has 88 bytes");

#define READ_HAS_XATTRS (1u << 31)
#define READ_CHANGED (1u << 30)
#define READ_NOT_REGULAR (1u << 29)

/* The directory below `root` that holds consecutive rows, and some of those above it: what comes next is near. */
#define CURSOR_LEVELS 8 /* descriptors a call may hold: there are as many calls at once as lanes */
typedef struct {
    int root;
    int fd; /* of the directory path[0 .. length), or -1; the last level's or `root` itself */
    int error;
    const char *path;
    size_t length;
    bool entered;
    int depth;
    const char *opened; /* what the levels are of */
    struct {
        int fd;
        size_t length; /* it is path[0 .. length) */
    } levels[CURSOR_LEVELS];
} cursor_t;

/* Bytes that grow; `failed` after memory ran out, when nothing more is added. */
typedef struct {
    char *data;
    size_t size, capacity;
    bool failed;
} growing_t;

/* module.c */
bool paths_of(paths_t *paths, const Py_buffer *blob, const Py_buffer *offsets);
bool expect_items(const Py_buffer *buffer, Py_ssize_t items, Py_ssize_t item_size, const char *what);
bool ranges_within(const any_i64 *start, const any_u32 *length, Py_ssize_t rows, Py_ssize_t size);
void *grow(growing_t *bytes, size_t more);
PyObject *bytearray_of(growing_t *bytes);
PyObject *raise_errno(int error, const char *path, Py_ssize_t length);

/* tree_open.c */
#define NAME_ROOM 256
int open_below(int root, const char *path, size_t length, int flags, mode_t mode);
size_t parent_length(const char *path, size_t length);
int copy_name(char name[NAME_ROOM], const char *bytes, size_t length);
cursor_t cursor_at(int root);
int cursor_enter(cursor_t *cursor, const char *path, size_t length, char name[NAME_ROOM]);
void cursor_close(cursor_t *cursor);
PyObject *native_open_beneath(PyObject *self, PyObject *args);

/* tree_stat.c */
void row_from_stat(row_t *row, const struct stat *st);
void row_lstat(row_t *row, int directory, const char *name);
PyObject *native_stat_names(PyObject *self, PyObject *args);
PyObject *native_stat_paths(PyObject *self, PyObject *args);

/* tree_list.c */
PyObject *native_list_directory(PyObject *self, PyObject *args);
PyObject *native_scan_directory(PyObject *self, PyObject *args);

/* tree_look.c */
uint32_t attributes_of(int fd);
PyObject *native_look_at(PyObject *self, PyObject *args);

/* tree_read.c, tree_write.c, tree_join.c */
PyObject *native_read_files(PyObject *self, PyObject *args);
PyObject *native_write_files(PyObject *self, PyObject *args);
PyObject *native_create_directories(PyObject *self, PyObject *args);
PyObject *native_join_sorted(PyObject *self, PyObject *args);

/* hash_pairs.c */
bool can_hash_pairs(void);
void hash_pairs(const uint8_t *pads, const uint8_t *body, const any_i64 *start, const any_u32 *length, size_t count,
                uint8_t *ids);

/* buffers.c, ids.c, hash.c, chunk.c */
PyObject *native_gather(PyObject *self, PyObject *args);
PyObject *native_same_bytes(PyObject *self, PyObject *args);
PyObject *native_find_ids(PyObject *self, PyObject *args);
PyObject *native_find_guided(PyObject *self, PyObject *args);
PyObject *native_can_hash(PyObject *self, PyObject *args);
PyObject *native_hash_chunks(PyObject *self, PyObject *args);
PyObject *native_candidates(PyObject *self, PyObject *args);
PyObject *native_select(PyObject *self, PyObject *args);
PyObject *native_cut_files(PyObject *self, PyObject *args);

#endif
