// Purpose: the clients of a listener on their way through the handshake, and who of them makes room for whom. Private to it.
// Threads: one at a time. Lifetime: a client's connection and memory go with it, unless they have been moved out.
// Ordering: none.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "greeting.hpp"
#include "tachyon/link/event_queue.hpp"
#include "tachyon/link/handshake.hpp"
#include "tachyon/shm/segment.hpp"

namespace tachyon {

constexpr std::size_t kMostClients = 128;             // that may be in the handshake at once
constexpr std::size_t kMostSilent = 64;               // of them all, before silent ones make room
constexpr std::uint64_t kGrace = 100 * kMillisecond;  // that a client has before others may take its place
constexpr std::size_t kMostOffers = 8;                // that may hold segments which are not yet theirs
constexpr std::size_t kMostOffersToOne = 6;           // of them, to one process

// One client on its way through the handshake.
struct Client {
    enum class State { greeting, greeted, offered };

    Client(EventQueue& watched_by, const Arrangement& its_arrangement, Connection&& its_connection)
        : events(watched_by),
          arrangement(its_arrangement),
          connection(std::move(its_connection)),
          process(connection.peer_pid()) {}
    Client(const Client&) = delete;
    Client& operator=(const Client&) = delete;
    ~Client();

    [[nodiscard]] bool silent() const noexcept { return state == State::greeting; }
    [[nodiscard]] bool has_offer() const noexcept { return state == State::offered; }

    EventQueue& events;
    const Arrangement& arrangement;
    Connection connection;
    const pid_t process;
    HelloReader reader{0, arrangement.max_schema};  // a client has no descriptors to pass
    const std::uint64_t accepted = now_ns();
    std::uint64_t deadline = accepted + kPatience;
    State state = State::greeting;
    std::uint64_t offered = 0;      // when
    std::vector<Segment> segments;  // once they have been offered; never offered to another one
};

class Clients {
  public:
    // Of a listener for one, or for many; the time that a client is given to map what it is offered.
    Clients(bool once, std::uint64_t time_to_map) : once_(once), time_to_map_(time_to_map) {}

    [[nodiscard]] std::size_t size() const noexcept { return all_.size(); }
    [[nodiscard]] Client& operator[](std::size_t index) noexcept { return *all_[index]; }
    void add(std::unique_ptr<Client> client) { all_.push_back(std::move(client)); }
    void drop(const Client& client) noexcept;
    void drop_late() noexcept;
    void drop_all() noexcept { all_.clear(); }

    enum class Victims : bool { silent, any };
    // Somebody would have to go, who has had so many ns.
    [[nodiscard]] bool has_victim(Victims victims, std::uint64_t time) const noexcept {
        return find_victim(victims, time) != nullptr;
    }
    bool evict(Victims victims, std::uint64_t time) noexcept;

    // Whose turn it is to get an offer, or null. `now`: when this round began.
    [[nodiscard]] Client* next_to_offer() const noexcept;
    [[nodiscard]] bool make_room_for_offer(const Client& client, std::uint64_t now) noexcept;
    // Gives one up whose memory may do for this one.
    bool make_memory_for_offer(const Client& client, std::uint64_t now) noexcept;

    // When there will be something to do, though nobody says anything.
    [[nodiscard]] std::uint64_t next_deadline(std::uint64_t now, bool accepting) const noexcept;

  private:
    [[nodiscard]] std::size_t places_of(pid_t process) const noexcept;
    [[nodiscard]] const Client* find_victim(Victims victims, std::uint64_t time) const noexcept;
    [[nodiscard]] std::size_t offers_to(pid_t process) const noexcept;
    [[nodiscard]] const Client* find_stalled(std::size_t offers, std::uint64_t now) const noexcept;

    const bool once_;
    const std::uint64_t time_to_map_;
    std::vector<std::unique_ptr<Client>> all_;  // oldest first
};

}  // namespace tachyon
