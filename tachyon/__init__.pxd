# cython: language_level=3
#
# `cimport tachyon` and `from tachyon cimport Bus, RpcBus, Frame, Status`. See docs/cython.md.
from tachyon._tachyon cimport Bus, Frame, RpcBus


# What the nogil methods return. Bus.raise_for_status makes the exception of it. Appended to, never renumbered: these
# are the numbers of tachyon::Status in error.hpp.
cdef enum Status:
    OK = 0
    EMPTY = 1          # no message now
    FULL = 2           # no room now
    INTERRUPTED = 3    # a signal came: let raise_for_status run its handlers, then wait again
    TOO_LARGE = 4      # larger than max_large_size; of a ring that is lent: larger than max_message_size
    WRONG_SIDE = 5     # this side is the consumer and tried to send, or the other way round
    CLAIM_OPEN = 6     # a claim, a held frame or a Python guard is in the way
    NO_CLAIM = 7       # commit, abort or release without one, or of the wrong one
    PEER_CLOSED = 8    # the peer closed on purpose and everything it sent has been read
    PEER_DEAD = 9      # the peer ended without a close, and everything it had committed has been read
    CORRUPT = 10       # the peer wrote something impossible; this bus is of no further use
    CLOSED = 11        # our own handle is closed
    FORKED = 12        # our own handle belongs to the parent of this process
    UNKNOWN_CALL = 13  # no such correlation_id: never issued or served, answered already, cancelled, or dropped
    BUSY = 14          # in use by another thread, or lent
    BAD_TYPE = 15      # a msg_type out of its bounds
    PEER_ABORTED = 16  # the peer gave up on purpose, in the middle; all that it had committed has been read
    NO_MEMORY = 17     # nor a descriptor, for a message larger than the ring; nothing is lost, try again
