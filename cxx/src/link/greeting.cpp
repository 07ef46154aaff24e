#include "greeting.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <utility>

#include "platform/sockets.hpp"
#include "tachyon/error.hpp"
#include "tachyon/shm/parcel.hpp"

namespace tachyon {
namespace {

using Control = std::array<char, CMSG_SPACE(sizeof(int) * (kMaxSegments + 1)) + kSenderSpace>;

void take_descriptors(const msghdr& message, std::vector<Descriptor>& taken, Sender& sender) {
    for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr;
         part = CMSG_NXTHDR(const_cast<msghdr*>(&message), part)) {
        read_sender(*part, sender);
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
        // Where there was no room for all of them, macOS leaves the length as it would have been.
        const auto* const end = static_cast<const unsigned char*>(message.msg_control) + message.msg_controllen;
        const auto room = static_cast<std::size_t>(end - CMSG_DATA(part));
        const std::size_t count = std::min<std::size_t>(part->cmsg_len - CMSG_LEN(0), room) / sizeof(int);
        for (std::size_t i = 0; i < count; ++i) {
            int number = -1;
            std::memcpy(&number, CMSG_DATA(part) + i * sizeof number, sizeof number);
            taken.push_back(own_received(number));
        }
    }
}

}  // namespace

void throw_interrupted() { throw SetupError(SetupFailure::interrupted, EINTR, "interrupted"); }

int poll_timeout(std::uint64_t until) {
    const std::uint64_t now = now_ns();
    if (until <= now) return 0;
    return static_cast<int>((std::min(until - now, kSlice) + kMillisecond - 1) / kMillisecond);
}

const char* kind_name(std::uint16_t kind) {
    for (const Kind known : {Kind::bus, Kind::rpc}) {
        if (kind == static_cast<std::uint16_t>(known)) return arrangement_of(known).name;
    }
    return "bus of an unknown kind";
}

std::uint32_t make_abilities(bool membarrier, std::uint64_t max_large) {
    constexpr std::uint64_t kLeast = 4096, kMost = std::uint64_t{1} << 32;
    if (max_large != 0 && (max_large < kLeast || max_large > kMost || !std::has_single_bit(max_large))) {
        throw SetupError(SetupFailure::capacity, EINVAL,
                         "max_large must be 0, or a power of two between " + std::to_string(kLeast) + " and " +
                             std::to_string(kMost) + " bytes, not " + std::to_string(max_large));
    }
    const bool parcels = max_large != 0 && Parcel::supported();
    return (membarrier ? kAbilityMembarrier : 0) |
           (parcels ? static_cast<std::uint32_t>(std::countr_zero(max_large)) << kAbilityParcels : 0);
}

Hello make_hello(const Arrangement& arrangement, std::uint32_t abilities, std::string_view schema) {
    if (schema.size() > arrangement.max_schema || schema.size() > kMaxSchema) {
        fail_handshake(EMSGSIZE, "a " + std::string(arrangement.name) + " says at most " +
                                     std::to_string(std::min(arrangement.max_schema, kMaxSchema)) +
                                     " bytes of its contents, not " + std::to_string(schema.size()));
    }
    Hello hello{};
    std::memcpy(hello.magic, kHelloMagic.data(), sizeof hello.magic);
    hello.byte_order = kByteOrder;
    hello.version = kHelloVersion;
    hello.oldest = kOldestHello;
    hello.bytes = static_cast<std::uint32_t>(sizeof hello + schema.size());
    hello.hello_hash = hello_hash();
    hello.kind = static_cast<std::uint16_t>(arrangement.kind);
    hello.arrangement = arrangement.version;
    hello.arrangement_hash = arrangement.hash;
    hello.abilities = abilities;
    hello.schema_bytes = static_cast<std::uint32_t>(schema.size());
    return hello;
}

bool is_ours(const Hello& hello) {
    return std::string_view(hello.magic, sizeof hello.magic) == kHelloMagic && hello.byte_order == kByteOrder;
}

Verdict judge_prefix(const Hello& hello) {
    const bool understood =
        hello.oldest <= hello.version && hello.version >= kOldestHello && hello.oldest <= kHelloVersion;
    if (!understood) return Verdict::wrong_version;
    return hello.hello_hash == hello_hash() ? Verdict::accepted : Verdict::wrong_layout;
}

Verdict judge(const Hello& hello, const Arrangement& arrangement) {
    if (const Verdict verdict = judge_prefix(hello); verdict != Verdict::accepted) return verdict;
    if (hello.kind != static_cast<std::uint16_t>(arrangement.kind)) return Verdict::wrong_kind;
    if (hello.arrangement != arrangement.version) return Verdict::wrong_version;
    if (hello.arrangement_hash != arrangement.hash) return Verdict::wrong_layout;
    return Verdict::accepted;
}

namespace {

// A socket that is closed with something left to read resets its peer, which is to find our answer and then the end.
void discard_unread(int socket) {
    std::array<char, kMaxHello> rest;
    (void)::recv(socket, rest.data(), rest.size(), MSG_DONTWAIT);
}

bool offers_nothing_from(const Hello& hello, std::size_t first) {
    return std::all_of(std::begin(hello.offers) + first, std::end(hello.offers),
                       [](const SegmentOffer& offer) { return offer == SegmentOffer{}; });
}

}  // namespace

