// Purpose: arrays in messages. What stands before their data, every byte of it; reading that, checked, from whatever a peer
//   has written; a view of a received array with shape and strides; room for one to be sent.
// Threads: as the message, or the outlet, behind it.
// Lifetime: an Array, and a view, point into the message: they must not outlive it.
// Ordering: none.
//
// The data begins 48 bytes into the payload, or whole lines later. A payload starts 16 bytes into a line, so the data is aligned to
// a line. docs/protocol.md, "Arrays", has the tables.
#pragma once

#include <array>
#include <bit>
#include <complex>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>

#include "tachyon/error.hpp"
#include "tachyon/port/inlet.hpp"
#include "tachyon/port/outlet.hpp"

namespace tachyon {

inline constexpr std::uint32_t kArrayMagic = 0x59415241;  // "ARAY", read as one number on a little-endian machine
inline constexpr std::uint8_t kArrayVersion = 1;
inline constexpr std::size_t kMostDimensions = 8;
inline constexpr std::size_t kMostArrayDescription = 1 << 16;  // bytes
inline constexpr std::size_t kArrayAlignment = 64;

// DLPack's codes; the 8-bit floats (7 … 14) and whatever comes later are passed on as they are.
enum class ArrayCode : std::uint8_t {
    integer = 0,
    natural = 1,  // without a sign
    floating = 2,
    bfloat = 4,
    complex = 5,
    boolean = 6,
    described = 255,  // not DLPack's: a text says what it is, such as a structure or a date
};

// ---- every byte that stands before the data --------------------------------------------------------------------------------

struct ArrayHeader {
    std::uint32_t magic;
    std::uint8_t version;
    std::uint8_t dimensions;
    std::uint8_t code;
    std::uint8_t bits;    // of an item; 0 if it is described
    std::uint16_t lanes;  // 1
    std::uint16_t flags;
    std::uint16_t more_lines;  // of 64 bytes, between this and the data: none, or ArrayExtension and a description
    std::uint16_t reserved;    // 0
    std::int64_t shape[4];
};
inline constexpr std::uint16_t kColumnMajor = 1;  // the first index runs fastest (Fortran's order), not the last
inline constexpr std::uint16_t kSwapped = 2;      // items in the other byte order than this machine's

// Of arrays with more than four dimensions, or a description.
struct ArrayExtension {
    std::int64_t shape[4];
    std::uint64_t item_bytes;         // of a described item; else 0
    std::uint32_t description_bytes;  // of the text in the lines behind this
    std::uint32_t reserved[5];        // 0
};

static_assert(sizeof(ArrayHeader) == 48 && std::is_trivially_copyable_v<ArrayHeader>);
static_assert(offsetof(ArrayHeader, magic) == 0 && offsetof(ArrayHeader, version) == 4);
static_assert(offsetof(ArrayHeader, dimensions) == 5 && offsetof(ArrayHeader, code) == 6);
static_assert(offsetof(ArrayHeader, bits) == 7 && offsetof(ArrayHeader, lanes) == 8);
static_assert(offsetof(ArrayHeader, flags) == 10 && offsetof(ArrayHeader, more_lines) == 12);
static_assert(offsetof(ArrayHeader, reserved) == 14 && offsetof(ArrayHeader, shape) == 16);
static_assert(sizeof(ArrayExtension) == 64 && std::is_trivially_copyable_v<ArrayExtension>);
static_assert(offsetof(ArrayExtension, shape) == 0 && offsetof(ArrayExtension, item_bytes) == 32);
static_assert(offsetof(ArrayExtension, description_bytes) == 40 && offsetof(ArrayExtension, reserved) == 44);
static_assert((kFrameHeader + sizeof(ArrayHeader)) % kArrayAlignment == 0, "data begins on a line");
static_assert(sizeof(ArrayExtension) == kLine);

// ---- what an array is --------------------------------------------------------------------------------------------------

// A header, in a form to work with. What read_array() returns has been checked, and is a private copy, but for data and
// description: they are where the peer wrote them.
struct Array {
    ArrayCode code = ArrayCode::natural;
    std::uint8_t bits = 8;
    bool column_major = false;
    bool swapped = false;
    std::size_t dimensions = 0;
    std::array<std::int64_t, kMostDimensions> shape{};
    std::uint64_t item_bytes = 1;
    std::string_view description{};  // of an item; empty unless code says `described`
    std::span<const std::byte> data{};

