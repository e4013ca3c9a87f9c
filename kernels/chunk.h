/* Content-defined chunking: what the scanners and the selection share. kernels/chunk.py is the specification. */

#ifndef LOX_CHUNK_H
#define LOX_CHUNK_H

#include <stddef.h>
#include <stdint.h>

#define WINDOW 64 /* bytes a gear value depends on */
#define SPAN_MAX (64 << 10) /* positions one call of a scanner looks at */

typedef struct {
    uint64_t table[256];
    uint64_t loose, strict; /* the largest value of a loose and of a strict candidate */
} gear_t;

/* Finds the loose candidates among positions lo..hi-1 of data (position p: the window ends before byte p) and writes
 * (p - lo) * 2 + (1 if strict) of each in order to out, which has room for hi - lo; how many. No byte before `begin`
 * or from hi - 1 on is looked at. Needs begin < lo <= hi <= lo + SPAN_MAX. */
size_t scan_gear(const uint8_t *data, size_t begin, size_t lo, size_t hi, const gear_t *gear, uint32_t *out);

#endif
