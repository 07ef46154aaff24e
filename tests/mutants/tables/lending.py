"""A ring lent to other modules, and what those and packages are made of."""

from table import Mutant as M

MANIFEST = "MANIFEST.in"
ERROR = "cxx/include/tachyon/error.hpp"
GATE = "cxx/include/tachyon/host/gate.hpp"
RING = "cxx/include/tachyon/ring/ring.hpp"
BUS = "cxx/src/bus.cpp"
BUS_HANDLE = "cxx/src/host/bus_handle.cpp"
PYPROJECT = "pyproject.toml"
SETUP = "setup.py"
ARGUMENTS = "tachyon/_arguments.pxi"
BUS_PXI = "tachyon/_bus.pxi"
HANDLE = "tachyon/_handle.pxi"
TACHYON_PXD = "tachyon/_tachyon.pxd"

TABLE = {
"a ring that is lent": [
    M("a module of other headers gets the ring", HANDLE,
      "if layout != core.ring_layout():", "if False:",
      "test_libtachyon.py::test_another_layout_of_the_ring_is_refused[True] "
      "test_libtachyon.py::test_another_layout_of_the_ring_is_refused[False]"),
    M("what is refused is lent", BUS_HANDLE,
      "if (const Status status = lend(); status != Status::ok) {",
      "if (const Status status = lend(); status == Status::forked) {",
      "test_libtachyon.py::test_borrowing_the_producer_decides_the_direction "
      "test_libtachyon.py::test_a_producer_is_not_lent_once_the_peer_has_closed"),
    M("it does not look lent", BUS_HANDLE,
      "gate_.lend(user);", "(void)user;", "test_libtachyon.py::test_a_lent_bus_is_of_no_other_use"),
    M("borrowing decides nothing", BUS + "::lend_producer",
      "const Status status = begin_send(0);", "const Status status = Status::ok;",
      "test_libtachyon.py::test_borrowing_the_producer_decides_the_direction"),
    M("the producer's side may be a consumer", BUS + "::lend_consumer",
      "if (const Status status = begin_receive(); status != Status::ok && status != Status::empty) return status;",
      "(void)begin_receive();", "test_libtachyon.py::test_borrowing_the_producer_decides_the_direction"),
    M("what is open stays open", BUS_HANDLE,
      "bus_->take_back();", "", "test_libtachyon.py::test_what_was_open_is_put_right_when_the_ring_is_given_back"),
    M("a claim stays open", BUS,
      "if (producer_.claim_open()) producer_.abort();", "",
      "test_libtachyon.py::test_what_was_open_is_put_right_when_the_ring_is_given_back"),
    M("who has it does not hear of a close", BUS_HANDLE,
      "return gate_.must_close() ? Status::closed : bus_->check();", "return bus_->check();",
      "test_libtachyon.py::test_closing_a_lent_bus_leaves_the_ring_to_who_has_it"),
    M("any thread may wait for it", GATE,
      "return is_lent() && lent_to_.load(std::memory_order_relaxed) == this_thread();", "return is_lent();",
      "test_libtachyon.py::test_only_the_thread_that_has_a_lent_ring_may_wait_for_it"),
],
"the number of the ring's layout": [
    M("it has no memory", RING,
      "offsetof(RingMemory, header), offsetof(RingMemory, data),", "",
      "test_libtachyon.py::test_headers_with_another_meaning_have_another_layout[the memory]"),
    M("it has no frame", RING,
      "offsetof(Frame, correlation_id), offsetof(Frame, size), offsetof(Frame, type_id)}",
      "offsetof(Frame, correlation_id)}",
      "test_libtachyon.py::test_headers_with_another_meaning_have_another_layout[a frame]"),
    M("it has no revision of the ring", RING,
      "{kRingRevision, layout_hash()}", "{layout_hash()}",
      "test_libtachyon.py::test_headers_with_another_meaning_have_another_layout[the ring's revision]"),
    M("it has no segment", RING,
      "{kRingRevision, layout_hash()}", "{kRingRevision}",
      "test_libtachyon.py::test_headers_with_another_meaning_have_another_layout[the protocol's]"),
],
"what others are compiled against": [
    M("Bus has one more field", TACHYON_PXD,
      "cdef class Bus(_Abortable):", "cdef class Bus(_Abortable):\n    cdef int _more",
      "test_surface.py::test_nothing_that_others_are_compiled_against_has_changed"),
    M("what is appended is not pinned", TACHYON_PXD,
      "cdef int take_back(self) except -1", "cdef int take_back(self) except -1\ncdef int more(self) noexcept nogil",
      "test_surface.py::test_what_was_appended_is_pinned_too",
      ((BUS_PXI, "cdef int take_back(self) except -1:", "cdef int more(self) noexcept nogil:\n    return 0\n\ncdef int take_back(self) except -1:"),)),
    M("the core has other numbers", ERROR,
      "unknown_call = 13,", "unknown_call = 15,", "test_nogil.py::test_the_numbers_are_those_of_the_core"),
    M("the module exports what is in it", SETUP,
      '["-Wl,--version-script=tachyon/modules.map"]', "[]",
      "test_packaging.py::test_a_module_exports_nothing_but_its_beginning",
      ((ARGUMENTS, "# Included by _tachyon.pyx:", "# Included by _tachyon.pyx, linked anew:"),)),
],
"packaging": [
    M("what was made beforehand is not taken", SETUP,
      "shutil.copytree(PREFIX, package, dirs_exist_ok=True)", "pass",
      "test_packaging.py::test_a_wheel_takes_what_cxx_users_get_from_the_prefix_it_is_told"),
    M("no pxd in the wheel", PYPROJECT,
      '"*.pyi", "*.pxd"]', '"*.pyi"]',
      "test_packaging.py::test_a_wheel_takes_what_cxx_users_get_from_the_prefix_it_is_told"),
    M("modules are in the source distribution", MANIFEST,
      "global-exclude *.so *.py[cod]", "",
      "test_packaging.py::test_the_source_distribution_holds_everything_and_nothing_that_was_built"),
],
}