    [[nodiscard]] bool described() const noexcept { return code == ArrayCode::described; }
    // Of how many items it is; none where that, or how many bytes they are, is no number.
    [[nodiscard]] std::optional<std::uint64_t> items() const noexcept {
        // The other dimensions have to make sense beside one of 0 as well: hosts multiply them.
        std::uint64_t product = 1, bytes = item_bytes;
        bool empty = false;
        for (std::size_t i = 0; i < dimensions; ++i) {
            empty = empty || shape[i] == 0;
            // A negative one is more than INT64_MAX here.
            const std::uint64_t factor = shape[i] == 0 ? 1 : static_cast<std::uint64_t>(shape[i]);
            if (__builtin_mul_overflow(product, factor, &product) || __builtin_mul_overflow(bytes, factor, &bytes) ||
                bytes > std::uint64_t{INT64_MAX})
                return {};
        }
        return empty ? 0 : product;
    }
    // Bytes from an item to the next, by dimension.
    [[nodiscard]] std::array<std::int64_t, kMostDimensions> strides() const noexcept {
        std::array<std::int64_t, kMostDimensions> found{};
        std::uint64_t step = item_bytes;
        for (std::size_t i = 0; i < dimensions; ++i) {
            const std::size_t k = column_major ? i : dimensions - 1 - i;
            found[k] = static_cast<std::int64_t>(step);
            step *= shape[k] == 0 ? 1 : static_cast<std::uint64_t>(shape[k]);
        }
        return found;
    }
    // Where the data begins.
    [[nodiscard]] std::uint64_t header_bytes() const noexcept {
        return sizeof(ArrayHeader) + kLine * std::uint64_t{more_lines()};
    }
    [[nodiscard]] std::uint16_t more_lines() const noexcept {
        if (dimensions <= 4 && !described()) return 0;
        return static_cast<std::uint16_t>(1 + (description.size() + kLine - 1) / kLine);
    }
};

enum class ArrayFault : std::uint8_t {
    none,
    no_array,   // the message does not begin like one
    version,    // an array of another version of this header
    corrupt,    // a header that no sender of ours writes
    size,       // the message is not as long as shape and type say
    type,       // of array_view<T>: items of another type than T, or in the other byte order
    alignment,  // of array_view<T>: the data is not aligned for T; a payload of a ring always is
    status,     // there is no message: look at its status
};

[[nodiscard]] constexpr const char* text_of(ArrayFault fault) noexcept {
    switch (fault) {
        case ArrayFault::none: return "an array";
        case ArrayFault::no_array: return "no array: it does not begin with an array's header";
        case ArrayFault::version: return "an array of another version of tachyon";
        case ArrayFault::corrupt: return "a corrupt array: its header contradicts itself";
        case ArrayFault::size: return "a corrupt array: it is not as long as its shape and type say";
        case ArrayFault::type: return "an array of another type";
        case ArrayFault::alignment: return "an array whose data is not aligned";
        case ArrayFault::status: return "no message";
    }
    return "an unknown fault";
}

// ---- reading ---------------------------------------------------------------------------------------------------------------

// What a payload holds: `found` is written only where it is an array. Nothing outside the payload is read, and each byte of the
// header once, so that a peer who writes on changes nothing that has been checked.
[[nodiscard]] inline ArrayFault read_array(std::span<const std::byte> payload, Array& found) noexcept {
    ArrayHeader header;
    if (payload.size() < sizeof header) return ArrayFault::no_array;
    std::memcpy(&header, payload.data(), sizeof header);
    if (header.magic != kArrayMagic) return ArrayFault::no_array;
    if (header.version != kArrayVersion) return ArrayFault::version;

    Array array;
    array.code = static_cast<ArrayCode>(header.code);
    array.bits = header.bits;
    array.column_major = (header.flags & kColumnMajor) != 0;
    array.swapped = (header.flags & kSwapped) != 0;
    array.dimensions = header.dimensions;
    const bool opaque = header.code == 3;  // a pointer, in DLPack
    if (header.dimensions > kMostDimensions || header.lanes != 1 || header.reserved != 0 || opaque ||
        (header.flags & ~(kColumnMajor | kSwapped)) != 0)
        return ArrayFault::corrupt;
    if (array.described() ? header.bits != 0 : header.bits == 0 || header.bits % 8 != 0) return ArrayFault::corrupt;
    array.item_bytes = header.bits / 8u;
    for (std::size_t i = 0; i < 4; ++i) array.shape[i] = header.shape[i];

    const bool extended = header.dimensions > 4 || array.described();
    if (extended != (header.more_lines != 0)) return ArrayFault::corrupt;
    const std::uint64_t before_data = sizeof header + kLine * std::uint64_t{header.more_lines};
    if (before_data > payload.size()) return ArrayFault::size;
    if (extended) {
        ArrayExtension extension;
        std::memcpy(&extension, payload.data() + sizeof header, sizeof extension);
        for (std::size_t i = 0; i < 4; ++i) array.shape[4 + i] = extension.shape[i];
        for (const std::uint32_t each : extension.reserved) {
            if (each != 0) return ArrayFault::corrupt;
        }
        const bool described = extension.item_bytes != 0 && extension.description_bytes != 0;
        const bool plain = extension.item_bytes == 0 && extension.description_bytes == 0;
        if (array.described() ? !described : !plain) return ArrayFault::corrupt;
        if (extension.description_bytes > kMostArrayDescription || extension.item_bytes > std::uint64_t{INT64_MAX})
            return ArrayFault::corrupt;
        if (array.described()) {
            array.item_bytes = extension.item_bytes;
            array.description = {reinterpret_cast<const char*>(payload.data() + sizeof header + sizeof extension),
                                 extension.description_bytes};
        }
        if (array.more_lines() != header.more_lines) return ArrayFault::corrupt;
    }
    for (std::size_t i = array.dimensions; i < kMostDimensions; ++i) {
        if (array.shape[i] != 0) return ArrayFault::corrupt;
    }
    const std::optional<std::uint64_t> items = array.items();
    if (!items) return ArrayFault::corrupt;
    if (*items * array.item_bytes != payload.size() - before_data) return ArrayFault::size;
    array.data = payload.subspan(before_data);
    found = array;
    return ArrayFault::none;
}

// ---- writing -----------------------------------------------------------------------------------------------------------------

// Writes header_bytes() of what stands before the data. The array has to make sense: read_array says so of what this writes.
inline void write_array_header(std::uint8_t* to, const Array& array) noexcept {
    ArrayHeader header{};
    header.magic = kArrayMagic;
    header.version = kArrayVersion;
    header.dimensions = static_cast<std::uint8_t>(array.dimensions);
    header.code = static_cast<std::uint8_t>(array.code);
    header.bits = array.described() ? std::uint8_t{0} : array.bits;
    header.lanes = 1;
    header.flags = static_cast<std::uint16_t>((array.column_major ? kColumnMajor : 0) | (array.swapped ? kSwapped : 0));
    header.more_lines = array.more_lines();
    for (std::size_t i = 0; i < 4; ++i) header.shape[i] = array.shape[i];
    std::memcpy(to, &header, sizeof header);
    if (header.more_lines == 0) return;
    ArrayExtension extension{};
    for (std::size_t i = 0; i < 4; ++i) extension.shape[i] = array.shape[4 + i];
    extension.item_bytes = array.described() ? array.item_bytes : 0;
    extension.description_bytes = static_cast<std::uint32_t>(array.description.size());
    std::uint8_t* const behind = to + sizeof header;
    std::memset(behind, 0, kLine * std::size_t{header.more_lines});
    std::memcpy(behind, &extension, sizeof extension);
    if (array.described())  // else there is no text to point to
        std::memcpy(behind + sizeof extension, array.description.data(), array.description.size());
}

// ---- items of a type ---------------------------------------------------------------------------------------------------------

namespace detail {

template <class T>
inline constexpr bool is_complex = false;
template <class T>
inline constexpr bool is_complex<std::complex<T>> = true;

// How a T is called here. A type of the user's own is described, and only its size is compared.
template <class T>
[[nodiscard]] consteval ArrayCode code_of() noexcept {
    static_assert(!std::same_as<T, bool>, "take std::uint8_t: what a peer wrote need not be 0 or 1");
    static_assert(std::is_trivially_copyable_v<T>);
    if constexpr (std::floating_point<T>) return ArrayCode::floating;
    if constexpr (is_complex<T>) return sizeof(T) <= 16 ? ArrayCode::complex : ArrayCode::described;  // bits is a byte
    if constexpr (std::integral<T> || std::same_as<T, std::byte>)
        return std::is_signed_v<T> ? ArrayCode::integer : ArrayCode::natural;
    return ArrayCode::described;
}

template <class T>
[[nodiscard]] bool has_items_of(const Array& array) noexcept {
    constexpr ArrayCode code = code_of<T>();
    if (array.item_bytes != sizeof(T) || (array.swapped && sizeof(T) > 1)) return false;
    const bool truth = array.code == ArrayCode::boolean && code == ArrayCode::natural && sizeof(T) == 1;
    return array.code == code || truth;
}

// Items behind a pointer, by as many indices as there are dimensions.
template <class T>
class Strided {
  public:
    Strided() noexcept = default;
    Strided(const Array& array, T* data) noexcept
        : data_(data),
          dimensions_(array.dimensions),
          size_(array.items().value_or(0)),
          shape_(array.shape),
          strides_(array.strides()) {
        for (auto& each : strides_) each /= static_cast<std::int64_t>(sizeof(T));
    }
    [[nodiscard]] std::span<const std::int64_t> shape() const noexcept { return {shape_.data(), dimensions_}; }
    [[nodiscard]] std::span<const std::int64_t> strides() const noexcept { return {strides_.data(), dimensions_}; }
    [[nodiscard]] std::size_t size() const noexcept { return static_cast<std::size_t>(size_); }
    // As they lie there, without a gap.
    [[nodiscard]] std::span<T> items() const noexcept { return {data_, size()}; }
    // As many indices as dimensions, each within its bounds: nothing looks.
    template <std::integral... Index>
    [[nodiscard]] T& operator()(Index... index) const noexcept {
        std::int64_t at = 0;
        std::size_t k = 0;
        ((at += static_cast<std::int64_t>(index) * strides_[k++]), ...);
        return data_[at];
    }

