"""The methods that Cython code calls without the GIL."""

from table import Mutant as M

BUS = "cxx/include/tachyon/bus.hpp"
BUS_HANDLE_HPP = "cxx/include/tachyon/host/bus_handle.hpp"
GATE = "cxx/include/tachyon/host/gate.hpp"
WAITING = "cxx/include/tachyon/port/waiting.hpp"
CONSUMER = "cxx/include/tachyon/ring/consumer.hpp"
RPC_HPP = "cxx/include/tachyon/rpc.hpp"
BUS_HANDLE_CPP = "cxx/src/host/bus_handle.cpp"
RPC_HANDLE = "cxx/src/host/rpc_handle.cpp"
RPC_CPP = "cxx/src/rpc.cpp"

TABLE = {
"who may come in": [
    M("a free send asks nobody", BUS_HANDLE_HPP + "::try_send",
      "if (!inside) [[unlikely]]\nreturn why_not_entered();", "",
      "test_nogil_end.py::test_everything_says_closed_afterwards"),
    M("a free commit asks nobody", BUS_HANDLE_HPP + "::commit",
      "if (!inside) [[unlikely]]\nreturn let_go_refused(why_not_entered(), 1);", "",
      "test_nogil_end.py::test_everything_says_closed_afterwards"),
    M("an open guard is in nobody's way", GATE,
      "!= 0 || guards() != held()) [[unlikely]]", "!= 0) [[unlikely]]",
      "test_nogil.py::test_nogil_code_is_refused_while_a_guard_is_open"),
    M("the reason is not the close", BUS_HANDLE_CPP,
      "if (closing()) return Status::closed;", "if (bus_ == nullptr) return Status::closed;",
      "test_nogil_end.py::test_a_claim_stays_writable_after_a_close"),
],
"what is held": [
    M("try_claim holds nothing", BUS_HANDLE_HPP + "::try_claim",
      "if (status == Status::ok) gate_.hold(1);", "",
      "test_nogil.py::test_python_is_refused_while_nogil_code_holds_something"),
    M("a batch is held as one", BUS_HANDLE_CPP,
      "gate_.hold(static_cast<int>(count));", "gate_.hold(1);",
      "test_nogil.py::test_a_batch_is_held_until_all_of_it_is_released"),
    M("what nobody holds is counted down", BUS_HANDLE_HPP,
      "if (ends_hold(status) && gate_.held() != 0) gate_.let_go(1);", "if (ends_hold(status)) gate_.let_go(1);",
      "test_nogil.py::test_what_finds_the_peer_gone_leaves_nothing_open"),
    M("a claim outlives its peer", BUS_HANDLE_HPP,
      "if (ends_hold(status) && gate_.held() != 0) gate_.let_go(1);",
      "if (status == Status::ok && gate_.held() != 0) gate_.let_go(1);",
      "test_nogil.py::test_what_finds_the_peer_gone_leaves_nothing_open"),
    M("only the place of a frame is looked at", CONSUMER,
      "const std::uint64_t offset = frame.position & mask_, bytes = frame_size(frame.size);",
      "return true;\nconst std::uint64_t offset = frame.position & mask_, bytes = frame_size(frame.size);",
      "test_nogil.py::test_frames_are_released_oldest_first_and_unchanged"),
    M("a released batch makes no room", BUS_HANDLE_CPP + "::release_all",
      "bus_->hand_back();", "", "test_nogil.py::test_a_released_batch_makes_room_at_once"),
    M("a death is not looked for at every tick", BUS,
      "now != last_tick_) [[unlikely]]", "now > last_tick_ + 1000 * kMillisecond) [[unlikely]]",
      "test_nogil_end.py::test_a_slow_sender_hears_of_a_death_by_its_next_message[send] "
      "test_nogil_end.py::test_a_slow_sender_hears_of_a_death_by_its_next_message[claim]"),
    M("peek does not wait", BUS_HANDLE_CPP + "::peek",
      "bus_->peek(frame, waiting)", "bus_->try_peek(frame)", "test_nogil.py::test_a_timeout_is_waited_out"),
],
"waiting": [
    M("a signal is looked for only after one of our own", WAITING,
      "if (!signalled && now - last < kSlice - kMillisecond) return false;", "if (!signalled) return false;",
      "test_nogil_signals.py::test_a_signal_that_another_thread_got_ends_a_blocking_method"),
    M("every wait takes the GIL", WAITING,
      "if (!signalled && now - last < kSlice - kMillisecond) return false;", "",
      "test_nogil_end.py::test_short_waits_leave_the_gil_alone"),
    M("a single wait does not look at the peer", BUS_HANDLE_CPP + "::wait_readable",
      "const Status status = bus_->check();", "const Status status = Status::ok;",
      "test_nogil_end.py::test_a_single_wait_tells_of_the_end_of_the_peer"),
],
"close from another thread": [
    M("a method does not look whether the bus is being closed", GATE + "::enter_free",
      "if (!must_close()) [[likely]]\nreturn Entry::inside;", "return Entry::inside;",
      "test_nogil_end.py::test_closing_under_a_running_loop_ends_it[send_until_it_ends]"),
    M("who was inside does not close", GATE + "::leave",
      "return must_close();", "return false;",
      "test_nogil_end.py::test_the_peer_hears_of_a_close_that_a_single_wait_was_left_with"),
    M("close() does not mind who is inside", GATE + "::begin_closing",
      "if (inside_.load(std::memory_order_acquire) != 0) return false;", "",
      "test_nogil_end.py::test_closing_under_a_running_loop_ends_it[send_until_it_ends]"),
    M("what was given back after a close stays", BUS_HANDLE_CPP,
      "if (ends_hold(why) && gate_.held() >= count) gate_.let_go(count);", "(void)count;",
      "test_nogil_end.py::test_what_nogil_code_holds_stays_mapped_after_a_close "
      "test_nogil_end.py::test_a_claim_stays_writable_after_a_close"),
    M("what nobody held is counted down after a close", BUS_HANDLE_CPP,
      "if (ends_hold(why) && gate_.held() >= count) gate_.let_go(count);", "if (ends_hold(why)) gate_.let_go(count);",
      "test_nogil_end.py::test_what_nogil_code_holds_stays_mapped_after_a_close "
      "test_nogil_rpc_end.py::test_what_nogil_code_holds_of_rpc_stays_mapped_after_a_close[commit_reply]"),
],
"calls and replies": [
    M("two full rings are a deadlock", RPC_HANDLE,
      "if (handle_.gate().is_inside(Gate::User::free)) return gather();",
      "if (handle_.gate().is_inside(Gate::User::free)) return;",
      "test_nogil_rpc.py::test_a_full_ring_of_calls_does_not_lock_up_with_a_full_ring_of_replies"),
    M("a committed call is not waited for", RPC_HPP + "::commit",
      "if (status == Status::ok) called(id);", "", "test_nogil_rpc.py::test_calls_and_replies_in_place"),
    M("a committed reply may be sent again", RPC_CPP,
      "if (status == Status::ok) callee_.replied(id_);", "", "test_nogil_rpc.py::test_calls_and_replies_in_place"),
    M("a claim may be for a call that nobody made", RPC_CPP,
      "return callee_.can_reply(id_) ? callee_.replies_.try_claim(size, payload) : Status::unknown_call;",
      "return callee_.replies_.try_claim(size, payload);", "test_nogil_rpc.py::test_calls_and_replies_in_place"),
    M("a reply may be committed to a call that nobody made", RPC_CPP,
      "if (!callee_.can_reply(id_)) return Status::unknown_call;", "",
      "test_nogil_rpc.py::test_calls_and_replies_in_place"),
    M("another's reply can be released", RPC_HANDLE,
      "if (replies_.gate_.held() == 0 || held_reply_.correlation_id != frame.correlation_id) return",
      "if (replies_.gate_.held() == 0) return",
      "test_nogil_rpc.py::test_a_reply_is_released_as_it_was_whatever_its_frame_says_by_now"),
    M("a reply is released as its frame says by now", RPC_HANDLE,
      "caller_->release(held_reply_);", "caller_->release(frame);",
      "test_nogil_rpc.py::test_a_reply_is_released_as_it_was_whatever_its_frame_says_by_now"),
],
}
