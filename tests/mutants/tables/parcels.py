"""Messages that do not fit the ring."""

from table import Mutant as M

PARCELS = "cxx/include/tachyon/parcels.hpp"
BUS_PARCELS = "cxx/src/bus_parcels.cpp"
BUS_CPP = "cxx/src/bus.cpp"
INBOX = "cxx/src/link/inbox.cpp"
MEMORY = "cxx/src/platform/memory_linux.cpp"
SOCKETS = "cxx/src/platform/sockets_linux.cpp"
CONSUMER = "cxx/include/tachyon/ring/consumer.hpp"
GREETING = "cxx/src/link/greeting.cpp"

TABLE = {
"what is under way": [
    M("any number may be under way", PARCELS,
      "return count_ < kMostParcels && bytes <= most_bytes_ - bytes_;",
      "return count_ < 15 + kMostParcels && bytes <= most_bytes_ - bytes_;", "cxx/parcels"),
    M("any number of bytes may be under way", PARCELS,
      "return count_ < kMostParcels && bytes <= most_bytes_ - bytes_;", "return count_ < kMostParcels;", "cxx/parcels"),
    M("nothing comes back", PARCELS, "entries_[oldest_].end <= freed", "entries_[oldest_].end < freed", "cxx/parcels"),
    M("a producer is not told of one that was let go of", BUS_CPP,
      "if (parcel) consumer_.hand_back();", "(void)parcel;", "cxx/parcels"),
    M("a release unmaps nothing", BUS_CPP,
      "const bool parcel = parcels_.received.drop(frame.position);",
      "const bool parcel = parcels_.received.find(frame.position) != nullptr;", "cxx/parcels"),
    M("a release after the end unmaps nothing", BUS_PARCELS,
      "(void)parcels_.received.drop(frame.position);", "(void)frame;", "cxx/parcels"),
    M("a claim that is given up keeps its memory", BUS_CPP, "parcels_.outgoing.reset();\nconst Mode", "const Mode",
      "cxx/parcels"),
    M("there is no limit", BUS_PARCELS,
      "return why != Status::too_large || size > most_size_ ? why : begin_send(0);",
      "return why != Status::too_large ? why : begin_send(0);", "cxx/parcels"),
],
"a peer that lies about parcels": [
    M("any size is believed", BUS_PARCELS,
      "if (bytes == 0 || bytes > connection_->max_large() || bytes > most_size_ || parcels_.received.is_full())\n"
      "return poison();",
      "if (parcels_.received.is_full()) return poison();", "cxx/parcels_hostile"),
    M("any number is believed", BUS_PARCELS,
      "|| bytes > most_size_ || parcels_.received.is_full())\nreturn poison();", "|| bytes > most_size_) return poison();",
      "cxx/parcels_hostile"),
    M("seals are not looked at", MEMORY,
      "if (seals < 0 || (seals & kSeals) != kSeals || (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) == 0) return EPROTO;",
      "if (seals < 0) return EPROTO;", "cxx/parcels_hostile"),
    M("what can be written is believed", MEMORY,
      "|| (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) == 0) return EPROTO;", ") return EPROTO;",
      "cxx/parcels_hostile"),
    M("the size of the memory is not looked at", MEMORY + "::map_parcel_to_read",
      "|| std::cmp_not_equal(status.st_size, bytes)) return EPROTO;", ") return EPROTO;", "cxx/parcels_hostile"),
    M("what is reserved behind the end is believed", MEMORY + "::map_parcel_to_read",
      "if (first_hole(descriptor, bytes) != bytes) return EPROTO;",
      "if (unreserved_memory(descriptor, bytes) != 0) return EPROTO;", "cxx/parcels_hostile"),
    M("descriptors are kept without end", INBOX, "if (count_ == kMostParcels) {", "if (misbehaved_) {",
      "cxx/parcels_hostile"),
    M("more than one with a byte is let by", SOCKETS,
      "if (count == 1 && !truncated) return Heard::descriptor;", "if (count != 0) return Heard::descriptor;",
      "cxx/parcels_hostile"),
],
"descriptors on the socket": [
    M("who hears drops them", INBOX, "if (heard == Heard::descriptor && !misbehaved_) {",
      "if (heard == Heard::descriptor && count_ > kMostParcels) {", "cxx/parcels"),
    M("one without a number is lost", SOCKETS, "if (truncated && count == 0) return Heard::starved;",
      "if (truncated && count == 0) passed.reset();", "cxx/parcels_trouble"),
    M("a socket that is full is a failure", BUS_PARCELS, "case EAGAIN:\ncase ETOOMANYREFS:", "case ETOOMANYREFS:",
      "cxx/parcels_trouble"),
    M("a peer that is gone is a failure", BUS_PARCELS, "case EPIPE:\ncase ECONNRESET:", "case ECONNRESET:",
      "cxx/parcels_trouble"),
    M("what a child has mapped is not sealed", MEMORY + "::seal_parcel",
      "return errno == EBUSY && ::fcntl(descriptor, F_ADD_SEALS, kSeals | F_SEAL_FUTURE_WRITE) == 0 ? 0 : errno;",
      "return errno;", "cxx/parcels_trouble"),
    M("nobody asks what the peer takes", GREETING,
      "const std::uint32_t least = std::min(parcels(ours), parcels(theirs));",
      "const std::uint32_t least = parcels(ours + 0 * theirs);",
      "test_large.py::test_a_peer_that_does_not_know_of_it_is_not_sent_any"),
],
}
