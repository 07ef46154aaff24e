#include "tachyon/port/outlet.hpp"

namespace tachyon {

template <class Attempt>
Status Outlet::wait_for_room(std::uint64_t size, const Waiting& waiting, Attempt attempt) {
    struct Room {
        Outlet& outlet;
        std::uint64_t size;
        Attempt& attempt;
        [[nodiscard]] bool look(std::uint64_t looks) const noexcept { return outlet.look_for_room(size, looks); }
        [[nodiscard]] std::uint64_t prepare(std::uint64_t until) const noexcept {
            return outlet.prepare_for_room(until);
        }
        [[nodiscard]] Status sleep(std::uint64_t until) const noexcept { return outlet.sleep_for_room(size, until); }
        [[nodiscard]] static bool unfinished() noexcept { return false; }
    } room{*this, size, attempt};
    return detail::persist(waiting, Status::full, room);
}

Status Outlet::send(const void* data, std::uint64_t size, std::uint32_t type_id, const Waiting& waiting) {
    if (waiting.host && is_parcel(size)) {
        return wait_for_room(size, waiting, [&] {
            return waiting.host.without([&]() noexcept { return try_send(data, size, type_id); });
        });
    }
    if (size < kLargeCopy || !waiting.host) {
        return wait_for_room(size, waiting, [&]() noexcept { return try_send(data, size, type_id); });
    }
    return send({}, {static_cast<const std::byte*>(data), size}, type_id, waiting);
}

Status Outlet::send(std::span<const std::byte> head, std::span<const std::byte> data, std::uint32_t type_id,
                    const Waiting& waiting) {
    Claim room = claim(head.size() + data.size(), waiting);  // given back should the host's lock end this thread
    if (!room) return room.status();
    std::byte* const to = room.data().data();
    const auto copy = [&] {
        if (!head.empty()) std::memcpy(to, head.data(), head.size());
        if (!data.empty()) std::memcpy(to + head.size(), data.data(), data.size());
        return true;
    };
    (void)(data.size() < kLargeCopy ? copy() : waiting.host.without(copy));
    return room.commit(type_id);
}

Status Outlet::claim(std::uint64_t size, std::uint8_t*& payload, const Waiting& waiting) {
    if (waiting.host && is_parcel(size)) {
        return wait_for_room(size, waiting,
                             [&] { return waiting.host.without([&]() noexcept { return try_claim(size, payload); }); });
    }
    return wait_for_room(size, waiting, [&]() noexcept { return try_claim(size, payload); });
}

}  // namespace tachyon