  private:
    T* data_ = nullptr;
    std::size_t dimensions_ = 0;
    std::uint64_t size_ = 0;
    std::array<std::int64_t, kMostDimensions> shape_{};
    std::array<std::int64_t, kMostDimensions> strides_{};  // in items
};

}  // namespace detail

// A received array of T in place: shape, strides in items, and the items. False where there is none; fault() says why.
//
//     const auto message = bus->recv(50ms);
//     if (const tachyon::array_view<float> a(message); a) sum(a.items());
template <class T>
class array_view : public detail::Strided<const T> {
  public:
    explicit array_view(std::span<const std::byte> payload) noexcept {
        Array array;
        fault_ = read_array(payload, array);
        if (fault_ != ArrayFault::none) return;
        if (!detail::has_items_of<T>(array)) {
            fault_ = ArrayFault::type;
        } else if (reinterpret_cast<std::uintptr_t>(array.data.data()) % alignof(T) != 0) {
            fault_ = ArrayFault::alignment;
        } else {
            detail::Strided<const T>::operator=({array, reinterpret_cast<const T*>(array.data.data())});
            description_ = array.description;
        }
    }
    explicit array_view(const Message& message) noexcept : array_view(message.data()) {
        if (!message) fault_ = ArrayFault::status;
    }
    explicit array_view(const Frame& frame) noexcept
        : array_view(std::span(reinterpret_cast<const std::byte*>(frame.payload), frame.size)) {}
    explicit array_view(Message&& message) = delete;  // it would be released while the view is used

