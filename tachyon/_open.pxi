# Included by _tachyon.pyx: what listen and connect are given, and what comes of them. Listeners too.

cdef extern from *:
    """
    // Catches what is ours and std's, never (...): at interpreter exit taking the GIL ends this thread by a forced
    // unwinding, which must not be swallowed.
    struct SetupOutcome { int failure = -1; int error_number = 0; std::string what; };
    template <class Call>
    static auto tachyon_set_up(SetupOutcome& outcome, Call call) -> decltype(call()) {
        try {
            return tachyon::set_up(call);
        } catch (const tachyon::SetupError& error) {
            outcome.failure = static_cast<int>(error.failure());
            outcome.error_number = error.error_number();
            outcome.what = error.what();
        } catch (const std::exception& error) {
            outcome.what = error.what();
        }
        return nullptr;
    }

    static tachyon::Bus* tachyon_listen(SetupOutcome& outcome, const std::string& path,
                                        const tachyon::ListenOptions& options, const tachyon::Interrupt& interrupt) {
        return tachyon_set_up(outcome, [&] { return tachyon::Bus::listen(path, options, interrupt).release(); });
    }
    static tachyon::Bus* tachyon_connect(SetupOutcome& outcome, const std::string& path,
                                         const tachyon::ConnectOptions& options, const tachyon::Interrupt& interrupt) {
        return tachyon_set_up(outcome, [&] { return tachyon::Bus::connect(path, options, interrupt).release(); });
    }
    static tachyon::RpcRings* tachyon_listen_rpc(SetupOutcome& outcome, const std::string& path,
                                                 const tachyon::ListenOptions& options,
                                                 const tachyon::Interrupt& interrupt) {
        return tachyon_set_up(
            outcome, [&] { return new tachyon::RpcRings(tachyon::listen_rpc(path, options, interrupt)); });
    }
    static tachyon::RpcRings* tachyon_connect_rpc(SetupOutcome& outcome, const std::string& path,
                                                  const tachyon::ConnectOptions& options,
                                                  const tachyon::Interrupt& interrupt) {
        return tachyon_set_up(
            outcome, [&] { return new tachyon::RpcRings(tachyon::connect_rpc(path, options, interrupt)); });
    }
    """
    cdef cppclass SetupOutcome:
        int failure
        int error_number
        string what
    core.Bus* tachyon_listen(SetupOutcome& outcome, const string& path, const core.ListenOptions& options,
                             const core.Interrupt& interrupt) noexcept nogil
    core.Bus* tachyon_connect(SetupOutcome& outcome, const string& path, const core.ConnectOptions& options,
                              const core.Interrupt& interrupt) noexcept nogil
    core.RpcRings* tachyon_listen_rpc(SetupOutcome& outcome, const string& path, const core.ListenOptions& options,
                                      const core.Interrupt& interrupt) noexcept nogil
    core.RpcRings* tachyon_connect_rpc(SetupOutcome& outcome, const string& path, const core.ConnectOptions& options,
                                       const core.Interrupt& interrupt) noexcept nogil
    int Py_IsInitialized() noexcept nogil


# ---- options ---------------------------------------------------------------------------------------------------------


class _Mode(int):
    """The mode of a file, which help() shows as one writes it."""

    def __repr__(self):
        return oct(self)


_OWNER_ONLY = _Mode(0o600)


# `reverse`: for the replies of an RpcBus only.
cdef core.ListenOptions listen_options(
    Kind kind, object capacity, object reverse, object timeout, object mode
) except *:
    cdef core.ListenOptions options
    options.kind = kind
    options.capacities.push_back(as_capacity(capacity))
    if kind == Kind.rpc:
        options.capacities.push_back(as_capacity(reverse))
    options.deadline = deadline_after(timeout)
    options.mode = as_mode(mode)
    return options


cdef core.ConnectOptions connect_options(object timeout, object uid, object max_capacity) except *:
    cdef core.ConnectOptions options
    options.deadline = 0 if timeout is not None and timeout == 0 else deadline_after(timeout)
    cdef long user = as_user(uid)
    if user >= 0:
        options.uid = <uid_t>user
    options.max_capacity = as_max_capacity(max_capacity)
    return options


# ---- signals ---------------------------------------------------------------------------------------------------------


# What a handler raises is put into `raised`, which has to live as long.
cdef core.Interrupt interrupted_by_signals(list raised) noexcept:
    cdef core.Interrupt interrupt
    interrupt.asked = signal_raised
    interrupt.context = <void*>raised
    return interrupt


# Not once the interpreter has begun to end: a daemon thread that asked for the GIL too late would find nothing there.
cdef cpp_bool signal_raised(void* context) noexcept nogil:
    return Py_IsInitialized() and signal_raised_with_gil(context)


cdef cpp_bool signal_raised_with_gil(void* context) noexcept with gil:
    # The handler's exception is kept in the list that `context` points to, because this runs inside a nogil call.
    try:
        PyErr_CheckSignals()
    except BaseException as error:
        (<list><object>context).append(error)
        return True
    return False


# ---- what comes of it ------------------------------------------------------------------------------------------------


cdef object setup_failed(SetupOutcome* outcome, object path, list raised):
    """What listen or connect raise, given what came out of the core."""
    text = outcome.what.decode("utf-8", "replace")
    if outcome.failure < 0:
        return TachyonError(text)
    if outcome.failure == <int>core.SetupFailure.capacity:
        return CapacityError(text)
    if outcome.failure == <int>core.SetupFailure.memory:
        return MemoryError(text)
    if outcome.failure == <int>core.SetupFailure.timed_out:
        return TachyonTimeoutError(text)
    if outcome.failure == <int>core.SetupFailure.interrupted:
        return raised[0]
    return HandshakeError(text, outcome.error_number or None, path)


# Takes `opened` over, whatever happens.
cdef Bus new_bus(core.Bus* opened, object path):
    cdef Bus bus
    try:
        bus = Bus.__new__(Bus)
    except BaseException:  # no memory
        del opened
        raise
    bus._core = opened
    bus._path = path
    bus._capacity = opened.capacity()
    bus._peer_pid = opened.peer_pid()
    return bus
