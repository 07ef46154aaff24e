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
            outcome = {static_cast<int>(error.failure()), error.error_number(), error.what()};
        } catch (const std::exception& error) {
            outcome.what = error.what();
        }
        return nullptr;
    }

    static tachyon::Established* tachyon_listen(SetupOutcome& outcome, const std::string& path,
                                                const tachyon::ListenOptions& options,
                                                const tachyon::Interrupt& interrupt) {
        return tachyon_set_up(
            outcome, [&] { return new tachyon::Established(tachyon::listen(path, options, interrupt)); });
    }
    static tachyon::Established* tachyon_connect(SetupOutcome& outcome, const std::string& path,
                                                 const tachyon::ConnectOptions& options,
                                                 const tachyon::Interrupt& interrupt) {
        return tachyon_set_up(
            outcome, [&] { return new tachyon::Established(tachyon::connect(path, options, interrupt)); });
    }
    // These two take `established` over.
    static tachyon::BusHandle* tachyon_adopt(SetupOutcome& outcome, tachyon::Established* established,
                                             const std::string& path, tachyon::Side producer) {
        const std::unique_ptr<tachyon::Established> owned(established);
        return tachyon_set_up(
            outcome, [&] { return new tachyon::BusHandle(tachyon::Bus::adopt(std::move(*owned), producer), path); });
    }
    static tachyon::RpcHandle* tachyon_adopt_rpc(SetupOutcome& outcome, tachyon::Established* established,
                                                 const std::string& path, bool calls) {
        using Role = tachyon::RpcHandle::Role;
        const std::unique_ptr<tachyon::Established> owned(established);
        return tachyon_set_up(outcome, [&] {
            return new tachyon::RpcHandle(tachyon::adopt_rpc(std::move(*owned)), path,
                                          calls ? Role::caller : Role::callee);
        });
    }
    """
    cdef cppclass SetupOutcome:
        int failure
        int error_number
        string what
    core.Established* tachyon_listen(SetupOutcome& outcome, const string& path, const core.ListenOptions& options,
                                     const core.Interrupt& interrupt) noexcept nogil
    core.Established* tachyon_connect(SetupOutcome& outcome, const string& path, const core.ConnectOptions& options,
                                      const core.Interrupt& interrupt) noexcept nogil
    core.BusHandle* tachyon_adopt(
        SetupOutcome& outcome, core.Established* established, const string& path, Side producer
    ) noexcept
    core.RpcHandle* tachyon_adopt_rpc(
        SetupOutcome& outcome, core.Established* established, const string& path, cpp_bool calls
    ) noexcept


# ---- options ---------------------------------------------------------------------------------------------------------


class _Mode(int):
    """The mode of a file, which help() shows as one writes it."""

    def __repr__(self):
        return oct(self)


_OWNER_ONLY = _Mode(0o600)


# capacities: of an RpcBus, those of calls and of replies.
cdef core.ListenOptions listen_options(
    Kind kind, tuple capacities, object timeout, object mode, object max_large
) except *:
    cdef core.ListenOptions options
    options.kind = kind
    for capacity in capacities:
        options.capacities.push_back(as_capacity(capacity))
    options.deadline = deadline_after(timeout)
    options.mode = as_mode(mode)
    options.max_large = as_max_large(max_large)
    return options


cdef core.ConnectOptions connect_options(
    Kind kind, object timeout, object uid, object max_capacity, object max_large
) except *:
    cdef core.ConnectOptions options
    options.kind = kind
    options.deadline = 0 if timeout is not None and timeout == 0 else deadline_after(timeout)
    cdef long user = as_user(uid)
    if user >= 0:
        options.uid = <uid_t>user
    options.max_capacity = as_max_capacity(max_capacity)
    options.max_large = as_max_large(max_large)
    return options


# ---- what comes of it ------------------------------------------------------------------------------------------------


# What listen, connect or accept raise, given what came out of the core.
cdef int raise_setup_failure(SetupOutcome* outcome, object path) except -1:
    if outcome.failure == <int>core.SetupFailure.interrupted:
        if not PyErr_Occurred():
            raise BusClosedError("it was given up")
        return -1  # what the signal's handler has raised is set
    text = outcome.what.decode("utf-8", "replace")
    if outcome.failure < 0:
        raise TachyonError(text)
    if outcome.failure == <int>core.SetupFailure.capacity:
        raise CapacityError(text)
    if outcome.failure == <int>core.SetupFailure.memory:
        raise MemoryError(text)
    if outcome.failure == <int>core.SetupFailure.timed_out:
        raise TachyonTimeoutError(text)
    raise HandshakeError(text, outcome.error_number or None, path)


cdef core.Established* listen_at(object path, const core.ListenOptions& options) except NULL:
    cdef string where = as_path(path)
    cdef SetupOutcome outcome
    cdef core.Interrupt interrupt = interrupted_by_signals(NULL)
    cdef core.Established* established
    with nogil:
        established = tachyon_listen(outcome, where, options, interrupt)
    if established == NULL:
        raise_setup_failure(&outcome, path)
    return established


cdef core.Established* connect_to(object path, const core.ConnectOptions& options) except NULL:
    cdef string where = as_path(path)
    cdef SetupOutcome outcome
    cdef core.Interrupt interrupt = interrupted_by_signals(NULL)
    cdef core.Established* established
    with nogil:
        established = tachyon_connect(outcome, where, options, interrupt)
    if established == NULL:
        raise_setup_failure(&outcome, path)
    return established


# Takes `established` over, whatever happens. `producer`: who sends; undecided: whoever does so first.
cdef core.BusHandle* new_handle(core.Established* established, object path, Side producer) except NULL:
    cdef SetupOutcome outcome
    cdef core.BusHandle* handle = tachyon_adopt(outcome, established, as_path(path), producer)
    if handle == NULL:
        raise_setup_failure(&outcome, path)
    return handle


cdef core.RpcHandle* new_rpc_handle(core.Established* established, object path, bint calls) except NULL:
    cdef SetupOutcome outcome
    cdef core.RpcHandle* handle = tachyon_adopt_rpc(outcome, established, as_path(path), calls)
    if handle == NULL:
        raise_setup_failure(&outcome, path)
    return handle
