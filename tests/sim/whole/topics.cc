// A topic that comes and goes while the others are used: every node hears of it as from a controller, writes go to whoever takes them, and
// when it is deleted no node keeps a file of it.
#include "codec/batch_builder.h"
#include "codec/validate.h"
#include "tests/sim/whole/cluster.h"

namespace tailrace::broker::sim::whole {
namespace {

constexpr std::string_view kPassing = "passing";

}  // namespace

void World::manage_topics() {
  if (!passing_) {
    bool all = std::ranges::all_of(nodes_, [](const auto& n) { return n->serving(); });
    if (healed_ || !all || !draw(FaultClass::topics)) return;
    passing_ = Passing{};
    for (std::uint8_t& byte : passing_->id.bytes) byte = static_cast<std::uint8_t>(faults_.below(256));
    for (auto& node : nodes_) passing_->voters.push_back(node->id());
    passing_->until = now_ + std::chrono::milliseconds{200 + faults_.below(4'000)};
  }
  bool deleting = healed_ || now_ >= passing_->until;
  bool gone = deleting;
  for (auto& node : nodes_) {
    if (!node->serving() || passing_->busy.contains({node->index(), node->life()})) {
      gone = false;
      continue;
    }
    bool has = node->service().catalog()->find(kPassing) != nullptr;
    gone = gone && !has;
    if (has == deleting && !node->paused) tell_of_passing(*node, deleting);
    if (has && !deleting && faults_.chance(1, 8)) write_to_passing(*node);
  }
  if (!gone) return;
  ++out_.coverage.topics;
  gone_.push_back(passing_->id);
  passing_.reset();
}

void World::tell_of_passing(Node& node, bool to_delete) {
  struct Tell {
    static Task<void> run(World* world, Node* node, std::uint64_t life, bool to_delete, TopicId topic, std::vector<raft::ReplicaId> voters) {
      if (to_delete) {
        (void)co_await node->service().delete_topic(std::string{kPassing}, false);
      } else {
        service::CreateTopicRequest request{.name = std::string{kPassing}, .partitions = 2};
        request.config = {{"segment_bytes_max", world->segment_bytes_}};
        request.id = topic;
        request.voters = std::move(voters);
        (void)co_await node->service().create_topic(std::move(request));
      }
      if (world->passing_) world->passing_->busy.erase({node->index(), life});
    }
  };
  passing_->busy.insert({node.index(), node.life()});
  node.spawn(Tell::run(this, &node, node.life(), to_delete, passing_->id, passing_->voters));
}

void World::write_to_passing(Node& node) {
  codec::BatchBuilder builder{{}};
  std::string text(faults_.between(1, 2'000), 'p');
  if (!builder.add({.timestamp = 1'000, .value = as_bytes(text)})) return;
  auto batch = builder.finish({});
  auto header = batch ? codec::validate_batch(batch->bytes(), {}) : std::unexpected(Error{Errc::internal, "no batch"});
  if (!header) return violate("a batch of ours is refused: " + header.error().detail);
  struct Write {
    static Task<void> run(Node* node, service::ProduceRequest request) { (void)co_await node->service().produce(std::move(request)); }
  };
  auto partition = PartitionIndex{static_cast<std::int32_t>(faults_.below(2))};
  node.spawn(Write::run(&node, {.topic = passing_->id, .partition = partition, .batch = *batch, .header = *header}));
}

/// Files go behind the answer, one after the other, and wait for what is still being written to them.
void World::check_gone() {
  std::string kept;
  auto gone = [&] {
    for (auto& node : nodes_) {
      sim::DiskImage image = node->machine().disk.visible_image();
      for (const TopicId& topic : gone_) {
        auto left = image.paths(topic.to_string());
        if (left.empty()) continue;
        kept = fmt::format("node {} keeps {} of a topic that was deleted", node->index(), left.front());
        return false;
      }
    }
    return true;
  };
  if (!run_until(gone, 30s)) violate(kept);
}

}  // namespace tailrace::broker::sim::whole
