#pragma once
/// Clients of the simulated cluster: idempotent producers that resend until they are answered, readers that follow a partition, and
/// somebody who asks for its end. What they did and saw goes into a history.
///
/// A client knows no more than its answers: it asks any node, goes on elsewhere when that one does not lead, and after a while without an
/// answer. Calls to a node that died are never answered.
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/sim/whole/node.h"
#include "tests/support/history.h"

namespace tailrace::broker::sim::whole {

/// What clients need of the world.
struct ClientContext {
  std::function<Instant()> now;
  std::function<Node*(int node)> serving;  // null: it does not answer
  std::function<void(std::string)> violate;
  std::function<bool(int node)> rotten;  // bits of its disk were flipped: it may say that data is damaged
  int nodes = 1;
  TopicId topic{};
  std::string topic_name;
  history::History& history;
  Random random;
};

/// One call that is under way. The node's coroutine fills it in, unless it died.
template <class T>
struct Call {
  int node = 0;
  Instant begun{};
  bool answered = false;
  service::Answer<T> answer{};
};

class Producer {
 public:
  Producer(ClientContext& context, std::uint32_t process, std::int32_t partition);
  /// `more`: may begin a new batch.
  void tick(bool more);
  [[nodiscard]] bool idle() const { return !pending_; }
  [[nodiscard]] std::uint64_t acknowledged() const { return acknowledged_; }
  [[nodiscard]] std::uint64_t duplicates() const { return duplicates_; }

 private:
  struct Pending {
    std::vector<history::Value> values;
    std::size_t event;
    std::shared_ptr<Call<service::ProduceReply>> call;
    Instant patience;
  };
  void begin();
  void attempt();
  void take_answer();

  ClientContext& context_;
  std::uint32_t process_;
  std::int32_t partition_;
  std::uint32_t key_;
  int node_ = 0;
  std::int32_t sequence_ = 0;
  std::uint64_t counter_ = 0;
  std::optional<Pending> pending_{};
  std::uint64_t acknowledged_ = 0, duplicates_ = 0;
};

class Reader {
 public:
  Reader(ClientContext& context, std::uint32_t process, std::int32_t partition);
  void tick();
  [[nodiscard]] std::uint64_t polls() const { return polls_; }
  /// Reads of the drain at the end: from the start on.
  void begin_final();
  [[nodiscard]] bool at_end(Offset end) const { return position_ >= end; }

 private:
  void take_answer();

  ClientContext& context_;
  std::uint32_t process_;
  std::int32_t partition_;
  std::uint32_t key_;
  int node_ = 0;
  Offset position_{};
  bool final_ = false;
  std::shared_ptr<Call<service::FetchReply>> call_{};
  std::uint64_t polls_ = 0;
};

/// Asks where a partition ends; the answer must not lie below what was acknowledged before it asked.
class Surveyor {
 public:
  Surveyor(ClientContext& context, std::uint32_t process, std::int32_t partition);
  void tick();
  [[nodiscard]] std::uint64_t answers() const { return answers_; }

 private:
  ClientContext& context_;
  std::uint32_t process_;
  std::int32_t partition_;
  std::uint32_t key_;
  int node_ = 0;
  std::shared_ptr<Call<std::vector<service::Answer<service::ListedOffset>>>> call_{};
  std::uint64_t answers_ = 0;
};

[[nodiscard]] std::string key_name(std::int32_t partition);

}  // namespace tailrace::broker::sim::whole
