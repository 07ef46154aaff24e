# Included by _tachyon.pyx: the frame of a loop that serves, RpcDispatcher's and RpcServer's, and how Ctrl-C ends it.
#
# What Ctrl-C must not split is here: no signal handler runs between two steps of compiled code that asks for none.

import _signal  # signal's functions are Python code, where a Ctrl-C could come between two steps


cdef class _Loop:
    """A loop that the first Ctrl-C asks to end, once the call that is being served has been answered.

    In the main thread, and as long as nobody else handles SIGINT; the second one raises KeyboardInterrupt as ever.
    """

    cdef public bint _stopping
    cdef bint _interrupted

    def _on_interrupt(self, signum, frame):
        if self._interrupted:
            _signal.default_int_handler(signum, frame)
        self._interrupted = True
        self._stopping = True

    cdef object _take_interrupts(self):
        """Returns the handler that is to be given back, or None."""
        if _signal.getsignal(_signal.SIGINT) is not _signal.default_int_handler:
            return None
        self._interrupted = False
        handler = self._on_interrupt
        try:
            _signal.signal(_signal.SIGINT, handler)
        except ValueError:  # not the main thread
            return None
        return handler

    cdef int _give_interrupts_back(self, object handler) except -1:
        while True:
            try:
                if handler is not None and _signal.getsignal(_signal.SIGINT) is handler:
                    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
                PyErr_CheckSignals()  # one that came while the loop was ending belongs to it
                return 0
            except KeyboardInterrupt:
                pass

    def stop(self):
        """End serve_forever within 0.1 s, or the next one at once. From any thread, a handler, or a signal handler.

        Whoever is connected stays so: serve_forever() may be called again.
        """
        self._stopping = True


cdef class _Dispatching(_Loop):
    """What RpcDispatcher is made of: the frame of its loop."""

    def serve_forever(self, RpcBus bus not None):
        """Serve until the caller closes or dies, stop() is called, or Ctrl-C.

        Failures of handlers are logged, with traceback, and the loop goes on. A handler's SystemExit ends it, once its
        caller has been answered, and is raised. The first Ctrl-C lets the call that is being served be answered; the
        second interrupts its handler.
        """
        handler = None
        try:
            handler = self._take_interrupts()
            self._serve_until_stopped(bus)
        except KeyboardInterrupt:
            pass
        finally:
            self._stopping = False  # not at the start: a stop() that came a moment too early would be lost
            self._give_interrupts_back(handler)


cdef class _Serving(_Loop):
    """What RpcServer is made of: who is inside, and who closes."""

    cdef bint _busy
    cdef public bint _closing
    cdef public set _callers
    cdef public object dispatcher
    cdef public object _waiting
    cdef public Py_ssize_t _served

    def serve_forever(self):
        """Serve until stop(), close() or Ctrl-C.

        Failures of handlers are logged, with traceback, and their callers get an error reply. A handler's SystemExit
        is raised once its caller has been answered. The first Ctrl-C lets the call that is being served be answered;
        the second interrupts its handler. Raises BusBusyError when another thread serves already, BusClosedError after
        close().
        """
        if self._busy:
            raise BusBusyError("this RpcServer is served by another thread already")
        handler = None
        self._busy = True
        try:
            handler = self._take_interrupts()
            self._serve_until_stopped()
        except KeyboardInterrupt:
            pass
        finally:
            self._stopping = False
            self._busy = False
            while self._closing:  # looked at last: close() may have left it to us until just now
                try:
                    self.close()
                    break
                except KeyboardInterrupt:
                    pass
            self._give_interrupts_back(handler)

    # Serves one call of `bus` whole, without a step at which Ctrl-C could come between; what is unusual is left over.
    def _answer(self, RpcBus bus not None):
        cdef object left = answer_one(bus, self.dispatcher._endpoints, 0, False)
        self._served += 1
        return left

    def _drop(self, RpcBus bus not None):
        self._waiting.remove(bus)
        self._callers.discard(bus)
        bus.close()

    def close(self):
        """Stop, close every caller's bus and the socket. Idempotent; from any thread.

        While another thread serves, that one does it, within 0.1 s.
        """
        self._closing = True
        self._stopping = True
        if self._busy:
            return
        self._busy = True
        try:
            self._close()
        finally:
            self._busy = False

    def __exit__(self, exc_type, exc, traceback):
        if end_of_block(exc) == core.End.aborted and not self._busy:
            for bus in list(self._callers):
                bus.abort()
        self.close()
