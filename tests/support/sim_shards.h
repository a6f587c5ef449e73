#pragma once
/// The shards of one simulated broker on one loop.
#include <deque>
#include <memory>
#include <vector>

#include "shard/shards.h"
#include "tests/support/sim_runtime.h"

namespace tailrace::broker::sim {

class SimShards {
 public:
  SimShards(SimLoop& loop, std::uint32_t count) {
    std::vector<shard::Endpoint> endpoints;
    for (std::uint32_t i = 0; i < count; ++i) {
      mail_.emplace_back(loop);
      endpoints.push_back({mail_.back().inbox, loop});
    }
    shards_ = std::make_unique<shard::Shards>(std::move(endpoints));
  }
  [[nodiscard]] shard::Shards& shards() { return *shards_; }

 private:
  /// Delivers a shard's mail on the common loop.
  class Mail final : public shard::Wake, private Runnable {
   public:
    explicit Mail(Executor& executor) : executor_{executor} {
      run = [](Runnable* self) noexcept { static_cast<Mail*>(self)->turn(); };
      (void)inbox.may_sleep();
    }
    void wake() noexcept override { executor_.post(*this); }
    shard::Inbox inbox{*this};

   private:
    void turn() noexcept {
      inbox.deliver();
      if (!inbox.may_sleep()) executor_.post(*this);
    }
    Executor& executor_;
  };
  std::deque<Mail> mail_;
  std::unique_ptr<shard::Shards> shards_;
};

}  // namespace tailrace::broker::sim
