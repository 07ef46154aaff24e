#!/usr/bin/env python3
"""Shows that the tests bite: breaks one rule of the core at a time, in a copy of the tree, and expects a test to fail.

    cxx/tests/mutants.py [--list] [--jobs N] [--keep FOLDER] [NAME ...]

Prints a table. Exit status 0: every mutant was killed and the unmutated tree passes; 1: one survived; 2: the script itself has
to be looked after, because a mutation no longer applies or does not compile.

A mutation names its file, the exact text it replaces, and the test programs that may notice, cheapest first. A text that is
not found exactly once is an error: the rule has moved, and the mutation has to follow it.
"""

import argparse
import dataclasses
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
RING = "cxx/include/tachyon/ring/ring.hpp"
FUTEX = "cxx/include/tachyon/wait/futex.hpp"
WAIT = "cxx/include/tachyon/wait/wait.hpp"
BUS_HPP = "cxx/include/tachyon/bus.hpp"
BUS = "cxx/src/bus.cpp"
FORK = "cxx/src/link/fork.cpp"
CONNECTOR = "cxx/src/link/connector.cpp"
ARRANGEMENT = "cxx/src/link/arrangement.cpp"
GREETING = "cxx/src/link/greeting.cpp"
CLIENTS = "cxx/src/link/clients.cpp"
LISTENER = "cxx/src/link/listener.cpp"
EVENTS = "cxx/src/port/events_linux.cpp"
MEMORY = "cxx/src/port/memory_linux.cpp"
PEER = "cxx/src/port/peer_linux.cpp"
RPC = "cxx/src/rpc.cpp"
RPC_HPP = "cxx/include/tachyon/rpc.hpp"
WAIT_SET = "cxx/src/wait_set.cpp"
SEGMENT = "cxx/src/shm/segment.cpp"
RING_SEGMENT = "cxx/src/ring/ring_segment.cpp"
HELLO_HPP = "cxx/include/tachyon/link/hello.hpp"
SOCKET_FILE = "cxx/src/link/socket_file.cpp"
TIME_LIMIT = 150  # seconds a test program may take; a hang is a failure, and so a kill


@dataclasses.dataclass
class Mutant:
    name: str
    file: str
    old: str
    new: str
    tests: tuple
    preset: str = "mutants"


