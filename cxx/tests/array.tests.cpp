// Arrays in messages: what stands before their data, whatever a peer has written there, and views over them.
#include "tachyon/array.hpp"

#include <sys/mman.h>

#include <complex>
#include <numeric>
#include <string>
#include <vector>

#include "half_bus.hpp"

using namespace tachyon;
using namespace tachyon::test;

namespace {

// A payload whose last byte is the last before memory that must not be touched.
class Fenced {
  public:
    explicit Fenced(std::size_t most) : pages_((most + kPage - 1) / kPage * kPage) {
        void* const memory =
            ::mmap(nullptr, pages_ + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        REQUIRE(memory != MAP_FAILED);
        start_ = static_cast<std::byte*>(memory);
        REQUIRE(::mprotect(start_ + pages_, kPage, PROT_NONE) == 0);
    }
    Fenced(const Fenced&) = delete;
    Fenced& operator=(const Fenced&) = delete;
    ~Fenced() { ::munmap(start_, pages_ + kPage); }
    std::span<std::byte> last(std::size_t size) { return {start_ + pages_ - size, size}; }

  private:
    static constexpr std::size_t kPage = 4096;
    std::size_t pages_;
    std::byte* start_ = nullptr;
};

Array array_of(std::initializer_list<std::int64_t> shape) {
    Array array;
    array.code = ArrayCode::floating;
    array.bits = 32;
    array.item_bytes = 4;
    array.dimensions = shape.size();
    std::copy(shape.begin(), shape.end(), array.shape.begin());
    return array;
}

std::vector<std::byte> message_of(const Array& array) {
    std::vector<std::byte> message(array.header_bytes() + *array.items() * array.item_bytes);
    write_array_header(reinterpret_cast<std::uint8_t*>(message.data()), array);
    for (std::size_t i = array.header_bytes(); i < message.size(); ++i) message[i] = static_cast<std::byte>(i);
    return message;
}

ArrayFault fault_of(std::span<const std::byte> message) {
    Array array;
    return read_array(message, array);
}

// What a message with one field of the header changed is taken for.
template <class Change>
ArrayFault changed(const Array& array, Change change) {
    std::vector<std::byte> message = message_of(array);
    ArrayHeader header;
    ArrayExtension extension{};
    std::memcpy(&header, message.data(), sizeof header);
    const bool extended = header.more_lines != 0;
    if (extended) std::memcpy(&extension, message.data() + sizeof header, sizeof extension);
    change(header, extension);
    std::memcpy(message.data(), &header, sizeof header);
    if (extended) std::memcpy(message.data() + sizeof header, &extension, sizeof extension);
    return fault_of(message);
}

Array structure() {
    Array array = array_of({2, 3});
    array.code = ArrayCode::described;
    array.item_bytes = 12;
    array.description = R"({"names":["a"]})";
    return array;
}

}  // namespace

TEST_CASE("an array of up to four dimensions has its data 48 bytes into the message, any other one whole lines later") {
    CHECK(array_of({}).header_bytes() == 48);
    CHECK(array_of({1, 2, 3, 4}).header_bytes() == 48);
    CHECK(array_of({1, 2, 3, 4, 5}).header_bytes() == 112);
    CHECK(array_of({1, 2, 3, 4, 5, 6, 7, 8}).header_bytes() == 112);
    Array array = structure();
    CHECK(array.header_bytes() == 48 + 64 + 64);
    const std::string text(kMostArrayDescription, 'x');
    array.description = text;
    CHECK(array.header_bytes() == 48 + 64 + kMostArrayDescription);
}

TEST_CASE("what was written is read again") {
    for (Array array : {array_of({}), array_of({7}), array_of({0}), array_of({2, 3, 4, 1}), array_of({1, 2, 1, 2, 3}),
                        array_of({1, 2, 1, 2, 1, 2, 1, 2}), array_of({3, 0, 1, 2, 5}), structure()}) {
        for (const bool other : {false, true}) {
            array.column_major = array.swapped = other;
            const std::vector<std::byte> message = message_of(array);
            Array read;
            REQUIRE(read_array(message, read) == ArrayFault::none);
            CHECK(read.code == array.code);
            CHECK(read.dimensions == array.dimensions);
            CHECK(read.shape == array.shape);
            CHECK(read.column_major == other);
            CHECK(read.swapped == other);
            CHECK(read.item_bytes == array.item_bytes);
            CHECK(read.description == array.description);
            CHECK(read.data.data() == message.data() + array.header_bytes());
            CHECK(read.data.size() == *array.items() * array.item_bytes);
        }
    }
}

TEST_CASE("strides are those of the last index running fastest, or of the first") {
    Array array = array_of({2, 3, 5});
    CHECK(array.strides() == std::array<std::int64_t, 8>{60, 20, 4});
    array.column_major = true;
    CHECK(array.strides() == std::array<std::int64_t, 8>{4, 8, 24});
}

TEST_CASE("a message that is no array is none, and one of another version says so") {
    CHECK(fault_of({}) == ArrayFault::no_array);
    const std::vector<std::byte> message = message_of(array_of({2}));
    for (std::size_t size = 0; size < 48; ++size)
        CHECK(fault_of(std::span(message).first(size)) == ArrayFault::no_array);
    CHECK(changed(array_of({2}), [](auto& header, auto&) { header.magic ^= 1; }) == ArrayFault::no_array);
    CHECK(changed(array_of({2}), [](auto& header, auto&) { ++header.version; }) == ArrayFault::version);
}

TEST_CASE("a message is exactly as long as shape and type say") {
    for (const Array& array : {array_of({2, 3}), array_of({2, 3, 1, 1, 1}), structure()}) {
        std::vector<std::byte> message = message_of(array);
        for (std::size_t size = 48; size < message.size(); ++size)
            CHECK(fault_of(std::span(message).first(size)) == ArrayFault::size);
        message.push_back({});
        CHECK(fault_of(message) == ArrayFault::size);
    }
}

TEST_CASE("a header that contradicts itself is corrupt") {
    const auto plain = [](auto change) { return changed(array_of({2, 3}), change); };
    const auto five = [](auto change) { return changed(array_of({1, 1, 1, 2, 3}), change); };
    const auto text = [](auto change) { return changed(structure(), change); };
    for (const auto change : std::vector<void (*)(ArrayHeader&, ArrayExtension&)>{
             [](auto& header, auto&) { header.dimensions = 9; },
             [](auto& header, auto&) { header.dimensions = 255; },
             [](auto& header, auto&) { header.dimensions = 1; },  // shape[1] is 3
             [](auto& header, auto&) { header.dimensions = 5; },  // and no line for it
             [](auto& header, auto&) { header.code = 3; },        // a pointer
             [](auto& header, auto&) { header.code = 255; },      // described by nothing
             [](auto& header, auto&) { header.bits = 0; },
             [](auto& header, auto&) { header.bits = 4; },
             [](auto& header, auto&) { header.bits = 33; },
             [](auto& header, auto&) { header.lanes = 0; },
             [](auto& header, auto&) { header.lanes = 2; },
             [](auto& header, auto&) { header.flags = 4; },
             [](auto& header, auto&) { header.flags = 0x8000; },
             [](auto& header, auto&) { header.reserved = 1; },
             [](auto& header, auto&) { header.more_lines = 1; },
             [](auto& header, auto&) { header.shape[0] = -1; },
             [](auto& header, auto&) { header.shape[0] = INT64_MIN; },
             [](auto& header, auto&) { header.shape[0] = INT64_MAX; },
             [](auto& header, auto&) { header.shape[0] = std::int64_t{1} << 61; },  // × 3 × 4 is 2^63 and more
             [](auto& header, auto&) { header.shape[3] = 1; },
         }) {
        CHECK(plain(change) == ArrayFault::corrupt);
    }
    // No length of a ninth is read: behind the others.
    CHECK(changed(array_of({1, 1, 1, 1, 1, 1, 1, 1}), [](auto& header, auto&) { header.dimensions = 9; }) ==
          ArrayFault::corrupt);
    CHECK(five([](auto&, auto& more) { more.shape[0] = -1; }) == ArrayFault::corrupt);
    CHECK(five([](auto&, auto& more) { more.shape[1] = 1; }) == ArrayFault::corrupt);
    CHECK(five([](auto&, auto& more) { more.item_bytes = 4; }) == ArrayFault::corrupt);
    CHECK(five([](auto&, auto& more) { more.description_bytes = 1; }) == ArrayFault::corrupt);
    CHECK(five([](auto&, auto& more) { more.reserved[4] = 1; }) == ArrayFault::corrupt);
    CHECK(text([](auto&, auto& more) { more.item_bytes = 0; }) == ArrayFault::corrupt);
    CHECK(text([](auto&, auto& more) { more.item_bytes = ~0ull; }) == ArrayFault::corrupt);
    CHECK(text([](auto&, auto& more) { more.description_bytes = 0; }) == ArrayFault::corrupt);
    CHECK(text([](auto&, auto& more) { more.description_bytes = 65; }) == ArrayFault::corrupt);  // one line more
    CHECK(text([](auto&, auto& more) { more.description_bytes = ~0u; }) == ArrayFault::corrupt);
    CHECK(text([](auto& header, auto&) { header.bits = 8; }) == ArrayFault::corrupt);
    CHECK(text([](auto& header, auto&) { header.more_lines = 0; }) == ArrayFault::corrupt);
    CHECK(text([](auto& header, auto&) { header.more_lines = 1; }) == ArrayFault::corrupt);
    CHECK(text([](auto& header, auto&) { header.more_lines = 0xffff; }) == ArrayFault::size);
}

TEST_CASE("a dimension of 0 does not make the others possible") {
    const auto with = [](std::int64_t shape) {
        return changed(array_of({0, 1}), [=](auto& header, auto&) { header.shape[1] = shape; });
    };
    CHECK(with(1) == ArrayFault::none);
    CHECK(with(INT64_MAX / 4) == ArrayFault::none);
    CHECK(with(INT64_MAX / 4 + 1) == ArrayFault::corrupt);
    CHECK(with(-1) == ArrayFault::corrupt);
}

TEST_CASE(
    "whatever stands in a header, nothing outside the message is read, and an array that is found lies within it") {
    constexpr std::size_t kMost = 600;
    Fenced memory(kMost);
    Random random(20);
    const Array seeds[] = {array_of({}), array_of({4, 4}), array_of({1, 2, 1, 2, 1, 3}), structure(), array_of({0, 3})};
    std::uint64_t found = 0;
    const std::uint64_t rounds = long_form() ? 200'000'000 : 400'000;
    for (std::uint64_t round = 0; round < rounds; ++round) {
        std::vector<std::byte> seed = message_of(seeds[random.below(std::size(seeds))]);
        if (random.below(4) == 0) seed.resize(random.below(kMost));
        for (std::uint64_t i = random.below(4); i > 0 && !seed.empty(); --i) {
            // Mostly within what is looked at, mostly with a value that is near a bound.
            std::byte& byte =
                seed[random.below(random.below(8) == 0 ? seed.size() : std::min<std::size_t>(seed.size(), 112))];
            constexpr std::uint8_t kEdges[] = {0, 1, 2, 4, 5, 8, 9, 63, 64, 127, 128, 254, 255};
            byte = static_cast<std::byte>(random.below(2) == 0 ? random.below(256) : kEdges[random.below(13)]);
        }
        const std::span<std::byte> message = memory.last(seed.size());
        std::copy(seed.begin(), seed.end(), message.begin());
        Array array;
        if (read_array(message, array) != ArrayFault::none) continue;
        ++found;
        // Any byte of it may be touched; the fence says if that was one too many.
        unsigned sum = 0;
        for (const std::byte each : array.data) sum += static_cast<unsigned>(each);
        for (const char each : array.description) sum += static_cast<unsigned char>(each);
        volatile unsigned sink = sum;
        (void)sink;
        const std::byte* const end = message.data() + message.size();
        if (array.data.data() + array.data.size() != end || array.dimensions > kMostDimensions ||
            *array.items() * array.item_bytes != array.data.size()) {
            FAIL("an array that is not the message");
        }
        // What is read can be written, and is the same again.
        std::vector<std::byte> again(array.header_bytes());
        write_array_header(reinterpret_cast<std::uint8_t*>(again.data()), array);
        again.insert(again.end(), array.data.begin(), array.data.end());
        Array twice;
        if (read_array(again, twice) != ArrayFault::none || twice.shape != array.shape) FAIL("not what was read");
    }
    CHECK(found > rounds / 100);  // or the seeds are no arrays, and nothing was tried
}

// ---- views -----------------------------------------------------------------------------------------------------------------

TEST_CASE("an array is written in place, and viewed in place, with shape, strides and aligned data") {
    HalfBus half;
    set_role(half, kConnector);
    HalfBus sender(8192, Side::connector);
    {
        array_claim<float> room(*sender.bus, {2, 3, 4});
        REQUIRE(room);
        CHECK(reinterpret_cast<std::uintptr_t>(room.items().data()) % kArrayAlignment == 0);
        std::iota(room.items().begin(), room.items().end(), 0.0f);
        room(1, 2, 3) = 100;
        REQUIRE(room.commit(9) == Status::ok);
    }
    // The bytes, as a consumer has them.
    const std::uint8_t* const payload = sender.data + kFrameHeader;
    const Frame frame{payload, 0, 0, 48 + 24 * sizeof(float), 9};
    const array_view<float> view(frame);
    REQUIRE(view);
    CHECK(view.fault() == ArrayFault::none);
    CHECK(std::vector(view.shape().begin(), view.shape().end()) == std::vector<std::int64_t>{2, 3, 4});
    CHECK(std::vector(view.strides().begin(), view.strides().end()) == std::vector<std::int64_t>{12, 4, 1});
    CHECK(view.size() == 24);
    CHECK(view(0, 0, 1) == 1.0f);
    CHECK(view(1, 0, 2) == 14.0f);
    CHECK(view(1, 2, 3) == 100.0f);
    CHECK(view.items()[23] == 100.0f);
    CHECK(reinterpret_cast<std::uintptr_t>(view.items().data()) % kArrayAlignment == 0);
}

TEST_CASE("a view of the first index running fastest finds the same items") {
    Array array = array_of({2, 3});
    array.column_major = true;
    std::vector<std::byte> message = message_of(array);
    const float items[] = {0, 10, 1, 11, 2, 12};
    std::memcpy(message.data() + 48, items, sizeof items);
    const array_view<float> view{std::span<const std::byte>(message)};
    REQUIRE(view);
    for (int i = 0; i < 2; ++i) {
        for (int k = 0; k < 3; ++k) CHECK(view(i, k) == static_cast<float>(10 * i + k));
    }
}

TEST_CASE("a view of another type than the array's is none") {
    const std::vector<std::byte> floats = message_of(array_of({2}));
    const auto fault = [&]<class T>(T) { return array_view<T>(std::span<const std::byte>(floats)).fault(); };
    CHECK(fault(0.0f) == ArrayFault::none);
    CHECK(fault(0.0) == ArrayFault::type);
    CHECK(fault(std::int32_t{0}) == ArrayFault::type);
    CHECK(fault(std::uint32_t{0}) == ArrayFault::type);
    CHECK(fault(std::complex<float>{}) == ArrayFault::type);
    Array array = array_of({2});
    array.swapped = true;
    CHECK(array_view<float>(std::span<const std::byte>(message_of(array))).fault() == ArrayFault::type);
    array = array_of({2});
    array.code = ArrayCode::bfloat;
    array.bits = 16;
    array.item_bytes = 2;
    CHECK(array_view<std::uint16_t>(std::span<const std::byte>(message_of(array))).fault() == ArrayFault::type);
    array.code = ArrayCode::boolean;
    array.bits = 8;
    array.item_bytes = 1;
    const std::vector<std::byte> booleans = message_of(array);
    CHECK(array_view<std::uint8_t>(std::span<const std::byte>(booleans)));
    CHECK(array_view<std::int8_t>(std::span<const std::byte>(booleans)).fault() == ArrayFault::type);
}

TEST_CASE("a type of one's own is described, and its size compared") {
    struct Tick {
        std::int64_t time;
        float price;
    };
    struct Other {
        std::int64_t time;
    };
    HalfBus half(8192, Side::connector);
    CHECK(array_claim<Tick>(*half.bus, {3}).status() == Status::too_large);  // without a description
    array_claim<Tick> room(*half.bus, {3}, {}, "tick 1");
    REQUIRE(room);
    room(2) = {7, 1.5f};
    REQUIRE(room.commit() == Status::ok);
    const Frame frame{half.data + kFrameHeader, 0, 0, 48 + 64 + 64 + 3 * sizeof(Tick), 0};
    const array_view<Tick> view(frame);
    REQUIRE(view);
    CHECK(view.description() == "tick 1");
    CHECK(view(2).time == 7);
    CHECK(view(2).price == 1.5f);
    CHECK(array_view<Other>(frame).fault() == ArrayFault::type);
    CHECK(array_view<float>(frame).fault() == ArrayFault::type);
}

TEST_CASE("data that is not aligned for its type is not viewed") {
    const std::vector<std::byte> message = message_of(array_of({2}));
    std::vector<std::byte> shifted(message.size() + 1);
    std::copy(message.begin(), message.end(), shifted.begin() + 1);
    CHECK(array_view<float>(std::span<const std::byte>(shifted).subspan(1)).fault() == ArrayFault::alignment);
}

TEST_CASE("a view says that there is no message") {
    const Message none(nullptr, Status::empty, {});
    CHECK(array_view<float>(none).fault() == ArrayFault::status);
    CHECK_FALSE(array_view<float>(none));
}

TEST_CASE("a claim for an impossible array is refused, and one that goes is given back") {
    HalfBus half(8192, Side::connector);
    CHECK(array_claim<float>(*half.bus, {-1}).status() == Status::too_large);
    CHECK(array_claim<float>(*half.bus, {INT64_MAX, 2}).status() == Status::too_large);
    CHECK(array_claim<float>(*half.bus, {1, 1, 1, 1, 1, 1, 1, 1, 1}).status() == Status::too_large);
    CHECK(array_claim<float>(*half.bus, {4096}).status() == Status::too_large);
    for (int i = 0; i < 100; ++i) {
        const array_claim<float> room(*half.bus, {1000});
        REQUIRE(room);
    }
    CHECK(send_one(*half.bus, 1) == Status::ok);
}
