#include "tests/crash/scene.h"

#include <fmt/core.h>

namespace tailrace::broker::crash {

Scene::Scene(std::uint64_t seed, Setup setup) : setup_{setup}, seeds_{seed} { begin({}); }

void Scene::begin(const sim::DiskImage& image) {
  life_ = std::make_unique<Life>(seeds_.next(), image, setup_, oracle_);
  if (!life_->start()) {
    violation(fmt::format("the node does not start: {} {}", static_cast<int>(life_->error().code), life_->error().detail));
    return;
  }
  life_->disk().on_start = [this](sim::DiskOp op, const std::string& path, std::uint64_t position, Bytes bytes) {
    bool frames = is_wal(path) && position >= limits::kWalBlock && position + bytes.size() <= setup_.wal_file_bytes - limits::kWalBlock;
    if (frames && op == sim::DiskOp::write_durable) wal_writes_.push_back({path, position, bytes.size()});
  };
}

void Scene::create(int partitions) {
  for (int i = 0; i < partitions && running(); ++i) {
    if (!life_->create(partition_number(i))) violation(fmt::format("partition {} cannot be created", i));
  }
}

void Scene::append(PartitionId id, Shape shape) {
  if (!running()) return;
  if (!life_->append(id, shape)) violation(fmt::format("{}: an append was not acknowledged", name_of(id)));
}

void Scene::append(PartitionId id, int batches, Shape shape) {
  for (int i = 0; i < batches && !failed(); ++i) append(id, shape);
}

void Scene::recycle(PartitionId filler, std::uint64_t times) {
  if (!running()) return;
  std::uint64_t aim = life_->log().stats().wal_recycles + times;
  for (int i = 0; i < 2'000 && !failed(); ++i) {
    if (life_->log().stats().wal_recycles >= aim) return;
    if (!life_->append_later(filler, {.records = 1, .value_bytes = 3'000})) life_->loop().run_for(20ms);
    if (i % 4 == 3) (void)life_->settle();
  }
  violation("the WAL is never recycled");
}

bool Scene::until_wal_writes(std::size_t count) {
  return life_->loop().run_until(
      [&] {
        std::size_t found = 0;
        for (const auto& write : life_->disk().writes_in_flight()) found += is_wal(write.write.path) ? 1 : 0;
        return found >= count;
      },
      1s);
}

void Scene::quiet() {
  if (!running()) return;
  (void)life_->settle();
  life_->loop().run_for(200ms);
}

Recovered Scene::judge(const sim::DiskImage& image, const std::string& what, const Expectation& expectation) {
  Recovered recovered;
  ++judged_;
  auto found = judge_image(image, setup_, oracle_, seeds_.next(), expectation, &recovered);
  for (auto& text : found) {
    if (violations_.size() < 10) violations_.push_back(what + ": " + text);
  }
  return recovered;
}

void Scene::power_cut(const sim::CrashPlan& plan) {
  if (running()) restart(life_->power_cut(plan));
}

void Scene::kill() {
  if (running()) restart(life_->kill());
}

void Scene::restart(const sim::DiskImage& image, const Expectation& expectation) {
  life_.reset();
  begin(image);
  if (running()) (void)life_->verify(expectation);
}

std::vector<std::string> Scene::finish() {
  life_.reset();
  std::vector<std::string> out = violations_;
  out.insert(out.end(), oracle_.violations.begin(), oracle_.violations.end());
  return out;
}

}  // namespace tailrace::broker::crash
