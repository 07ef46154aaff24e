// Purpose: the lock-free single-producer single-consumer ring over one segment. Header-only; knows neither sockets nor Python.
// Threads: one thread (of any process) uses the Producer, one the Consumer. Everything is noexcept and never allocates; the
//   only system call is the wake of a parked peer.
// Lifetime: the segment must stay mapped while a Producer or Consumer over it is used. A claimed payload is valid until
//   commit or abort, a peeked one until its release.
// Ordering (argued label by label in docs/memory-model.md):
//   [commit]  payload (plain) → commit word (release)      pairs with  commit word (acquire) → payload, in peek
//   [free]    clears (relaxed) → read_position (release)   pairs with  read_position (acquire) → next lap's payload, in has_room
//   Waking the other side after either is wait.hpp's [wake-barrier].
//
// A frame is whole 64-byte lines: commit word, correlation_id, payload, padding. The commit word is stored last; 0 means
// "not yet". There is no shared write position: the consumer polls the word where the next frame will start.
//
// Invariant: the word at the write position reads 0 before the commit that precedes it is visible.
//   Any line can be a header in the next lap. The consumer clears the first word of every line of a frame that it frees; of a bulk
//   frame (RingMemory::bulk bytes and more) only the header's, so that letting go of it costs the same whatever its size. The
//   producer remembers, as one interval, where lines may be that do not begin with 0, and clears the next header there itself.
#pragma once

#include <type_traits>

#include "tachyon/ring/consumer.hpp"
#include "tachyon/ring/frame.hpp"
#include "tachyon/ring/layout.hpp"
#include "tachyon/ring/producer.hpp"

namespace tachyon {

// ---- one ring, two compilations ---------------------------------------------------------------------------------------------
//
// A Producer or Consumer may be made in one binary and used by code that inlined this header in another. Both have to mean the
// same bytes by it: they compare this number first. It follows every field by itself: none of these has
// padding, so a new field changes a size, and the place of each that is listed counts. Count kRingRevision up when what a field means
// changes and its place does not.
inline constexpr std::uint64_t kRingRevision = 3;

static_assert(std::has_unique_object_representations_v<RingMemory> &&
                  std::has_unique_object_representations_v<Doorbell> &&
                  std::has_unique_object_representations_v<Frame> &&
                  std::has_unique_object_representations_v<Producer> &&
                  std::has_unique_object_representations_v<Consumer>,
              "no padding: a field could hide there from ring_layout()");

constexpr std::uint64_t ring_layout() noexcept {
    std::uint64_t hash = detail::mix(0xcbf29ce484222325u, {kRingRevision, layout_hash()});
    hash = detail::mix(hash, {sizeof(RingMemory), offsetof(RingMemory, header), offsetof(RingMemory, data),
                              offsetof(RingMemory, capacity), offsetof(RingMemory, barrier),
                              offsetof(RingMemory, doorbell), offsetof(RingMemory, bulk)});
    hash = detail::mix(hash, {sizeof(Doorbell), offsetof(Doorbell, knock), offsetof(Doorbell, context)});
    hash = detail::mix(hash, {sizeof(Frame), offsetof(Frame, payload), offsetof(Frame, position),
                              offsetof(Frame, correlation_id), offsetof(Frame, size), offsetof(Frame, type_id)});
    return Consumer::layout(Producer::layout(hash));
}

}  // namespace tachyon
