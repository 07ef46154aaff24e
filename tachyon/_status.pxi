# Included by _tachyon.pyx: a status of the core, or a failure to set up, as an exception.

# status: the exception, what its `reason` says or None, and its text.
cdef dict _STATUS_ERRORS = {
    <int>Status.empty: (BusEmptyError, None, "no message within the timeout"),
    <int>Status.full: (
        BusFullError, None, "no room for {size} bytes within the timeout; the consumer is slow or stopped",
    ),
    <int>Status.too_large: (
        MessageTooLargeError, None,
        "{message} can never fit: this bus takes at most {most} ({limits}",
    ),
    <int>Status.wrong_side: (
        BusBusyError, None,
        "one side sends and the other receives, as the first send decided; open a second bus for the way back",
    ),
    <int>Status.claim_open: (
        BusBusyError, None,
        "a claim of this bus is open; leave its block, and drop the views of it, before you send",
    ),
    <int>Status.no_claim: (
        BusBusyError, None, "there is no claim, or no frame, to give back; open one first",
    ),
    <int>Status.peer_closed: (PeerClosedError, None, "the peer (pid {pid}) has closed this bus ({path})"),
    <int>Status.peer_dead: (
        PeerDeadError, None, "the peer (pid {pid}) of this bus ({path}) died; open a new one",
    ),
    <int>Status.peer_aborted: (
        PeerDeadError, "aborted",
        "the peer (pid {pid}) of this bus ({path}) gave up in the middle; what it sent is not the whole, "
        "look at its own error",
    ),
    <int>Status.corrupt: (
        PeerDeadError, "corrupt", "the peer (pid {pid}) of this bus ({path}) corrupted the ring; open a new one",
    ),
    <int>Status.closed: (BusClosedError, None, "this bus ({path}) is closed; open a new one"),
    <int>Status.forked: (
        BusClosedError, None, "this bus ({path}) belongs to the parent of this process; open one here",
    ),
    <int>Status.unknown_call: (
        ValueError, None,
        "there is no such call: its id was never issued, it is answered already, was cancelled, or "
        "its reply was dropped because too many others had not been asked for",
    ),
    <int>Status.busy: (
        BusBusyError, None, "this bus is in use by another thread, or lent; a Bus serves one thread at a time",
    ),
    <int>Status.bad_type: (
        ValueError, None, "the msg_type is out of bounds: 0 … 65534 for a call, 0 … 65535 for a reply",
    ),
    <int>Status.no_memory: (
        MemoryError, None,
        "{message} is larger than the ring, and there is no memory of its own for it, or no descriptor ({trouble}); "
        "free some, or raise `ulimit -n`. Nothing is lost: try again",
    ),
}


cdef str path_of(core.BusHandle* handle):
    return os.fsdecode(handle.path())


cdef int raise_status(core.BusHandle* handle, Status status, object size=None) except -1:
    """Raise what a status says; size: of the message, if it is known. INTERRUPTED: what a handler has raised is set."""
    if status == Status.interrupted:
        return -1
    found = _STATUS_ERRORS.get(<int>status)
    if found is None:
        raise TachyonError(f"unexpected status {<int>status}")
    kind, reason, text = found
    error = kind(
        text.format(
            pid=handle.peer_pid(), path=path_of(handle), most=handle.max_large_size(), limits=limits_of(handle),
            size=size, message="the message" if size is None else f"a message of {size} bytes",
            trouble=os.strerror(handle.bus().trouble()) if handle.bus() != NULL else "",
        )
    )
    if reason is not None:
        error.reason = reason
    raise error


cdef str limits_of(core.BusHandle* handle):
    """Where the largest message comes from, and what to do about it."""
    if handle.max_large_size() > most_bytes(handle):
        return (
            f"the smaller max_large of both sides; through its ring {most_bytes(handle)}); "
            "raise max_large on both, up to 4 GiB, or send it in pieces"
        )
    return f"its capacity of {handle.capacity()} less 16); listen with a larger capacity, or allow max_large on both"


cdef uint64_t most_bytes(core.BusHandle* handle) noexcept:
    """The largest message that its ring takes; 0 of a bus that was never opened."""
    return handle.capacity() - 16 if handle.capacity() != 0 else 0
