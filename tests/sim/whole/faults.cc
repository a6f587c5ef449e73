// What a seed can do to the cluster.
#include "tests/sim/whole/cluster.h"

namespace tailrace::broker::sim::whole {

void World::draw_faults() {
  if (draw(FaultClass::kill)) die(any(), Death::kill);
  if (draw(FaultClass::power_cut)) {
    if (faults_.chance(1, 5)) {
      for (int i = 0; i < count(); ++i) die(i, Death::power_cut);  // all at once
    } else {
      die(any(), Death::power_cut);
    }
  }
  if (draw(FaultClass::stop)) die(any(), Death::stop);
  if (draw(FaultClass::pause)) node(any()).paused = true;
  for (auto& node : nodes_) {
    if (node->paused && faults_.chance(1, 100)) node->paused = false;
  }
  if (draw(FaultClass::isolate)) network_.isolate(any());
  if (draw(FaultClass::cut_link)) {
    int from = any(), to = any();
    network_.cut(from, to);
  }
  if (faults_.chance(1, 150)) network_.heal();
  if (draw(FaultClass::slow_disk)) {
    if (Node& n = node(any()); n.up()) n.machine().disk.set_latency(1ms, 40ms);
  }
  if (draw(FaultClass::failed_write)) {
    constexpr std::array kOps{DiskOp::write, DiskOp::write_durable, DiskOp::sync, DiskOp::sync_directory, DiskOp::make_directory, DiskOp::allocate};
    DiskOp op = kOps[faults_.below(kOps.size())];
    std::uint64_t after = faults_.below(5);
    if (Node& n = node(any()); n.serving()) n.machine().disk.inject({.op = op, .path_part = {}, .after = after, .to_path = {}});
  }
  if (draw(FaultClass::stalled_disk)) {
    constexpr std::array kOps{DiskOp::read, DiskOp::write, DiskOp::write_durable, DiskOp::sync, DiskOp::sync_directory};
    DiskOp op = kOps[faults_.below(kOps.size())];
    auto stall = std::chrono::milliseconds{100 + faults_.below(5'000)};
    if (Node& n = node(any()); n.serving()) n.machine().disk.inject({.op = op, .path_part = {}, .effect = Fault::Effect::stall, .stall = stall, .to_path = {}});
  }
  if (draw(FaultClass::disk_full)) {
    if (Node& n = node(any()); n.serving()) n.machine().disk.set_capacity(n.machine().disk.used_bytes() + 8 * limits::kKiB);
  }
  for (auto& node : nodes_) {
    if (node->up() && faults_.chance(1, 200)) ease(*node);
  }
  if (draw(FaultClass::wall_jump)) {
    auto by = std::chrono::minutes{static_cast<std::int64_t>(faults_.below(120)) - 60};
    if (Node& n = node(any()); n.up()) n.machine().loop.jump_wall(by);
  }
  if (draw(FaultClass::transfer)) transfer();
  if (draw(FaultClass::log_start)) advance_log_start();
  if (draw(FaultClass::replace)) replace(any());
  if (draw(FaultClass::rot)) rot(any());
  if (rotten_ >= 0 && faults_.chance(1, 400)) repair();
}

void World::ease(Node& node) {
  node.machine().disk.set_capacity(std::uint64_t{1} << 40);
  node.machine().disk.set_latency(20us, 300us);
}

void World::die(int i, Death how) {
  Node& n = node(i);
  if (!n.up()) return;
  if (how == Death::power_cut && rotten_ >= 0 && rotten_ != i) how = Death::kill;  // one disk at a time
  count_lost_life(n);
  switch (how) {
    case Death::kill: n.kill(); break;
    case Death::stop:
      n.machine().loop.move_to(n.local_time(now_));
      n.stop();
      break;
    case Death::power_cut: {
      std::uint64_t seed = disks_.next();
      n.power_cut(faults_.chance(1, 3) ? CrashPlan::lose_all() : CrashPlan::seeded(seed));
      break;
    }
  }
  if (!n.stuck().empty()) violate(n.stuck());
  hosting_.erase(i);
}

void World::replace(int i) {
  if (count() < 3 || rotten_ >= 0 || !members_settled()) return;
  begin_anew(i);
}

void World::begin_anew(int i) {
  die(i, Death::kill);
  (void)node(i).take_image();
  DiskImage empty;
  empty.directories.insert("/data");
  joined_.erase(i);
  hosting_.erase(i);
  boot(i, std::move(empty));
  ++out_.coverage.replaced;
}

/// Bits of one node's files flip while it is down: of its logs, its segments, its checkpoints. The others hold all that is committed, so
/// nothing may be lost; what it reads itself may be answered with `corrupt`, and it may refuse to start.
void World::rot(int i) {
  if (count() < 3 || rotten_ >= 0 || !members_settled()) return;
  die(i, faults_.chance(1, 2) ? Death::kill : Death::power_cut);
  DiskImage image = node(i).take_image();
  std::vector<std::string> paths;
  for (std::string& path : image.paths()) {
    if (image.file(path).size() > 0 && !path.ends_with(".toml")) paths.push_back(std::move(path));
  }
  for (std::uint64_t flips = 1 + disks_.below(3); flips > 0 && !paths.empty(); --flips) {
    const std::string& path = paths[disks_.below(paths.size())];
    // Files are mostly room for later; what is written stands in front.
    std::uint64_t size = image.file(path).size();
    std::uint64_t within = disks_.chance(1, 2) ? std::min<std::uint64_t>(size, 24 * limits::kKiB) : size;
    image.flip_bit(path, disks_.below(within), static_cast<int>(disks_.below(8)));
  }
  rotten_ = i;
  ++out_.coverage.rotten;
  boot(i, std::move(image));
}

/// An operator gives the node another disk.
void World::repair() {
  begin_anew(std::exchange(rotten_, -1));
}

void World::transfer() {
  std::int32_t p = static_cast<std::int32_t>(faults_.below(static_cast<std::uint64_t>(plan_.partitions)));
  int to = any();
  Node* leader = leader_of(p);
  if (!leader || !node(to).serving()) return;
  struct Ask {
    static Task<void> run(Node* node, TopicId topic, std::int32_t p, raft::ReplicaId to) { (void)co_await node->service().transfer(topic, PartitionIndex{p}, to); }
  };
  leader->spawn(Ask::run(leader, clients_.topic, p, node(to).id()));
  ++out_.coverage.transfers;
}

void World::advance_log_start() {
  std::int32_t p = static_cast<std::int32_t>(faults_.below(static_cast<std::uint64_t>(plan_.partitions)));
  Node* leader = leader_of(p);
  if (!leader) return;
  const log::Partition& log = *leader->replica(partition(p))->log();
  auto span = static_cast<std::uint64_t>((log.high_watermark() - log.log_start()));
  Offset to = log.log_start() + static_cast<std::int64_t>(faults_.below(span + 1));
  struct Ask {
    static Task<void> run(World* world, Node* node, std::int32_t p, Offset to) {
      std::uint64_t life = node->life();
      auto done = co_await node->service().delete_records({.topic = std::string{kTopic}, .before = {{PartitionIndex{p}, to}}});
      if (node->up() && node->life() == life && done) ++world->out_.coverage.log_starts;
    }
  };
  leader->spawn(Ask::run(this, leader, p, to));
}

}  // namespace tailrace::broker::sim::whole
