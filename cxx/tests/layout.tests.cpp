#include "tachyon/ring/layout.hpp"

#include "catch.hpp"

using namespace tachyon;

TEST_CASE("a payload of up to 48 bytes takes one line and one byte more takes the next") {
    CHECK(frame_size(0) == 64);
    CHECK(frame_size(1) == 64);
    CHECK(frame_size(48) == 64);
    CHECK(frame_size(49) == 128);
    CHECK(frame_size(112) == 128);
    CHECK(frame_size(113) == 192);
}

TEST_CASE("the largest message of every capacity fills the whole ring and no more") {
    for (std::uint64_t capacity = kMinCapacity; capacity <= kMaxCapacity; capacity *= 2) {
        CHECK(frame_size(max_message_size(capacity)) == capacity);
        CHECK(frame_size(max_message_size(capacity) + 1) == capacity + kLine);
    }
}

TEST_CASE("no message has a commit word that reads as nothing or as padding") {
    for (const std::uint32_t type_id : {0u, 1u, 0x7fffffffu, 0xffffffffu}) {
        for (const std::uint64_t size :
             {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{48}, max_message_size(kMaxCapacity)}) {
            const std::uint64_t word = commit_word(static_cast<std::uint32_t>(size), type_id);
            CHECK(word != 0);
            CHECK(low_half(word) != 0);
            CHECK(low_half(word) != kPadding);
            CHECK(low_half(word) - 1 == size);
            CHECK(high_half(word) == type_id);
        }
    }
}

TEST_CASE("only powers of two within the bounds are capacities") {
    for (std::uint64_t capacity = kMinCapacity; capacity <= kMaxCapacity; capacity *= 2)
        CHECK(is_valid_capacity(capacity));
    for (const std::uint64_t capacity : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{32}, std::uint64_t{63},
                                         std::uint64_t{65}, std::uint64_t{96}, std::uint64_t{4095}, kMaxCapacity - 1,
                                         kMaxCapacity + 1, kMaxCapacity * 2, ~std::uint64_t{0}}) {
        CHECK_FALSE(is_valid_capacity(capacity));
    }
}

TEST_CASE("the two sides are each other's other side") {
    CHECK(other_side(Side::listener) == Side::connector);
    CHECK(other_side(Side::connector) == Side::listener);
}

TEST_CASE("words that different processes write stand in different pairs of lines") {
    const std::size_t pairs[] = {
        offsetof(SegmentHeader, read_position) / 128, offsetof(SegmentHeader, consumer_parked) / 128,
        offsetof(SegmentHeader, producer_parked) / 128, offsetof(SegmentHeader, producer_side) / 128,
        offsetof(SegmentHeader, write_position) / 128};
    for (std::size_t i = 0; i < std::size(pairs); ++i) {
        CHECK(pairs[i] > 0);  // the first pair holds what nobody writes any more
        for (std::size_t j = 0; j < i; ++j) CHECK(pairs[i] != pairs[j]);
    }
}

TEST_CASE("what a side tells of itself stands in the line that it writes anyway") {
    CHECK((offsetof(SegmentHeader, consumer) + sizeof(SideCounters) - 1) / kLine ==
          offsetof(SegmentHeader, read_position) / kLine);
    CHECK((offsetof(SegmentHeader, producer) + sizeof(SideCounters) - 1) / kLine ==
          offsetof(SegmentHeader, write_position) / kLine);
}

// Whoever changes the layout, and with it this value, raises kProtocolVersion too: then both lines change.
TEST_CASE("the layout of this protocol version is the published one") {
    CHECK(kProtocolVersion == 3);
    CHECK(layout_hash() == 0x5023768eu);
}
