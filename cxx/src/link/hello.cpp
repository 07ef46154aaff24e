#include "hello.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "port/sockets.hpp"

namespace tachyon {
namespace {

void take_descriptors(const msghdr& message, std::vector<Descriptor>& taken) {
    for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr;
         part = CMSG_NXTHDR(const_cast<msghdr*>(&message), part)) {
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
    return kind == static_cast<std::uint16_t>(Kind::bus)   ? "Bus"
           : kind == static_cast<std::uint16_t>(Kind::rpc) ? "RpcBus"
                                                           : "bus of an unknown kind";
}

Hello make_hello(Kind kind, bool membarrier) {
    Hello hello{};
    std::memcpy(hello.magic, kHelloMagic, sizeof hello.magic);
    hello.byte_order = kByteOrder;
    hello.version = kProtocolVersion;
    hello.kind = static_cast<std::uint16_t>(kind);
    hello.layout_hash = layout_hash();
    hello.abilities = membarrier ? kAbilityMembarrier : 0;
    return hello;
}

bool is_ours(const Hello& hello) {
    return std::memcmp(hello.magic, kHelloMagic, sizeof hello.magic) == 0 && hello.byte_order == kByteOrder;
}

Verdict judge(const Hello& hello, Kind kind) {
    if (hello.version != kProtocolVersion) return Verdict::wrong_version;
    if (hello.layout_hash != layout_hash()) return Verdict::wrong_layout;
    if (hello.kind != static_cast<std::uint16_t>(kind)) return Verdict::wrong_kind;
    return Verdict::accepted;
}

Barrier agreed_barrier(bool ours, const Hello& theirs) {
    return ours && (theirs.abilities & kAbilityMembarrier) != 0 ? Barrier::membarrier : Barrier::locked;
}

HelloReader::Progress HelloReader::advance(int socket) {
    while (got_ < sizeof hello_) {
        alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * kMaxSegments)> control;
        iovec part{reinterpret_cast<char*>(&hello_) + got_, sizeof hello_ - got_};
        msghdr message{};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        message.msg_control = control.data();
        message.msg_controllen = control.size();
        const ssize_t n = ::recvmsg(socket, &message, kReceive);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return Progress::more;
        if (n < 0 && errno == EMSGSIZE) truncated_ = true;  // macOS: no number left for a descriptor
        if (n > 0) {
            truncated_ = truncated_ || (message.msg_flags & MSG_CTRUNC) != 0;
            take_descriptors(message, descriptors_);
        }
        if (n <= 0) return Progress::failed;
        got_ += static_cast<std::size_t>(n);
        if (truncated_ || descriptors_.size() > expected_) return Progress::failed;
    }
    return Progress::complete;
}

bool send_hello(int socket, const Hello& hello, const std::vector<Segment>& segments) {
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * kMaxSegments)> control{};
    iovec part{const_cast<Hello*>(&hello), sizeof hello};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (!segments.empty()) {
        std::array<int, kMaxSegments> numbers{};
        const std::size_t count = std::min(segments.size(), kMaxSegments);
        for (std::size_t i = 0; i < count; ++i) numbers[i] = segments[i].descriptor();
        message.msg_control = control.data();
        message.msg_controllen = static_cast<decltype(message.msg_controllen)>(CMSG_SPACE(sizeof(int) * count));
        cmsghdr* const rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = static_cast<decltype(rights->cmsg_len)>(CMSG_LEN(sizeof(int) * count));
        std::memcpy(CMSG_DATA(rights), numbers.data(), sizeof(int) * count);
    }
    return ::sendmsg(socket, &message, kSend) == static_cast<ssize_t>(sizeof hello);
}

bool send_ready(int socket) { return ::send(socket, &kReady, 1, kSend) == 1; }

}  // namespace tachyon