    [[nodiscard]] explicit operator bool() const noexcept { return fault_ == ArrayFault::none; }
    [[nodiscard]] ArrayFault fault() const noexcept { return fault_; }
    // What the sender says of an item of a type of its own: JSON, where the sender is Python. In the message: copy it, then look.
    [[nodiscard]] std::string_view description() const noexcept { return description_; }

  private:
    ArrayFault fault_;
    std::string_view description_{};
};

// Room for an array of T, to be written in place; then commit it. What is not committed is given back. False where there is none;
// status() says why: too_large also where shape is impossible, or has more than eight dimensions.
//
//     if (tachyon::array_claim<float> a(*bus, {480, 640}); a) { a(0, 0) = 1; (void)a.commit(); }
template <class T>
class array_claim : public detail::Strided<T> {
  public:
    // A type of one's own needs a description that the receiver understands: for Python, JSON as docs/protocol.md has it.
    array_claim(Outlet& outlet, std::span<const std::int64_t> shape, const Waiting& waiting = {},
                std::string_view description = {})
        : array_claim(outlet, described(shape, description), waiting) {}
    array_claim(Outlet& outlet, std::initializer_list<std::int64_t> shape, const Waiting& waiting = {},
                std::string_view description = {})
        : array_claim(outlet, std::span(shape.begin(), shape.size()), waiting, description) {}

