# cython: language_level=3, freethreading_compatible=False
"""The bridge between the C++ core and Python: Bus, its guards, and Message."""

cimport cython
from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS, PyBUF_F_CONTIGUOUS, PyBUF_FORMAT, PyBUF_FULL_RO, PyBUF_ND, PyBUF_READ, PyBUF_SIMPLE,
    PyBUF_STRIDES, PyBUF_WRITABLE,
    PyBuffer_FillInfo, PyBuffer_IsContiguous, PyBuffer_Release, PyBuffer_ToContiguous,
    PyObject_CheckBuffer, PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals, PyErr_Occurred
from cpython.long cimport PyLong_AsLongLongAndOverflow
from cpython.mem cimport PyMem_RawFree
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.math cimport isnan
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy
from libcpp cimport bool as cpp_bool
from libcpp.string cimport string
from libcpp.vector cimport vector
from posix.types cimport uid_t

from tachyon cimport _core as core
from tachyon._core cimport Kind, Side, Status
from tachyon._dlpack cimport (
    DLManagedTensor, DLManagedTensorVersioned, DLTensor, describe, unversioned_capsule, versioned_capsule,
)

import operator
import os
import sys

from tachyon._errors import (
    ArrayError, BusBusyError, BusClosedError, BusEmptyError, BusFullError, CapacityError, HandshakeError,
    MessageTooLargeError, PeerClosedError, PeerDeadError, RpcError, TachyonError, TachyonTimeoutError,
)

cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED
    #define TACHYON_PARALLEL_HOST
    #endif
    #include "tachyon/array.hpp"
    #include "tachyon/host/rpc_handle.hpp"

    static_assert(sizeof(tachyon::Frame) == 32 && offsetof(tachyon::Frame, position) == 8 &&
                  offsetof(tachyon::Frame, correlation_id) == 16 && offsetof(tachyon::Frame, size) == 24 &&
                  offsetof(tachyon::Frame, type_id) == 28, "Frame in _tachyon.pxd mirrors tachyon::Frame");
    """
    const char* TACHYON_VERSION

__version__ = TACHYON_VERSION.decode()
MIN_CAPACITY = core.kMinCapacity
MAX_CAPACITY = core.kMaxCapacity

# Each part knows those before it, and none after it: tests/test_layering.py holds that. What Bus and RpcBus do is in
# functions of their handles, not in methods: _tachyon.pxd shows the methods to everybody.
include "_status.pxi"
include "_arguments.pxi"
include "_message.pxi"
include "_waiting.pxi"
include "_handle.pxi"
include "_arrays.pxi"
include "_guards.pxi"
include "_sending.pxi"
include "_receiving.pxi"
include "_calls.pxi"
include "_array_guard.pxi"
include "_array_ends.pxi"
include "_open.pxi"
include "_bell.pxi"
include "_objects.pxi"
include "_bus.pxi"
include "_rpc.pxi"
include "_ends.pxi"
include "_exchange.pxi"
include "_loops.pxi"
include "_listener.pxi"
include "_wait_set.pxi"
include "_async.pxi"
include "_packing.pxi"