bool is_request(const Hello& hello) {
    return hello.verdict == 0 && hello.segments == 0 && offers_nothing_from(hello, 0);
}

bool is_offer(const Hello& hello) {
    return hello.segments <= kMaxSegments && offers_nothing_from(hello, hello.segments);
}

void settle(Connection& connection, std::uint32_t ours, std::uint32_t theirs) {
    connection.set_barrier((ours & theirs & kAbilityMembarrier) != 0 ? Barrier::membarrier : Barrier::locked);
    const auto parcels = [](std::uint32_t abilities) { return abilities >> kAbilityParcels & kMostParcelsAbility; };
    const std::uint32_t least = std::min(parcels(ours), parcels(theirs));
    connection.set_max_large(least == 0 ? 0 : std::uint64_t{1} << least);
}

bool HelloReader::only_prefix() const { return !is_ours(hello_) || judge_prefix(hello_) != Verdict::accepted; }

bool HelloReader::lengths_are_right() const {
    if (hello_.bytes < sizeof hello_ || hello_.bytes > kMaxHello) return false;
    if (got_ < sizeof hello_) return true;  // of the schema nothing is known yet
    const std::size_t rest = hello_.bytes - sizeof hello_;
    return hello_.schema_bytes <= max_schema_ &&
           (hello_.version == kHelloVersion ? hello_.schema_bytes == rest : hello_.schema_bytes <= rest);
}

// Where to put what comes next; empty when there is no more to come, or nothing that can be believed.
std::span<char> HelloReader::wanted() {
    char* const fixed = reinterpret_cast<char*>(&hello_);
    if (got_ < kHelloPrefix) return {fixed + got_, kHelloPrefix - got_};
    if (only_prefix()) return {};
    garbled_ = !lengths_are_right();
    if (garbled_) return {};
    if (got_ < sizeof hello_) return {fixed + got_, sizeof hello_ - got_};
    rest_.resize(hello_.bytes - sizeof hello_);
    return std::span<char>(rest_).subspan(got_ - sizeof hello_);
}

HelloReader::Progress HelloReader::advance(int socket) {
    for (std::span<char> room = wanted(); !room.empty(); room = wanted()) {
        alignas(cmsghdr) Control control;
        iovec part{room.data(), room.size()};
        msghdr message = message_of(part, control);
        const ssize_t n = ::recvmsg(socket, &message, kReceive);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return Progress::more;
        if (n < 0 && errno == EMSGSIZE) truncated_ = true;  // macOS: no number left for a descriptor
        if (n > 0) {
            truncated_ = truncated_ || (message.msg_flags & MSG_CTRUNC) != 0;
            take_descriptors(message, descriptors_, sender_);
        }
        if (n <= 0) return Progress::failed;
        got_ += static_cast<std::size_t>(n);
        if (truncated_ || descriptors_.size() > expected_) return Progress::failed;
    }
    if (garbled_ || only_prefix()) discard_unread(socket);
    return garbled_ ? Progress::failed : Progress::complete;
}

namespace {

bool send_parts(int socket, std::span<iovec> parts, std::span<const int> descriptors) {
    alignas(cmsghdr) Control control{};
    msghdr message{};
    message.msg_iov = parts.data();
    message.msg_iovlen = static_cast<decltype(message.msg_iovlen)>(parts.size());
    if (!descriptors.empty()) {
        attach_descriptors(message, control, descriptors.first(std::min(descriptors.size(), kMaxSegments + 1)));
    }
    std::size_t wanted = 0;
    for (const iovec& part : parts) wanted += part.iov_len;
    return std::cmp_equal(::sendmsg(socket, &message, kSend), wanted);
}

}  // namespace

bool send_hello(int socket, const Hello& hello, std::string_view schema, std::span<const int> descriptors) {
    std::array<iovec, 2> parts{
        {{const_cast<Hello*>(&hello), sizeof hello}, {const_cast<char*>(schema.data()), schema.size()}}};
    return send_parts(socket, parts, descriptors);
}

bool send_with(int socket, std::span<const std::byte> data, std::span<const int> descriptors) {
    iovec part{const_cast<std::byte*>(data.data()), data.size()};
    return send_parts(socket, {&part, 1}, descriptors);
}

ssize_t peek_with(int socket, std::span<std::byte> data, std::vector<Descriptor>& descriptors) {
    alignas(cmsghdr) Control control;
    iovec part{data.data(), data.size()};
    msghdr message = message_of(part, control);
    const ssize_t n = ::recvmsg(socket, &message, kReceive | MSG_PEEK);
    if (n < 0) return n;
    Sender nobody;
    take_descriptors(message, descriptors, nobody);
    if ((message.msg_flags & MSG_CTRUNC) == 0) return n;
    errno = EMFILE;
    return -1;
}

std::optional<char> receive_ready(int socket, Sender& sender) {
    alignas(cmsghdr) std::array<char, kSenderSpace> control;
    char byte = 0;
    iovec part{&byte, 1};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const ssize_t n = ::recvmsg(socket, &message, kReceive);
    if (n == 0) errno = 0;
    if (n <= 0) return std::nullopt;
    std::vector<Descriptor> unasked;  // closed
    take_descriptors(message, unasked, sender);
    return byte == kReady ? byte : '\0';
}

bool send_ready(int socket) { return ::send(socket, &kReady, 1, kSend) == 1; }

}  // namespace tachyon