    [[nodiscard]] explicit operator bool() const noexcept { return static_cast<bool>(claim_); }
    [[nodiscard]] Status status() const noexcept { return claim_.status(); }
    [[nodiscard]] Status commit(std::uint32_t type_id = 0) { return claim_.commit(type_id); }

  private:
    static std::optional<Array> described(std::span<const std::int64_t> shape, std::string_view description) noexcept {
        Array array;
        array.code = detail::code_of<T>();
        array.bits = array.described() ? std::uint8_t{0} : static_cast<std::uint8_t>(8 * sizeof(T));
        array.item_bytes = sizeof(T);
        array.description = description;
        array.dimensions = shape.size();
        if (shape.size() > kMostDimensions || array.described() == description.empty() ||
            description.size() > kMostArrayDescription)
            return {};
        for (std::size_t i = 0; i < shape.size(); ++i) array.shape[i] = shape[i];
        return array.items() ? std::optional(array) : std::nullopt;
    }
    array_claim(Outlet& outlet, const std::optional<Array>& array, const Waiting& waiting)
        : claim_(array ? outlet.claim(array->header_bytes() + *array->items() * sizeof(T), waiting)
                       : Claim(nullptr, Status::too_large, nullptr, 0)) {
        if (!claim_) return;
        auto* const payload = reinterpret_cast<std::uint8_t*>(claim_.data().data());
        write_array_header(payload, *array);
        detail::Strided<T>::operator=({*array, reinterpret_cast<T*>(payload + array->header_bytes())});
    }

    Claim claim_;
};

}  // namespace tachyon
