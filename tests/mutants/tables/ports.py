"""Waits, outlets and inlets."""

from table import Mutant as M

BATCH = "cxx/include/tachyon/batch.hpp"
INLET_HPP = "cxx/include/tachyon/port/inlet.hpp"
OUTLET_HPP = "cxx/include/tachyon/port/outlet.hpp"
WAITING = "cxx/include/tachyon/port/waiting.hpp"
INLET = "cxx/src/port/inlet.cpp"
OUTLET = "cxx/src/port/outlet.cpp"
RPC = "cxx/src/rpc.cpp"

TABLE = {
"waiting": [
    M("a flood holds a caller for ever", RPC,
      "&& caller_.passed() - before_ < caller_.replies_.capacity();", ";", "cxx/rpc_handle"),
    M("what was there is not gone through", RPC,
      "return caller_.unfinished() && caller_", "return false && caller_", "cxx/rpc_handle"),
    M("a wait without time waits", WAITING,
      "(waiting.deadline == 0 && !wait.unfinished())", "(waiting.deadline == 0 && false)", "cxx/port"),
    M("no last try", WAITING,
      "status = wait.attempt();\nif (status == nothing && now_ns()",
      "if (now_ns() >= waiting.deadline) break;\nstatus = wait.attempt();\nif (status == nothing && now_ns()",
      "cxx/port"),
    M("signals are not looked at", WAITING,
      "return interrupt();\n}\n\n// Tries", "    return false;\n}\n\n// Tries", "cxx/port"),
    M("a signal waits for its slice", WAITING,
      "if (!signalled && now - last", "if (now - last", "cxx/port"),
    M("signals are looked at all the time", WAITING,
      "if (!signalled && now - last < kSlice - kMillisecond) return false;", "(void)signalled;", "cxx/port"),
    M("the lock is held during sleep", WAITING,
      "waiting.host.without([&] { return wait.sleep(until); });", "wait.sleep(until);", "cxx/port"),
    M("the lock is not taken again", WAITING,
      "if (lock != nullptr) lock(context);", "", "cxx/port"),
    M("how a sleep ended is forgotten", WAITING,
      "if (slept != Status::ok && slept != nothing && slept != Status::interrupted) return slept;", "", "cxx/port"),
    M("a timeout of no number", WAITING,
      "if (Seconds(timeout) >= Seconds(nanoseconds::max())) return kNever;", "", "cxx/port"),
],
"outlets": [
    M("a claim that is left stays open", OUTLET_HPP,
      "if (outlet_ != nullptr) (void)outlet_->abort();", "", "cxx/outlet"),
    M("a claim is given back twice", OUTLET_HPP,
      ": outlet_(std::exchange(other.outlet_, nullptr)),", ": outlet_(other.outlet_),", "cxx/outlet"),
    M("a commit that is too large ends the claim", OUTLET_HPP,
      "if (ends_hold(status)) outlet_ = nullptr;", "outlet_ = nullptr;", "cxx/outlet"),
    M("the lock is held during a large copy", OUTLET,
      "(void)(data.size() < kLargeCopy ? copy() : waiting.host.without(copy));", "(void)copy();", "cxx/outlet"),
    M("a batch wakes at each message", BATCH,
      "return told(bus_.try_send_quietly(data, size, type_id));", "return told(bus_.try_send(data, size, type_id));",
      "cxx/outlet"),
    M("a batch wakes at each claim", BATCH,
      "return bus_.commit<Wake::later>(size, type_id, 0);", "return bus_.commit(size, type_id, 0);", "cxx/outlet"),
    M("a batch that ends wakes nobody", BATCH,
      "~Batch() { bus_.wake_consumer(); }", "~Batch() = default;", "cxx/outlet"),
    M("a full batch wakes nobody", BATCH,
      "if (status == Status::full) bus_.wake_consumer();", "", "cxx/outlet"),
],
"inlets": [
    M("a message is never let go", INLET_HPP,
      "~Message() { release(); }", "~Message() = default;", "cxx/inlet"),
    M("a message that is replaced is never let go", INLET_HPP,
      "release();\ninlet_ = std", "inlet_ = std", "cxx/inlet"),
    M("a message that is moved from is let go", INLET_HPP,
      ": inlet_(std::exchange(other.inlet_, nullptr)), status_", ": inlet_(other.inlet_), status_", "cxx/inlet"),
    M("a loop holds a message while it waits", INLET_HPP,
      "messages_.now_.release();\nmessages_.now_ = messages_.inlet_.recv(messages_.waiting_);",
      "Message next = messages_.inlet_.recv(messages_.waiting_);\nmessages_.now_ = std::move(next);", "cxx/inlet"),
    M("the lock is held while much is copied out", INLET,
      "if (frame.size < kLargeCopy || !host) {", "if (true) {", "cxx/outlet"),
    M("the lock is let go of for a small copy", INLET,
      "if (frame.size < kLargeCopy || !host) {", "if (!host) {", "cxx/outlet"),
],
}
