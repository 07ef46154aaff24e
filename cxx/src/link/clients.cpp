#include "clients.hpp"

#include <algorithm>
#include <utility>

#include "platform/sockets.hpp"

namespace tachyon {

Client::~Client() {
    if (connection.socket() < 0) return;  // let in, or another process's
    // A forked child may hold this socket open: by its closing alone neither the queue nor the client would learn of it.
    events.remove(connection.socket());
    connection.shut_down();
    // It may keep the segments; the memory would be ours for as long.
    for (const Segment& segment : segments) segment.discard_from(arrangement.kept);
}

void Clients::drop(const Client& client) noexcept {
    std::erase_if(all_, [&](const auto& each) { return each.get() == &client; });
}

void Clients::drop_late() noexcept {
    const std::uint64_t now = now_ns();
    std::erase_if(all_, [now](const auto& each) { return each->deadline <= now; });
}

std::uint64_t Clients::next_deadline(std::uint64_t now, bool accepting) const noexcept {
    std::uint64_t next = kNever;
    const std::uint64_t time = kGrace + time_to_map_;
    const bool wanted = next_to_offer() != nullptr;
    for (const auto& client : all_) {
        next = std::min(next, client->deadline);
        // What is past by now was so at the last look too, unless it is past by less than this round has taken.
        const std::uint64_t evictable = client->accepted + kGrace;
        if (client->silent() && all_.size() > kMostSilent) next = std::min(next, evictable);
        if (!accepting && evictable > now) next = std::min(next, evictable);
        if (wanted && client->offered + time > now) next = std::min(next, client->offered + time);
    }
    return next;
}

// ---- places ----------------------------------------------------------------------------------------------------------------

std::size_t Clients::places_of(pid_t process) const noexcept {
    return static_cast<std::size_t>(
        std::ranges::count_if(all_, [process](const auto& each) { return each->process == process; }));
}

// Of the process that holds most places, a client that has had `time` ns: the oldest silent one, of which there is nothing
// that has not been read yet; or else the newest one that waits for an offer. A process's only client may wait.
const Client* Clients::find_victim(Victims victims, std::uint64_t time) const noexcept {
    const std::uint64_t now = now_ns();
    const Client* victim = nullptr;
    std::size_t most = 0;
    for (const auto& each : all_) {
        if (each->has_offer() || now - each->accepted < time) continue;
        const std::size_t places = places_of(each->process);
        if (!each->silent() && (victims == Victims::silent || places == 1)) continue;
        if (places < most || (victim != nullptr && places == most && victim->silent())) continue;
        if (each->silent() && is_readable(each->connection.socket())) continue;
        victim = each.get();
        most = places;
    }
    return victim;
}

bool Clients::evict(Victims victims, std::uint64_t time) noexcept {
    const Client* const victim = find_victim(victims, time);
    if (victim != nullptr) drop(*victim);
    return victim != nullptr;
}

// ---- offers ----------------------------------------------------------------------------------------------------------------

std::size_t Clients::offers_to(pid_t process) const noexcept {
    return static_cast<std::size_t>(std::ranges::count_if(
        all_, [process](const auto& each) { return each->process == process && each->has_offer(); }));
}

// Of those that wait the first one of the process with the fewest offers.
Client* Clients::next_to_offer() const noexcept {
    Client* next = nullptr;
    std::size_t fewest = once_ ? 1 : kMostOffersToOne;
    for (const auto& each : all_) {
        if (each->state != Client::State::greeted) continue;
        const std::size_t offers = offers_to(each->process);
        if (offers >= fewest) continue;
        next = each.get();
        fewest = offers;
    }
    return next;
}

// Of the process with most offers, and with so many at least, the oldest one that could have been taken by now.
const Client* Clients::find_stalled(std::size_t offers, std::uint64_t now) const noexcept {
    const std::uint64_t time = kGrace + time_to_map_;
    const Client* stalled = nullptr;
    for (const auto& each : all_) {
        if (!each->has_offer() || each->offered + time > now) continue;
        const std::size_t its = offers_to(each->process);
        if (its < offers || (stalled != nullptr && its == offers)) continue;
        stalled = each.get();
        offers = its;
    }
    return stalled;
}

// Who wants only one client offers to a second one, of another process, when the first one stalls: the first to take it is let in.
bool Clients::make_room_for_offer(const Client& client, std::uint64_t now) noexcept {
    const auto offers = std::ranges::count_if(all_, [](const auto& each) { return each->has_offer(); });
    if (once_) return offers == 0 || (offers == 1 && find_stalled(1, now) != nullptr);
    if (std::cmp_less(offers, kMostOffers)) return true;
    const Client* const stalled = find_stalled(offers_to(client.process) + 2, now);
    if (stalled != nullptr) drop(*stalled);
    return stalled != nullptr;
}

bool Clients::make_memory_for_offer(const Client& client, std::uint64_t now) noexcept {
    const Client* const stalled = find_stalled(offers_to(client.process) + 1, now);
    if (stalled != nullptr) drop(*stalled);
    return stalled != nullptr;
}

}  // namespace tachyon
