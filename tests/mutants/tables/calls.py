"""Calls and replies in C++."""

from table import Mutant as M

RPC_HPP = "cxx/include/tachyon/rpc.hpp"
BUS = "cxx/src/bus.cpp"
RPC_CPP = "cxx/src/rpc.cpp"

TABLE = {
"calls and replies": [
    M("a reply that is not waited for is lost", RPC_CPP,
      "keep_or_drop(reply);", "", "cxx/rpc"),
    M("a look goes through any number of replies", RPC_CPP,
      "i < kMostRepliesPerLook &&", "", "cxx/rpc"),
    M("a look goes through any number of bytes", RPC_CPP,
      "&& gone_through_ - before < kMostBytesPerLook; ++i", "; ++i", "cxx/rpc"),
    M("gather goes through any number of replies", RPC_CPP,
      "++count == kMostRepliesPerLook ||", "", "cxx/rpc"),
    M("gather goes through any number of bytes", RPC_CPP,
      "++count == kMostRepliesPerLook || gone_through_ - before >= kMostBytesPerLook", "++count == kMostRepliesPerLook",
      "cxx/rpc"),
    M("a look that stopped does not say so", RPC_CPP,
      "unfinished_ = true;", "", "cxx/rpc"),
    M("any reply is kept", RPC_CPP,
      "if (window_.state(id) != CallWindow::State::open) {  // aband", "if (id == 0) {  // aband", "cxx/rpc"),
    M("a reply that was set aside is released twice", RPC_CPP,
      "if (reply.position != kNotInRing) {", "if (aside_.find(reply.correlation_id) == aside_.end()) {", "cxx/rpc"),
    M("a reply can be had while it is held", RPC_CPP,
      "window_.set(id, CallWindow::State::none);\nreturn Status::ok;", "return Status::ok;", "cxx/rpc"),
    M("any id may be a call's", RPC_CPP,
      "if (call.correlation_id != window_.newest() + 1) return calls_.poison();", "", "cxx/rpc"),
    M("a wrong id does not poison", RPC_CPP,
      "return calls_.poison();", "return Status::corrupt;", "cxx/rpc"),
    M("a call is answered twice", RPC_HPP,
      "if (status == Status::ok) replied(id);", "", "cxx/rpc"),
    M("a call is answered before it is served", RPC_HPP,
      "if (!can_reply(id)) return Status::unknown_call;", "", "cxx/rpc"),
    M("no limit of what is set aside", RPC_CPP,
      "while (bytes_aside_ + reply.size > kMostBytesSetAside) {", "while (false) {", "cxx/rpc"),
    M("what leaves still counts as set aside", RPC_CPP + "::release",
      "bytes_aside_ -= entry->second.payload.size();", "", "cxx/rpc"),
    M("what is being read is dropped for room", RPC_CPP,
      "return !each.second.held; });", "return each.first != 0; });", "cxx/rpc"),
    M("the window remembers one more", RPC_HPP,
      "newest_ - id < kMostCallsInFlight ?", "newest_ - id <= kMostCallsInFlight ?", "cxx/rpc"),
    M("an id of long ago takes another's place", RPC_HPP,
      "if (id <= newest_ && newest_ - id >= kMostCallsInFlight) return;", "", "cxx/rpc"),
    M("one ring's close hangs up", BUS,
      "if (connection_.use_count() == 1) connection_->shut_down();", "connection_->shut_down();", "cxx/rpc"),
    M("roles are not fixed", RPC_CPP,
      "rings.calls = ring(0, Side::connector);", "rings.calls = ring(0, Side::undecided);", "cxx/rpc"),
],
}
