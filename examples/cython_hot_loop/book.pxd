# cython: language_level=3
"""One tick on the wire, and what is computed from a stream of them. Inlined into both loops."""

cdef enum:
    LEVELS = 1024  # of price, a tick apart
    QUOTE = 1      # type_id: `quantity` is now all that stands at `level`
    TRADE = 2      # type_id: `quantity` changed hands at `level`


cdef struct Tick:
    unsigned long long sequence
    unsigned int level
    unsigned int quantity
    unsigned int side      # of a quote: 0 bid, 1 ask
    unsigned int reserved
    unsigned long long sent_ns


cdef struct Market:  # of the producer
    unsigned long long random
    unsigned int middle


cdef struct Book:  # of the consumer
    unsigned int[2][LEVELS] quantity
    int best_bid           # -1: none
    int best_ask           # LEVELS: none
    unsigned long long ticks
    unsigned long long missed
    unsigned long long traded
    double paid


cdef inline unsigned int next_tick(Market* market, Tick* tick) noexcept nogil:
    """Fill in the next one; returns its type_id. xorshift64: the same ticks from the same seed, in every language."""
    cdef unsigned long long x = market.random
    x ^= x << 13
    x ^= x >> 7
    x ^= x << 17
    market.random = x
    tick.sequence += 1
    if x % 16 == 0 and 300 < market.middle < 700:
        market.middle += 1 if x & 16 else -1
    tick.side = (x >> 8) & 1
    tick.quantity = (x >> 16) % 100
    if (x >> 32) % 4 == 0:
        tick.level = market.middle
        return TRADE
    tick.level = market.middle + 1 + (x >> 40) % 20 if tick.side else market.middle - 1 - (x >> 40) % 20
    return QUOTE


cdef inline void apply(Book* book, unsigned int type_id, const Tick* tick) noexcept nogil:
    book.ticks += 1
    book.missed += tick.sequence != book.ticks
    if tick.level >= LEVELS:
        return
    if type_id == TRADE:
        book.traded += tick.quantity
        book.paid += <double>tick.quantity * tick.level
        return
    book.quantity[tick.side & 1][tick.level] = tick.quantity
    if tick.side == 0:
        if tick.quantity and <int>tick.level > book.best_bid:
            book.best_bid = tick.level
        while book.best_bid >= 0 and book.quantity[0][book.best_bid] == 0:
            book.best_bid -= 1
    else:
        if tick.quantity and <int>tick.level < book.best_ask:
            book.best_ask = tick.level
        while book.best_ask < LEVELS and book.quantity[1][book.best_ask] == 0:
            book.best_ask += 1


cdef inline void clear(Book* book) noexcept nogil:
    cdef int side, level
    for side in range(2):
        for level in range(LEVELS):
            book.quantity[side][level] = 0
    book.best_bid = -1
    book.best_ask = LEVELS
    book.ticks = book.missed = book.traded = 0
    book.paid = 0


cdef inline object summary(Book* book):
    vwap = book.paid / book.traded if book.traded else None
    return {
        "ticks": book.ticks, "missed": book.missed, "vwap": vwap, "bid": book.best_bid, "ask": book.best_ask,
    }
