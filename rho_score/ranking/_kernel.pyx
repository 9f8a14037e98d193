# cython: language_level=3, boundscheck=False, wraparound=False
"""The loops that a selection spends most of its time in, compiled.

`rho_score.ranking.kernel` describes them and does the same with numpy. The first loop has no
branches, so that a compiler can use vector instructions. With AVX2 it takes half the time.
"""

from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t
from libc.string cimport memcpy


cdef extern from *:
    """
    #if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
      /* a second version for AVX2, chosen at load if the processor has it */
      #define RHO_VECTORS __attribute__((target_clones("avx2", "default"))) void
    #else
      #define RHO_VECTORS void
    #endif
    """
    ctypedef void vectors "RHO_VECTORS"


cdef inline int32_t least(int32_t a, int32_t b) noexcept nogil:
    return b + ((a - b) & ((a - b) >> 31))


cdef inline uint16_t half(float value) noexcept nogil:
    """The bits of the nearest float16, ties to even.

    An ordinary number is rounded by adding to its bits before the last thirteen are cut off. A tiny
    number is below 2**-14, where a float16 is a multiple of 2**-24. It is rounded by adding 0.5,
    since a float32 between 0.5 and 1 is a multiple of 2**-24 too. Both are computed, the tiny one
    held at 0x400, the bits of 2**-14. The larger result is then the right one.
    """
    cdef uint32_t bits, magnitude, sum_bits
    cdef float shifted
    cdef int32_t ordinary, tiny, rounded
    memcpy(&bits, &value, 4)
    magnitude = bits & 0x7FFFFFFF
    ordinary = <int32_t>((magnitude + 0xFFF + ((magnitude >> 13) & 1)) >> 13) - (112 << 10)
    memcpy(&shifted, &magnitude, 4)
    shifted = shifted + <float>0.5
    memcpy(&sum_bits, &shifted, 4)
    tiny = least(<int32_t>(sum_bits - 0x3F000000), 0x400)
    rounded = least(tiny - least(tiny - ordinary, 0), 0x7C00)  # the larger, at most infinity
    rounded = rounded | (0x200 & (<int32_t>(0x7F800000 - magnitude) >> 31))  # NaN
    return <uint16_t>(rounded | ((bits >> 16) & 0x8000))


cdef vectors halves(const float *values, const float *minus, uint16_t *out, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    if minus == NULL:
        for i in range(n):
            out[i] = half(values[i])
    else:
        for i in range(n):
            out[i] = half(values[i] - minus[i])


def to_float16(const float[::1] values, const float[::1] minus, uint16_t[::1] out):
    """Sets `out[i]` to the bits of `values[i]`, or of `values[i] - minus[i]`, as a float16."""
    cdef Py_ssize_t n = values.shape[0]
    cdef const float *subtracted = NULL
    if out.shape[0] != n or (minus is not None and minus.shape[0] != n):
        raise ValueError("the arrays have different lengths")
    if n:
        if minus is not None:
            subtracted = &minus[0]
        with nogil:
            halves(&values[0], subtracted, &out[0], n)


ctypedef fused counter:
    uint32_t
    int64_t


def add_counts(
    counter[:, ::1] counters, const uint16_t[::1] bins, const int64_t[::1] starts, const int64_t[::1] lengths,
    const int64_t[::1] rows, const int64_t[::1] held,
):
    """Adds one for each of `bins`, or what its item holds, to its run's row of `counters`."""
    cdef Py_ssize_t run, i, start, stop, n = bins.shape[0], n_runs = lengths.shape[0]
    cdef int64_t row
    if rows.shape[0] != n_runs or starts.shape[0] != n_runs or counters.shape[1] != 65536:
        raise ValueError("the arrays have different lengths")
    if held is not None and held.shape[0] != n:
        raise ValueError("the arrays have different lengths")
    with nogil:
        for run in range(n_runs):
            row, start = rows[run], starts[run]
            stop = start + lengths[run]
            if not (0 <= row < counters.shape[0] and 0 <= start <= stop <= n):
                with gil:
                    raise IndexError("a run ends beyond the last item, or its row is out of range")
            if held is None:
                for i in range(start, stop):
                    counters[row, bins[i]] += 1
            else:
                for i in range(start, stop):
                    counters[row, bins[i]] += <counter>held[i]
