# cython: language_level=3
# The DLPack exchange protocol (version 1.0 and the older unversioned form), for tensors on the CPU.
# Structures as published at https://dmlc.github.io/dlpack/latest/c_api.html.
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid, PyCapsule_New
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef struct DLTensor:
    void* data
    int32_t device_type
    int32_t device_id
    int32_t ndim
    uint8_t code
    uint8_t bits
    uint16_t lanes
    int64_t* shape
    int64_t* strides
    uint64_t byte_offset

cdef struct DLManagedTensor:
    DLTensor tensor
    void* context
    void (*deleter)(DLManagedTensor*) noexcept

cdef struct DLManagedTensorVersioned:
    uint32_t major
    uint32_t minor
    void* context
    void (*deleter)(DLManagedTensorVersioned*) noexcept
    uint64_t flags
    DLTensor tensor

# One allocation: whichever form is asked for, and the shape and strides it points to.
cdef struct Versioned:
    DLManagedTensorVersioned managed
    int64_t numbers[16]

cdef struct Unversioned:
    DLManagedTensor managed
    int64_t numbers[16]


# A tensor on the CPU, of bytes until its owner says more. `shape` and `strides` are copied when a capsule is made.
cdef inline void describe(DLTensor* tensor, void* data, int ndim, int64_t* shape, int64_t* strides) noexcept:
    tensor.data = data
    tensor.device_type = 1  # kDLCPU
    tensor.device_id = 0
    tensor.ndim = ndim
    tensor.code = 1  # kDLUInt
    tensor.bits = 8
    tensor.lanes = 1
    tensor.shape = shape
    tensor.strides = strides
    tensor.byte_offset = 0


cdef inline void copy_tensor(DLTensor* to, const DLTensor* tensor, int64_t* numbers) noexcept:
    cdef int i
    to[0] = tensor[0]
    to.shape = numbers
    to.strides = numbers + 8
    for i in range(tensor.ndim):  # at most 8
        to.shape[i] = tensor.shape[i]
        to.strides[i] = tensor.strides[i]


cdef inline void destroy_versioned(object capsule) noexcept:
    # A consumer that has taken the tensor renames the capsule and calls the deleter itself.
    if PyCapsule_IsValid(capsule, "dltensor_versioned"):
        managed = <DLManagedTensorVersioned*>PyCapsule_GetPointer(capsule, "dltensor_versioned")
        managed.deleter(managed)


cdef inline void destroy_unversioned(object capsule) noexcept:
    if PyCapsule_IsValid(capsule, "dltensor"):
        managed = <DLManagedTensor*>PyCapsule_GetPointer(capsule, "dltensor")
        managed.deleter(managed)


# `context` is handed to the deleter, which has to free the tensor with PyMem_RawFree.
cdef inline object versioned_capsule(
    const DLTensor* tensor, bint readonly, void* context, void (*deleter)(DLManagedTensorVersioned*) noexcept
):
    cdef Versioned* made = <Versioned*>PyMem_RawMalloc(sizeof(Versioned))
    if made == NULL:
        raise MemoryError
    made.managed.major = 1
    made.managed.minor = 0
    made.managed.context = context
    made.managed.deleter = deleter
    made.managed.flags = 1 if readonly else 0
    copy_tensor(&made.managed.tensor, tensor, made.numbers)
    try:
        return PyCapsule_New(made, "dltensor_versioned", <void (*)(object) noexcept>destroy_versioned)
    except BaseException:
        PyMem_RawFree(made)
        raise


cdef inline object unversioned_capsule(
    const DLTensor* tensor, void* context, void (*deleter)(DLManagedTensor*) noexcept
):
    cdef Unversioned* made = <Unversioned*>PyMem_RawMalloc(sizeof(Unversioned))
    if made == NULL:
        raise MemoryError
    made.managed.context = context
    made.managed.deleter = deleter
    copy_tensor(&made.managed.tensor, tensor, made.numbers)
    try:
        return PyCapsule_New(made, "dltensor", <void (*)(object) noexcept>destroy_unversioned)
    except BaseException:
        PyMem_RawFree(made)
        raise
