// A victim in C++, over the core library: victims.py says what each role does; the survivor and the words that it counts in are
// the same. Arguments are key=value.

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tachyon/bus.hpp"
#include "tachyon/rpc.hpp"

using namespace tachyon;

namespace {

enum Slot : std::size_t { kRound, kPhase, kDone, kKilledAt, kWrong };
constexpr std::uint64_t kFinishing = 3;
constexpr std::size_t kHead = 12;  // number, crc

std::map<std::string, std::string> words;
std::atomic<std::uint64_t>* slots = nullptr;
std::mt19937_64 source;

std::uint64_t number_in(const char* key) { return std::strtoull(words[key].c_str(), nullptr, 10); }
std::uint64_t below(std::uint64_t bound) { return source() % bound; }

enum Code { kLost = 10, kTorn = 11, kBad = 17 };  // exit statuses: see common.py

[[noreturn]] void fail(const char* what, std::uint64_t number, Code code = kBad) {
    std::fprintf(stderr, "the victim: %s, at %llu\n", what, static_cast<unsigned long long>(number));
    std::exit(code);
}

std::uint32_t crc32(const std::uint8_t* data, std::size_t size) {
    static const auto table = [] {
        std::array<std::uint32_t, 256> made{};
        for (std::uint32_t i = 0; i < 256; ++i) {
            std::uint32_t value = i;
            for (int bit = 0; bit < 8; ++bit) value = (value & 1) != 0 ? value >> 1 ^ 0xEDB88320u : value >> 1;
            made[i] = value;
        }
        return made;
    }();
    std::uint32_t crc = 0xFFFFFFFFu;
    for (std::size_t i = 0; i < size; ++i) crc = table[(crc ^ data[i]) & 0xFF] ^ crc >> 8;
    return ~crc;
}

std::vector<std::uint8_t> make_payload(std::uint64_t number, std::uint64_t most) {
    const std::uint64_t rest = most - kHead;
    std::uint64_t size = 0;
    switch (below(10)) {
        case 0: size = rest; break;
        case 1: size = std::min(rest, rest / 2 + below(64)); break;
        case 2: size = below(rest + 1); break;
        default: size = below(std::min<std::uint64_t>(rest, 300) + 1); break;
    }
    std::vector<std::uint8_t> payload(kHead + size);
    // Words that look like the header of a small message, so that a stale line taken for one is a wrong message.
    for (std::uint64_t i = 0; i < size; i += 8) {
        const std::uint64_t word = (below(63) + 1) | below(1 << 16) << 32;
        std::memcpy(payload.data() + kHead + i, &word, std::min<std::uint64_t>(8, size - i));
    }
    const std::uint32_t crc = crc32(payload.data() + kHead, size);
    std::memcpy(payload.data(), &number, 8);
    std::memcpy(payload.data() + 8, &crc, 4);
    return payload;
}

void check(const Frame& frame, std::uint64_t expected) {
    std::uint64_t number = 0;
    std::uint32_t crc = 0;
    bool whole = frame.size >= kHead;
    if (whole) {
        std::memcpy(&number, frame.payload, 8);
        std::memcpy(&crc, frame.payload + 8, 4);
        whole = crc == crc32(frame.payload + kHead, frame.size - kHead);
    }
    if (whole && number == expected) return;
    const Code code = whole ? kLost : kTorn;
    slots[kWrong].store(code);
    fail(whole ? "another message was due" : "a damaged message", expected, code);
}

void wait_for_the_next_round() {
    const std::uint64_t mine = slots[kRound];
    for (int i = 0; i < 3000 && slots[kRound] == mine; ++i) ::usleep(10'000);
    ::_exit(0);
}

void stop(pid_t pid) {
    ::kill(pid, SIGSTOP);
    const std::string file = "/proc/" + std::to_string(pid) + "/stat";
    for (;;) {
        std::ifstream in(file);
        const std::string text((std::istreambuf_iterator<char>(in)), {});
        if (text.find(") T") != std::string::npos) return;
    }
}

void before(std::uint64_t number) {
    const auto survivor = static_cast<pid_t>(number_in("blink"));
    if (number + 1 == number_in("last") && survivor != 0) stop(survivor);
}

struct GaveUp {};  // leaves the scope of the bus

// `buses`: all of them.
bool over(std::uint64_t number, std::initializer_list<Bus*> buses) {
    const std::uint64_t last = number_in("last");
    if (last == 0 || number < last) return false;
    const std::string ending = words["ending"];
    if (ending == "finish") {
        Bus& bus = **buses.begin();
        slots[kPhase].store(kFinishing);
        if (bus.finish() != Status::ok) fail("finish failed", number);
        Status left = Status::full;
        while (left == Status::full || left == Status::interrupted) left = bus.wait_left(kNever);
        if (left != Status::ok) fail("the consumer left something", static_cast<std::uint64_t>(left));
        return true;
    }
    slots[kKilledAt].store(now_ns());
    if (ending == "kill") ::kill(::getpid(), SIGKILL);
    if (ending == "raise") throw GaveUp();
    for (Bus* bus : buses) bus->close(ending == "abort" ? End::aborted : End::closed);
    return true;
}

void rest_now_and_then() {
    if (static_cast<double>(below(1000)) < 1000 * std::strtod(words["rests"].c_str(), nullptr))
        ::usleep(static_cast<useconds_t>(below(3000)));
}

// A send that waits. The claim may be larger than the message, and may be given up once.
void send(Bus& bus, const std::vector<std::uint8_t>& payload, std::uint32_t type_id, std::uint64_t id = 0) {
    const std::uint64_t size = payload.size(), most = bus.max_message_size();
    const bool plain = number_in("blink") != 0;  // nobody makes room for more while the survivor is stopped
    const std::uint64_t room = !plain && below(4) == 0 ? size + below(most - size + 1) : size;
    bool give_up = !plain && below(8) == 0;
    for (;;) {
        std::uint8_t* at = nullptr;
        Status status = bus.try_claim(room, at);
        if (status == Status::ok) {
            for (std::uint64_t i = 0; i < room; i += size)
                std::memcpy(at + i, payload.data(), std::min<std::uint64_t>(size, room - i));
            status = give_up ? bus.abort() : bus.commit(static_cast<std::uint32_t>(size), type_id, id);
            if (status != Status::ok) fail("commit or abort failed", static_cast<std::uint64_t>(status));
            if (!std::exchange(give_up, false)) return;
        } else if (status == Status::full) {
            (void)bus.wait_writable(room, kNever);
        } else {
            fail("claim failed", static_cast<std::uint64_t>(status));
        }
    }
}

template <class Try>
Frame receive(Bus& bus, Try attempt) {
    for (;;) {
        Frame frame{};
        const Status status = attempt(frame);
        if (status == Status::ok) return frame;
        if (status != Status::empty) fail("nothing to receive", static_cast<std::uint64_t>(status));
        (void)bus.wait_readable(kNever);
    }
}

void produce(Bus& bus) {
    for (std::uint64_t number = 0; !over(number, {&bus});) {
        const auto payload = make_payload(number, number_in("most"));
        before(number);
        send(bus, payload, static_cast<std::uint32_t>(number % 1000));
        slots[kDone].store(++number);
        rest_now_and_then();
    }
}

// Holds several messages and lets go of them in any order.
void hold(Bus& bus) {
    const std::uint64_t most = 2 + below(10);
    std::vector<std::pair<Frame, std::uint64_t>> held;
    const auto let_go = [&] {
        const std::size_t at = below(held.size());
        check(held[at].first, held[at].second);
        if (bus.release(held[at].first) != Status::ok) fail("release failed", held[at].second);
        held.erase(held.begin() + static_cast<std::ptrdiff_t>(at));
    };
    for (std::uint64_t number = 0; !over(number, {&bus});) {
        Frame frame{};
        const Status status = bus.try_peek(frame);
        if (status == Status::ok) {
            check(frame, number);
            held.emplace_back(frame, number++);
            if (held.size() >= most) let_go();
            slots[kDone].store(number);
            rest_now_and_then();
        } else if (status != Status::empty) {
            fail("nothing to receive", static_cast<std::uint64_t>(status));
        } else if (held.empty()) {
            (void)bus.wait_readable(kNever);
        } else {
            let_go();  // who holds all that fits would wait for itself
        }
    }
}

void consume(Bus& bus) {
    if (number_in("holds") != 0) return hold(bus);
    for (std::uint64_t number = 0; !over(number, {&bus});) {
        const Frame frame = receive(bus, [&](Frame& each) { return bus.try_peek(each); });
        check(frame, number);
        if (bus.release(frame) != Status::ok) fail("release failed", number);
        slots[kDone].store(++number);
        rest_now_and_then();
    }
}

void call(RpcRings& rings) {
    Caller caller(rings);
    for (std::uint64_t number = 0; !over(number, {rings.calls.get(), rings.replies.get()});) {
        const auto payload = make_payload(number, number_in("most"));
        before(number);
        const std::uint64_t id = caller.next_id();
        send(*rings.calls, payload, 1, id);
        caller.called(id);
        slots[kDone].store(number + 1);
        const Frame frame = receive(*rings.replies, [&](Frame& each) { return caller.try_wait(id, each); });
        check(frame, number++);
        caller.release(frame);
        rest_now_and_then();
    }
}

void answer(RpcRings& rings) {
    Callee callee(rings);
    for (std::uint64_t number = 0; !over(number, {rings.calls.get(), rings.replies.get()});) {
        const Frame frame = receive(*rings.calls, [&](Frame& each) { return callee.try_serve(each); });
        check(frame, number);
        const std::vector<std::uint8_t> payload(frame.payload, frame.payload + frame.size);
        if (rings.calls->release(frame) != Status::ok) fail("release failed", number);
        before(number);
        send(*rings.replies, payload, 2, frame.correlation_id);
        callee.replied(frame.correlation_id);
        slots[kDone].store(++number);
        rest_now_and_then();
    }
}

void ready() {
    if (words["heir"] != "none" && ::fork() == 0) wait_for_the_next_round();
    slots[kPhase].store(1);
}

int be() {
    const std::string path = words["path"], role = words["role"];
    const std::uint64_t capacity = number_in("capacity"), deadline = now_ns() + 30'000 * kMillisecond;
    ListenOptions to_listen;
    to_listen.capacities = {capacity};
    to_listen.deadline = deadline;
    ConnectOptions to_connect;
    to_connect.deadline = deadline;
    if (number_in("rpc") != 0) {
        to_listen.capacities = {capacity, capacity};
        RpcRings rings = number_in("listens") != 0 ? listen_rpc(path, to_listen) : connect_rpc(path, to_connect);
        ready();
        role == "call" ? call(rings) : answer(rings);
        return 0;
    }
    const auto bus = number_in("listens") != 0 ? Bus::listen(path, to_listen) : Bus::connect(path, to_connect);
    ready();
    role == "produce" ? produce(*bus) : consume(*bus);
    return 0;
}

}  // namespace

int main(int count, char** arguments) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (int i = 1; i < count; ++i) {
        const std::string word = arguments[i];
        words[word.substr(0, word.find('='))] = word.substr(word.find('=') + 1);
    }
    source.seed(number_in("seed"));
    const int file = ::open(words["slots"].c_str(), O_RDWR | O_CLOEXEC);
    void* const memory = ::mmap(nullptr, 64, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (memory == MAP_FAILED) fail("no slots", 0);
    slots = static_cast<std::atomic<std::uint64_t>*>(memory);
    try {
        return be();
    } catch (const GaveUp&) {
        return 0;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "the victim: %s\n", error.what());
        return kBad;
    }
}
