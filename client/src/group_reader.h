#pragma once
/// A group consumer behind its handle: the user's side. It reads, through one plain consumer for each topic, what its membership was told, and stores offsets.
///
/// Places   `next` of a partition is what the user gets next; `stored` what the broker was told last. A plain consumer is made anew, at `next`, when the
///          partitions of its topic change: nothing twice, nothing skipped.
/// Batches  of each topic at most one is being fetched, and one is being given out.
/// Thread   any: calls wait for each other, and close() wakes who waits in next().
#include <deque>

#include "src/group_member.h"
#include "src/subscription.h"

namespace tailrace::inline v1::detail {

class GroupReader {
 public:
  GroupReader(std::shared_ptr<ClientCore> client, std::string group, std::vector<std::string> topics, GroupOptions options);
  ~GroupReader();
  GroupReader(const GroupReader&) = delete;
  GroupReader& operator=(const GroupReader&) = delete;

  Result<std::optional<Message>> next(Milliseconds wait);
  Result<std::vector<Message>> next_batch(std::size_t max, Milliseconds wait);
  Result<void> commit();
  Result<void> commit(std::span<const Position> offsets);
  Result<void> seek(std::optional<TopicPartition> which, const From& to);
  Result<void> set_paused(std::span<const Position> partitions, bool paused);
  [[nodiscard]] std::vector<Position> assignment() const;
  [[nodiscard]] std::string member_id() const { return membership_->view().member; }
  [[nodiscard]] bool caught_up() const;
  Result<void> close(Milliseconds deadline);  // any thread
  [[nodiscard]] bool commits_after_processing() const { return options_.commit == CommitMode::after_processing; }

 private:
  struct Place {
    std::optional<std::int64_t> next{};    // none: as `start` says, and nothing was given yet
    std::int64_t processed = -1;           // behind what the user has done with
    std::int64_t stored = -1;
    From start{};
    bool paused = false;
  };
  struct Reader {
    std::optional<Consumer> consumer{};
    std::optional<Task<std::vector<Message>>> fetching{};
  };
  /// What the loop's and the callbacks' side wake.
  struct Bell {
    std::mutex mutex{};
    std::condition_variable changed{};
    bool rung = false;
    bool closed = false;
    void ring() {
      std::lock_guard lock{mutex};
      rung = true;
      changed.notify_all();
    }
  };

  /// Takes over what the membership was told. Errors: fatal ones.
  Result<void> look();
  Result<void> drop_all(bool store);
  Result<void> give_up(const std::set<TopicPartition>& gone);
  Result<void> take_on(const std::set<TopicPartition>& fresh, OutOfRange out_of_range);
  Result<void> read_topic(const std::string& topic, OutOfRange out_of_range);
  void drop_messages(const std::string& topic, const std::set<TopicPartition>& of);
  /// A message, nothing, or an error of a partition.
  Result<std::optional<Message>> take();
  void processed_all();
  void commit_in_background();
  [[nodiscard]] std::vector<Position> unstored() const;
  Result<void> store(std::vector<Position> offsets, TimePoint deadline);
  [[nodiscard]] Task<void> send_commit(const std::vector<Position>& offsets, const GroupMembership::View& view);
  void note_stored(const std::vector<Position>& offsets);
  [[nodiscard]] std::vector<Position> positions_of(const std::set<TopicPartition>& which, bool stored) const;

  mutable std::recursive_timed_mutex inside_{};  // calls wait for each other; a user's callback may call in
  std::shared_ptr<ClientCore> client_;
  const std::string group_;
  const GroupOptions options_;
  std::shared_ptr<Bell> bell_;
  std::shared_ptr<GroupMembership> membership_;

  std::uint64_t life_ = 0;
  OutOfRange out_of_range_{};
  std::map<TopicPartition, Place> places_{};
  std::map<std::string, Reader> readers_{};
  std::deque<Message> here_{};
  std::size_t turn_ = 0;  // which topic is looked at first
  std::optional<std::pair<std::vector<Position>, Task<void>>> committing_{};
  TimePoint commit_at_{};
};

}  // namespace tailrace::inline v1::detail
