#pragma once
/// The index of streams as a map, for tests and simulation: what it answers is right by looking at it.
#include <map>

#include "base/planted.h"
#include "stream/index.h"

namespace tailrace::broker::stream {

class MapIndex final : public StreamIndex {
 public:
  Task<Result<Offset>> reached() override { co_return reached_; }
  Task<Result<Head>> head(std::string stream) override {
    auto found = heads_.find(stream);
    co_return found == heads_.end() ? Head{} : found->second;
  }
  Task<Result<std::vector<Place>>> places(std::string stream, Version from, bool backwards, std::size_t max) override {
    std::vector<Place> out;
    auto found = places_.find(stream);
    if (found == places_.end()) co_return out;
    const std::map<Version, Place>& all = found->second;
    if (!backwards) {
      for (auto at = all.begin(); at != all.end() && out.size() < max; ++at) {
        if (at->second.first + at->second.count > from) out.push_back(at->second);
      }
    } else {
      for (auto at = all.rbegin(); at != all.rend() && out.size() < max; ++at) {
        if (at->second.first <= from) out.push_back(at->second);
      }
    }
    co_return out;
  }
  Task<Result<std::vector<Listed>>> list(std::string prefix, std::string after, std::size_t max) override {
    std::vector<Listed> out;
    for (const auto& [stream, head] : heads_) {
      if (out.size() == max) break;
      if (stream.starts_with(prefix) && (after.empty() || stream > after)) out.push_back({stream, head});
    }
    co_return out;
  }
  Task<Result<void>> apply(std::vector<Ledger::Update> updates, Offset reached) override {
    for (const Ledger::Update& update : updates) {
      heads_[update.entry.stream] = update.head;
      if (update.entry.kind == Entry::Kind::events) places_[update.entry.stream][update.first_version] = {update.first_version, update.entry.count, update.entry.base};
    }
    reached_ = reached;
    co_return Result<void>{};
  }
  Task<Result<void>> clear() override {
    heads_.clear();
    places_.clear();
    reached_ = Offset{0};
    co_return Result<void>{};
  }

 private:
  std::map<std::string, Head> heads_{};
  std::map<std::string, std::map<Version, Place>> places_{};
  Offset reached_{0};
};

}  // namespace tailrace::broker::stream