MUTANTS = [
    # ---- the invariant: the word at the write position reads 0
    Mutant("release clears only the header line", RING, "detail::clear_lines(line, line + bytes);",
           "detail::clear_lines(line, line + kLine);", ("ring",)),
    Mutant("release of one line clears nothing", RING,
           "detail::word_at(line).store(0, std::memory_order_relaxed);  // published by [free]", ";", ("ring",)),
    Mutant("padding is not cleared", RING,
           "detail::word_at(memory_.data + (freed_ & mask_)).store(0, std::memory_order_relaxed);  // published by [free]", ";",
           ("ring",)),
    Mutant("a shrunk claim is not cleared", RING, "detail::clear_lines(start + frame, start + claimed_);", ";", ("ring",)),
    Mutant("an aborted claim is not cleared", RING, "detail::clear_lines(line() + kLine, line() + claimed_);", ";", ("ring",)),
    Mutant("no cursor bound while the whole ring is held", RING,
           "if (cursor_ - freed_ == memory_.capacity) [[unlikely]]", "if (false)", ("ring",)),
    Mutant("has_frame without the cursor bound", RING, "return !holds_whole_ring() && has_word();", "return has_word();",
           ("ring",)),
    # ---- room and padding
    Mutant("padding does not wait for the frame behind it", RING,
           "return rest + frame <= memory_.capacity ? rest + frame : rest;", "return rest;", ("ring",)),
    Mutant("padding is never alone", RING, "return rest + frame <= memory_.capacity ? rest + frame : rest;",
           "return rest + frame;", ("ring",)),
    Mutant("one line too many fits", RING, "if (write_position_ + bytes - cached_read_position_ <= memory_.capacity) [[likely]]",
           "if (write_position_ + bytes - cached_read_position_ <= memory_.capacity + kLine) [[likely]]", ("ring",)),
    Mutant("padding behind the last held frame is forgotten", RING, "if (freed_ != cursor_ && held() == 0) [[unlikely]]",
           "if (false) [[unlikely]]", ("ring",)),
    Mutant("padding before a held frame is forgotten", RING, "if (freed_ != frame.position) [[unlikely]]",
           "if (false) [[unlikely]]", ("ring",)),
    # ---- read_position
    Mutant("peek says empty without handing back", RING, "if (word == 0) {\n                hand_back();", "if (word == 0) {",
           ("ring",)),
    Mutant("read_position is published for every message", RING, "if (pending_ >= publish_every_ ||", "if (true ||", ("ring",)),
    Mutant("read_position is published only when idle", RING, "if (pending_ >= publish_every_ ||", "if (false ||", ("ring",)),
    Mutant("a parked producer is not told of a release", RING,
           "|| memory_.header->producer_parked.load(std::memory_order_relaxed) != 0) {", ") {", ("ring",)),
    Mutant("a wait for a message does not hand back", BUS, "    consumer_.hand_back();\n    const bool blocked = ",
           "    const bool blocked = ", ("bus",)),
    # ---- released before one's turn
    Mutant("whoever waits with the whole ring does not see it go", BUS, "    blocked_.store(false, std::memory_order_release);  // [unblock]\n", "",
           ("held",)),
    Mutant("a frame is released twice", BUS, "    if (has_previous && frame.position < std::prev(next)->end) return Status::no_claim;\n", "",
           ("held",)),
    Mutant("a frame that nobody peeked is released", BUS, " || end > consumer_.cursor()) return Status::no_claim;", ") return Status::no_claim;",
           ("held",)),
    Mutant("padding parts two runs", RING, "return position != padding_ ? position : position + (memory_.capacity - (position & mask_));",
           "return position;", ("held", "ring")),
    Mutant("of a run only what lies before the end is cleared", RING,
           "        detail::clear_lines(memory_.data, memory_.data + (bytes - before_end));\n", "", ("held",)),
    # ---- how a side leaves
    Mutant("an exception that destroys a bus is a close", BUS, "std::uncaught_exceptions() > exceptions_ ? End::aborted : End::closed", "End::closed",
           ("end",)),
    Mutant("an exception on its way aborts what is made meanwhile", BUS, "std::uncaught_exceptions() > exceptions_", "std::uncaught_exceptions() > 0",
           ("end",)),
    Mutant("the last word counts", BUS, "if (closed_->load(std::memory_order_relaxed) == static_cast<std::uint32_t>(End::open)) {", "{", ("end",)),
    Mutant("finish wakes nobody", BUS, "    wake(segment_.header()->consumer_parked, doorbell_of(connection_.get()));  // its exchange is the full barrier\n", "",
           ("end",)),
    # ---- waking
    Mutant("padding wakes nobody", RING,
           "        wake_consumer();  // a lone padding frame has to wake a parked consumer too: nothing else will\n", "",
           ("ring",)),
    Mutant("a commit wakes nobody", RING, "if constexpr (kWake == Wake::now) wake_consumer();", "", ("ring",)),
    Mutant("handing back wakes nobody", RING,
           "if (wake_if_parked(memory_.header->producer_parked, memory_.barrier, memory_.doorbell)) [[unlikely]]\n            ++wakes_;", "",
           ("ring",)),
    Mutant("the waker does not reset the word", WAIT,
           "const std::uint32_t before = parked.exchange(kAwake, std::memory_order_acq_rel);",
           "const std::uint32_t before = parked.load(std::memory_order_acquire);", ("wait",)),
    Mutant("the sleeper does not look again", WAIT, "if (!has_work()) {\n        const int error", "{\n        const int error",
           ("wait",)),
    Mutant("the sleeper does not announce itself", WAIT,
           "parked.store(kParkedOnFutex, std::memory_order_relaxed);  // [park-barrier] orders it", "", ("wait",)),
    Mutant("the sleeper does not clear the word", WAIT,
           "parked.store(kAwake, std::memory_order_relaxed);  // we look again in any case", "", ("wait",)),
    Mutant("private futexes", FUTEX, "FUTEX_WAKE, INT_MAX", "FUTEX_WAKE | FUTEX_PRIVATE_FLAG, INT_MAX", ("wait",)),
    Mutant("only one sleeper is woken", FUTEX, "FUTEX_WAKE, INT_MAX", "FUTEX_WAKE, 1", ("wait",)),
    Mutant("leaving an undecided wait clears the other's word", BUS,
           "        segment_.header()->consumer_parked.store(kParkedOnFutex, std::memory_order_relaxed);\n", "", ("bus",)),
    # ---- memory order, which only ThreadSanitizer sees on this hardware
    Mutant("the commit word is stored relaxed", RING, "detail::word_at(start).store(word, std::memory_order_release);",
           "detail::word_at(start).store(word, std::memory_order_relaxed);", ("torture",), "mutants-tsan"),
    Mutant("the commit word is loaded relaxed", RING,
           "detail::word_at(line).load(std::memory_order_acquire);", "detail::word_at(line).load(std::memory_order_relaxed);",
           ("torture",), "mutants-tsan"),
    Mutant("read_position is stored relaxed", RING, "read_position.store(freed_, std::memory_order_release);",
           "read_position.store(freed_, std::memory_order_relaxed);", ("torture",), "mutants-tsan"),
    Mutant("read_position is loaded relaxed", RING, "read_position.load(std::memory_order_acquire);",
           "read_position.load(std::memory_order_relaxed);", ("torture",), "mutants-tsan"),
    # ---- a peer that lies
    Mutant("no bounds check of a frame", RING, "if (bytes > room) [[unlikely]]", "if (false) [[unlikely]]", ("ring",)),
    Mutant("frames may lie over held ones", RING,
           "memory_.capacity - (offset > cursor_ - freed_ ? offset : cursor_ - freed_)", "memory_.capacity - offset", ("ring",)),
    Mutant("no check of read_position", RING,
           "if (read - cached_read_position_ > write_position_ - cached_read_position_) {", "if (false) {", ("ring",)),
    Mutant("read_position may go back", RING,
           "if (read - cached_read_position_ > write_position_ - cached_read_position_) {", "if (read > write_position_) {",
           ("ring",)),
    Mutant("padding at the beginning is believed", RING, "if (offset == 0 || high_half(word) != 0", "if (high_half(word) != 0",
           ("ring",)),
    Mutant("padding over held frames is believed", RING, "|| bytes > memory_.capacity - (cursor_ - freed_)) return false;",
           ") return false;", ("ring",)),
    Mutant("an impossible role is believed by a reader", BUS,
           "if (side != static_cast<std::uint32_t>(other_side(side_))) return poison();", "", ("bus",)),
    Mutant("an impossible role is believed by a writer", BUS,
           "if (!first && expected != static_cast<std::uint32_t>(other_side(side_))) return poison();", "", ("bus",)),
    Mutant("corruption does not poison", BUS, "mode_.store(Mode::corrupt, std::memory_order_relaxed);", "", ("bus",)),
    # ---- the peer's end
    Mutant("no second look before the end is told", BUS, "if (status == Status::ok) status = consumer_.peek(frame);",
           "if (status == Status::ok) status = Status::empty;", ("bus",)),
    Mutant("the closed flag is ignored", BUS_HPP, "const std::uint32_t end = peer_closed_->load(std::memory_order_acquire);", "const std::uint32_t end = 0;",
           ("bus",)),
    Mutant("a hang-up is ignored", BUS, "const bool gone = connection_->hung_up();", "const bool gone = false;", ("bus",)),
    Mutant("a hang-up is forgotten", BUS, "last_check_ = gone ? 0 : now;", "last_check_ = now;", ("bus",)),
    Mutant("every end is a close", BUS,
           "    if (status != Status::empty) return status;\n    return end != Status::ok ? end : Status::peer_dead;",
           "    if (status != Status::empty) return status;\n    return Status::peer_closed;", ("bus",)),
    Mutant("a sender never looks at the peer", BUS_HPP,
           "if (ticks() - last_check_ > kTicksBetweenChecks) [[unlikely]]\n            return check_after_send();", "",
           ("bus",)),
    Mutant("a sender does not see a close", BUS_HPP, "|| producer_.claim_open() ||\n            peer_closed_->load(std::memory_order_relaxed) != 0)",
           "|| producer_.claim_open())", ("bus",)),
    Mutant("a commit does not see a close", BUS_HPP, "size > claim_size_ ||\n            peer_said_closed())",
           "size > claim_size_)", ("bus",)),
    Mutant("a reader that holds frames is not told", BUS, "    if (!gone && end == Status::ok) return Status::empty;\n",
           "    if (consumer_.held() != 0 || (!gone && end == Status::ok)) return Status::empty;\n", ("bus",)),
    Mutant("a close is not stored", BUS, "closed_->store(static_cast<std::uint32_t>(end), std::memory_order_release);", "", ("bus",)),
    Mutant("a close wakes nobody", BUS, "    wake(segment_.header()->consumer_parked);\n    wake(segment_.header()->producer_parked);\n",
           "", ("bus",)),
    Mutant("request_close is not seen by a wait", BUS, "|| closing_.load(std::memory_order_relaxed) || peer_said_closed(); };",
           "|| peer_said_closed(); };", ("bus",)),
    Mutant("no fork handler", FORK,
           "::pthread_atfork(ForkList::before, ForkList::after_in_parent, ForkList::after_in_child);", "0;", ("bus",)),
    Mutant("a forked child keeps the sockets", BUS,
           "    mode_.store(Mode::forked, std::memory_order_relaxed);\n    connection_->abandon();",
           "    mode_.store(Mode::forked, std::memory_order_relaxed);", ("bus",)),
    Mutant("a forked child shuts the socket down", BUS,
           "    mode_.store(Mode::forked, std::memory_order_relaxed);\n    connection_->abandon();",
           "    mode_.store(Mode::forked, std::memory_order_relaxed);\n    connection_->shut_down();", ("bus",)),
    Mutant("a forked child gives its parent's claim back", BUS, "    if (state() == Status::forked) return;  // what is open",
           "    // what is open", ("bus",)),
    # ---- set-up
    Mutant("seals are not checked", MEMORY, "if ((seals & kSeals) != kSeals)", "if (false)", ("segment",)),
    Mutant("a read-only memfd is mapped", MEMORY,
           "if (access == Access::read_write && (sealed || mode != O_RDWR))", "if (access == Access::read_write && sealed && mode < 0)",
           ("segment",)),
    Mutant("the size is not checked", MEMORY,
           "if (std::cmp_not_equal(status.st_size, bytes)) {", "if (false) {",
           ("segment",)),
    Mutant("memory that is not reserved is mapped", MEMORY, "if (reserved < bytes) return", "if (reserved == 0) return", ("segment",)),
    Mutant("memory that is given back is taken anew", SEGMENT,
           "        check();  // the peer may give memory back at any time: then it must not become ours to pay for\n", "", ("segment",)),
    Mutant("any capacity will do", CONNECTOR, "if (offer.capacity > options_.max_capacity) {", "if (offer.capacity == 1) {", ("handshake_listeners",)),
    Mutant("mapping looks at nothing", SEGMENT, "        if (done != 0) patience.check();\n", "", ("segment",)),
    Mutant("the header page is not checked", RING_SEGMENT, "return as_said ? nullptr :", "return as_said || true ? nullptr :",
           ("ring_segment",)),
    Mutant("what is there to be read is there to be written", MEMORY, "(\"/proc/self/fd/\" + std::to_string(descriptor)).c_str(), O_RDONLY",
           "(\"/proc/self/fd/\" + std::to_string(descriptor)).c_str(), O_RDWR", ("segment",)),
    Mutant("what may only be read is mapped to be written", MEMORY, "access == Access::read_only ? PROT_READ : PROT_READ | PROT_WRITE;",
           "access == Access::read_only || true ? PROT_READ | PROT_WRITE : PROT_READ;", ("segment",)),
    # ---- what both sides say
    Mutant("an older hello is understood", GREETING, "hello.version >= kOldestHello &&", "", ("hello",)),
    Mutant("a hello that does not understand us is understood", GREETING, " && hello.oldest <= kHelloVersion;", ";", ("hello",)),
    Mutant("a hello that contradicts its versions is understood", GREETING, "hello.oldest <= hello.version && ", "", ("hello",)),
    Mutant("a later hello has to be as long as ours", GREETING, "hello_.version == kHelloVersion ?", "hello_.version != 0 ?", ("hello",)),
    Mutant("the rest of a hello that we do not know is waited for", GREETING, "    if (only_prefix()) return {};\n", "", ("hello",)),
    Mutant("a hello may be of any length", GREETING, "    if (hello_.bytes < sizeof hello_ || hello_.bytes > kMaxHello) return false;\n", "    if (hello_.bytes < sizeof hello_) return false;\n", ("handshake_listeners",)),
    Mutant("what is not read resets the peer", GREETING, "    if (garbled_ || only_prefix()) discard_unread(socket);\n", "", ("handshake_clients",)),
    Mutant("a schema may be of any length", GREETING, "hello_.schema_bytes <= max_schema_ &&", "", ("handshake_kind", "handshake_clients")),
    Mutant("the ring's version is not compared", GREETING, "    if (hello.arrangement != arrangement.version) return Verdict::wrong_version;\n", "", ("handshake_listeners",)),
    Mutant("the ring's layout is not compared", GREETING, "    if (hello.arrangement_hash != arrangement.hash) return Verdict::wrong_layout;\n", "", ("handshake_listeners",)),
    Mutant("a connector may say what only a listener says", GREETING, "return hello.verdict == 0 && hello.segments == 0 &&", "return", ("handshake_clients",)),
    Mutant("more may be offered than is counted", GREETING, "return hello.segments <= kMaxSegments && offers_nothing_from(hello, hello.segments);", "return hello.segments <= kMaxSegments;", ("handshake_listeners",)),
    Mutant("any size is agreed to", CONNECTOR, "        if (offer != expected) {", "        if (offer.access != expected.access) {", ("handshake_listeners",)),
    Mutant("any access is agreed to", CONNECTOR, "        if (offer != expected) {", "        if (offer.bytes != expected.bytes) {", ("handshake_listeners",)),
    Mutant("what stands in a segment is not looked at", CONNECTOR, "why != nullptr) refuse_segment(why);", "why == nullptr) (void)why;", ("handshake_kind",)),
    Mutant("what may only be read is passed to be written", LISTENER, "for_reading[i] ? for_reading[i].get() : client.segments[i].descriptor();", "client.segments[i].descriptor();", ("handshake_kind",)),
    Mutant("a schema is lost", LISTENER, "std::move(client.segments), client.reader.schema()}", "std::move(client.segments), {}}", ("handshake_kind",)),
    Mutant("two fields of the hello in one place of the hash", HELLO_HPP, "TACHYON_FIELD(Hello, verdict),", "TACHYON_FIELD(Hello, abilities),", ("hello",)),
    Mutant("a process without memory throws something else", "cxx/include/tachyon/error.hpp", "        fail_out_of_memory();", "        throw;", ("handshake_memory",)),
    Mutant("more descriptors than expected are taken", GREETING,
           "if (truncated_ || descriptors_.size() > expected_) return Progress::failed;", "", ("handshake_clients",)),
    Mutant("truncated descriptors go unnoticed", GREETING,
           "truncated_ = truncated_ || (message.msg_flags & MSG_CTRUNC) != 0;", "", ("handshake_listeners",)),
    Mutant("a dropped client's memory is used again", LISTENER,
           "client.has_offer()) return true;\n    clients_.drop(client);", "client.has_offer()) return true;\n    spare_ = std::move(client.segments);\n    clients_.drop(client);",
           ("handshake_clients",)),
    Mutant("the listener does not check the user", LISTENER, "if (peer != ::geteuid() && peer != 0 && !everybody) return",
           "if (false && everybody) return", ("handshake_peer",)),
    Mutant("the connector does not check the user", CONNECTOR, "        if (!trusted) {", "        if (false && !trusted) {",
           ("handshake_peer",)),
    Mutant("the hello's magic is not checked", GREETING,
           "return std::string_view(hello.magic, sizeof hello.magic) == kHelloMagic && hello.byte_order == kByteOrder;",
           "return hello.byte_order == kByteOrder;", ("handshake_listeners",)),
    Mutant("a refusal after a hang-up is not read", CONNECTOR, " && errno != EPIPE && errno != ECONNRESET) {",
           ") {", ("handshake_listeners",)),
    Mutant("the death of a forking peer is not watched", PEER, "{process, POLLIN, 0}", "{-1, POLLIN, 0}",
           ("handshake_peer",)),
    Mutant("a client without a pidfd ends the listener", LISTENER,
           "            if (clients_.evict(Clients::Victims::silent, 0)) continue;\n            throw;", "            throw;", ("handshake_peer",)),
    Mutant("the barrier is not negotiated", GREETING,
           "return ours && (theirs.abilities & kAbilityMembarrier) != 0 ? Barrier::membarrier : Barrier::locked;",
           "(void)theirs; return ours ? Barrier::membarrier : Barrier::locked;", ("handshake",)),
    Mutant("any socket file is replaced", SOCKET_FILE, "    if (rc == 0 || errno == EAGAIN) {", "    if (rc == -2) {",
           ("socket_file",)),
    Mutant("what is not a socket is removed", SOCKET_FILE, "    if (!S_ISSOCK(status.st_mode)) {",
           "    if (!S_ISSOCK(status.st_mode) && ::unlink(path.c_str()) != 0) {", ("socket_file",)),
    Mutant("the socket file stays", SOCKET_FILE, "SocketFile::~SocketFile() {\n", "SocketFile::~SocketFile() {\n    return;\n",
           ("socket_file",)),
    Mutant("somebody else's file is removed at the end", SOCKET_FILE,
           "status.st_dev == device_ && status.st_ino == inode_) {", "status.st_dev == device_) {", ("socket_file",)),
    Mutant("stale sockets are replaced without a lock", SOCKET_FILE, "while (::flock(folder_, LOCK_EX | LOCK_NB) != 0) {",
           "while (false) {", ("socket_file",)),
    # ---- calls and replies
    Mutant("a reply that is not waited for is lost", RPC, "    keep_or_drop(reply);\n    replies_.release(reply);\n",
           "    replies_.release(reply);\n", ("rpc",)),
    Mutant("a look goes through any number of replies", RPC, "i < kMostRepliesPerLook && ", "", ("rpc",)),
    Mutant("a look goes through any number of bytes", RPC, " && passed_ - before < kMostBytesPerLook; ++i", "; ++i", ("rpc",)),
    Mutant("gather goes through any number of replies", RPC, "++count == kMostRepliesPerLook || ", "", ("rpc",)),
    Mutant("gather goes through any number of bytes", RPC, "++count == kMostRepliesPerLook || passed_ - before >= kMostBytesPerLook",
           "++count == kMostRepliesPerLook", ("rpc",)),
    Mutant("a look that stopped does not say so", RPC, "    unfinished_ = true;\n", "", ("rpc",)),
    Mutant("any reply is kept", RPC, "if (window_.state(id) != CallWindow::State::open) {  // aband", "if (id == 0) {  // aband",
           ("rpc",)),
    Mutant("a reply that was set aside is released twice", RPC, "    if (reply.position != kNotInRing) {", "    if (aside_.find(reply.correlation_id) == aside_.end()) {", ("rpc",)),
    Mutant("a reply can be had while it is held", RPC, "            window_.set(id, CallWindow::State::none);\n            return Status::ok;\n        }\n        case", "            return Status::ok;\n        }\n        case", ("rpc",)),
    Mutant("any id may be a call's", RPC, "    if (call.correlation_id != window_.newest() + 1) return calls_.poison();\n", "",
           ("rpc",)),
    Mutant("a wrong id does not poison", RPC, "return calls_.poison();", "return Status::corrupt;", ("rpc",)),
    Mutant("a call is answered twice", RPC_HPP, "        if (status == Status::ok) replied(id);\n", "", ("rpc",)),
    Mutant("a call is answered before it is served", RPC_HPP, "        if (!can_reply(id)) return Status::unknown_call;\n", "",
           ("rpc",)),
    Mutant("no limit of what is set aside", RPC, "while (bytes_aside_ + reply.size > kMostBytesSetAside) {", "while (false) {",
           ("rpc",)),
    Mutant("what leaves still counts as set aside", RPC, "    bytes_aside_ -= entry->second.payload.size();\n    aside_.erase(entry);\n}\n\nvoid Caller::gather", "    aside_.erase(entry);\n}\n\nvoid Caller::gather", ("rpc",)),
    Mutant("what is being read is dropped for room", RPC,
           "return !each.second.held; });", "return each.first != 0; });", ("rpc",)),
    Mutant("the window remembers one more", RPC_HPP, "newest_ - id < kMostCallsInFlight ?", "newest_ - id <= kMostCallsInFlight ?",
           ("rpc",)),
    Mutant("an id of long ago takes another's place", RPC_HPP,
           "        if (id <= newest_ && newest_ - id >= kMostCallsInFlight) return;\n", "", ("rpc",)),
    Mutant("one ring's close hangs up", BUS, "    if (connection_.use_count() == 1) connection_->shut_down();",
           "    connection_->shut_down();", ("rpc",)),
    Mutant("roles are not fixed", RPC, "rings.calls = ring(0, Side::connector);", "rings.calls = ring(0, Side::undecided);",
           ("rpc",)),
    # ---- waiting for many
    Mutant("the first members come first", WAIT_SET, "    const std::size_t count = members_.size();\n",
           "    const std::size_t count = members_.size();\n    next_ = 0;\n", ("wait_set",)),
    Mutant("who is removed takes another's turn", WAIT_SET, "    if (next_ > index) --next_;\n", "    (void)index;\n", ("wait_set",)),
    Mutant("many sleep unannounced", WAIT_SET, "        member->bus->park_on_socket(member->for_frame);\n", "", ("wait_set",)),
    Mutant("bytes are not taken from the socket", WAIT_SET, "        } else {\n            connection->hear();\n", "        } else {\n", ("wait_set",)),
    Mutant("a member's hang-up is ignored", WAIT_SET, "if (connection == nullptr || connection->hung_up()) {",
           "if (connection == nullptr) {", ("wait_set",)),
    Mutant("room is not waited for", WAIT_SET, "(for_frame ? bus->readable_now() : bus->writable_now(size))", "bus->readable_now()",
           ("wait_set",)),
    Mutant("any room will do", WAIT_SET, "bus->writable_now(size))", "bus->writable_now(0))", ("wait_set",)),
    Mutant("a descriptor is ready for ever", WAIT_SET, "if (member.bus == nullptr) member.ready = false;", "", ("wait_set",)),
    Mutant("busy members hide the others", WAIT_SET, "    if (ticks() - last_look_ > kTicksBetweenChecks) look_at_descriptors(0);\n", "",
           ("wait_set",)),
    Mutant("a signal is slept through", WAIT_SET, "if (look_at_descriptors(milliseconds) < 0) return Status::interrupted;",
           "look_at_descriptors(milliseconds);", ("wait_set",)),
    Mutant("a queue that fails is a signal", WAIT_SET, "    if (error_number != 0 && error_number != EINTR) return look_at_each(timeout);\n", "",
           ("wait_set",)),
    # ---- listening to many
    Mutant("the wrong kind ends a listener for many", LISTENER, "if (verdict == Verdict::wrong_kind && once_) {",
           "if (verdict == Verdict::wrong_kind) {", ("listener",)),
    Mutant("the wrong kind does not end a listener for one", LISTENER, "if (verdict == Verdict::wrong_kind && once_) {",
           "if (false) {", ("handshake_clients",)),
    Mutant("one offer at a time to many", CLIENTS, "if (std::cmp_less(offers, kMostOffers)) return true;",
           "if (offers == 0) return true;", ("listener",)),
    Mutant("many offers for one", CLIENTS, "once_ ? 1 : kMostOffersToOne", "kMostOffersToOne", ("handshake_clients",)),
    Mutant("a full listener says that there is something to do", LISTENER,
           "    watch_file(clients_.size() < kMostClients || clients_.has_victim(Clients::Victims::any, kGrace));",
           "    watch_file(true);", ("listener_crowd",)),
    Mutant("clients may take for ever", LISTENER, "    clients_.drop_late();\n", "", ("handshake_clients",)),
    Mutant("silent clients are never dropped", LISTENER,
           "    while (clients_.size() > kMostSilent && clients_.evict(Clients::Victims::silent, kGrace)) {}\n", "", ("listener_crowd",)),
    Mutant("a full listener makes no room", LISTENER,
           "if (full && (!is_readable(file_->descriptor()) || !clients_.evict(Clients::Victims::any, kGrace))) return;",
           "if (full) return;", ("listener_crowd",)),
    Mutant("offers that stall are never given up for others", CLIENTS,
           "const Client* const stalled = find_stalled(offers_to(client.process) + 2, now);", "const Client* const stalled = nullptr; (void)client;",
           ("listener_crowd",)),
    Mutant("who stalls keeps another process waiting for listen()", CLIENTS,
           "return offers == 0 || (offers == 1 && find_stalled(1, now) != nullptr);", "return offers == 0;", ("listener_crowd",)),
    Mutant("a dropped client keeps the memory", CLIENTS,
           "segment.discard_from(arrangement.kept);", "(void)segment;", ("listener_limits",)),
    Mutant("memory for one more client is reserved without patience", LISTENER, "advance({deadline, interrupt})", "advance({})",
           ("listener_limits",)),
    Mutant("accept's deadline is ignored", LISTENER, "        if (now_ns() >= deadline) {\n", "        if (false) {\n", ("listener",)),
    Mutant("accept cannot be interrupted", LISTENER, "        if (interrupt()) throw_interrupted();\n", "", ("listener",)),
    Mutant("a forked child accepts", LISTENER, "    if (forked()) fail_handshake(", "    if (false) fail_handshake(", ("listener_limits",)),
    Mutant("who has been let in is still watched", LISTENER,
           "    events_.remove(established.connection.socket());\n", "",
           ("listener",)),
    Mutant("the listener's timer is not set", EVENTS, "    if (deadline == timer_set_to_) return;\n", "    if (timer_) return;\n",
           ("listener",)),
    Mutant("the listener's timer stays set", EVENTS, "    if (deadline == timer_set_to_) return;\n",
           "    if (deadline == timer_set_to_ || deadline == kNever) return;\n", ("listener",)),
    Mutant("a client without memory stays", LISTENER, "        clients_.drop(client);\n        throw;\n", "        throw;\n",
           ("listener",)),
]

CONFIGURATIONS = {
    "mutants": ["-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_CXX_FLAGS_DEBUG=-O0"],
    "mutants-tsan": ["-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_CXX_FLAGS_DEBUG=-O1 -g", "-DTACHYON_SANITIZE=thread"],
}


def stop(message):
    print(f"mutants.py: {message}", file=sys.stderr)
    sys.exit(2)


class Tree:
    """A copy of the sources, one build folder per configuration, and at most one mutation at a time."""

    def __init__(self, folder, jobs):
        self.folder = pathlib.Path(folder)
        self.jobs = jobs
        for part in ("CMakeLists.txt", "pyproject.toml"):
            shutil.copy(ROOT / part, self.folder / part)
        shutil.copytree(ROOT / "cxx", self.folder / "cxx", ignore=shutil.ignore_patterns("build", "__pycache__"))
        self.configured = set()

    def configure(self, preset):
        if preset in self.configured:
            return
        result = subprocess.run(
            ["cmake", "-S", self.folder, "-B", self.folder / preset, "-DTACHYON_TESTS=ON", "-DTACHYON_BENCH=OFF",
             "-DTACHYON_INSTALL=OFF", *CONFIGURATIONS[preset]],
            capture_output=True, text=True)
        if result.returncode != 0:
            stop(f"cmake: {result.stdout}{result.stderr}")
        self.configured.add(preset)

    def build(self, preset, unit):
        self.configure(preset)
        return subprocess.run(["cmake", "--build", self.folder / preset, f"-j{self.jobs}", "--target", f"{unit}.tests"],
                              capture_output=True, text=True)

    def run(self, preset, unit):
        """None if the tests pass, else how they failed."""
        program = self.folder / preset / "cxx" / "tests" / f"{unit}.tests"
        # Its own session: a hung test is killed together with what it forked, and nothing else is.
        process = subprocess.Popen([program, "--abort"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                                   start_new_session=True, cwd=self.folder,
                                   env={**os.environ, "TSAN_OPTIONS": "halt_on_error=1"})
        try:
            output, _ = process.communicate(timeout=TIME_LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return f"{unit}: hangs"
        if process.returncode == 0:
            return None
        return f"{unit}: {reason(output, process.returncode)}"


def reason(output, code):
    """The name of the first test that failed, or what else the output says."""
    lines = output.splitlines()
    for i, line in enumerate(lines):
        if "watchdog: this test hangs" in line:
            return "hangs: " + line.split("hangs: ", 1)[-1]
        if "WARNING: ThreadSanitizer" in line:
            return line.strip()
        if line.startswith("-----") and i + 1 < len(lines) and lines[i + 1].strip() and not lines[i + 1].startswith("-----"):
            name = [lines[i + 1]]
            for more in lines[i + 2:]:
                if more.startswith("-----"):
                    break
                name.append(more)
            return " ".join(part.strip() for part in name)
    return f"exit status {code}"


def trial(tree, mutant):
    path = tree.folder / mutant.file
    original = path.read_text()
    path.write_text(original.replace(mutant.old, mutant.new))
    try:
        for unit in mutant.tests:
            built = tree.build(mutant.preset, unit)
            if built.returncode != 0:
                stop(f"the mutant “{mutant.name}” does not compile:\n{built.stdout}{built.stderr}")
            failure = tree.run(mutant.preset, unit)
            if failure is not None:
                return failure
        return None
    finally:
        path.write_text(original)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="parts of the names of mutants to try; default: all")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", help="work in this folder and leave it there")
    arguments = parser.parse_args()

    for mutant in MUTANTS:  # all of them, whichever are asked for
        found = (ROOT / mutant.file).read_text().count(mutant.old)
        if found != 1:
            stop(f"the mutation “{mutant.name}” applies {found} times to {mutant.file}, not once; adapt it to the new code")
    chosen = [m for m in MUTANTS if not arguments.names or any(name in m.name for name in arguments.names)]
    if arguments.list:
        print("\n".join(m.name for m in chosen))
        return 0
    if not chosen:
        stop("no such mutant")

    survivors = []
    with tempfile.TemporaryDirectory(prefix="tachyon-mutants-") as temporary:
        if arguments.keep:
            pathlib.Path(arguments.keep).mkdir(parents=True)
        tree = Tree(arguments.keep or temporary, arguments.jobs)
        for preset, unit in sorted({(m.preset, unit) for m in chosen for unit in m.tests}):
            built = tree.build(preset, unit)
            if built.returncode != 0:
                stop(f"the tree as it is does not compile:\n{built.stdout}{built.stderr}")
            failure = tree.run(preset, unit)
            if failure is not None:
                stop(f"the tree as it is fails: {failure}")
        for mutant in chosen:
            start = time.monotonic()
            failure = trial(tree, mutant)
            if failure is None:
                survivors.append(mutant.name)
            verdict = "SURVIVED" if failure is None else "killed"
            print(f"{verdict:8}  {mutant.name:55}  {time.monotonic() - start:4.0f} s  {failure or ''}", flush=True)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} killed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
