#include "cluster/metadata_state.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "base/random.h"

namespace tailrace::broker::cluster {
namespace {

TopicId id_of(std::uint32_t n) {
  TopicId id;
  id.bytes[0] = 0xee;
  std::memcpy(id.bytes.data() + 8, &n, sizeof n);
  return id;
}
Result<void> put(MetadataState& state, const Command& command) { return state.apply(encode(command)); }
CreateTopic create(std::uint32_t n, std::string name, std::int32_t partitions = 1, TopicSettings settings = {}) {
  return {.id = id_of(n), .name = std::move(name), .partitions = partitions, .settings = std::move(settings)};
}

// Whoever has read a create finds the topic under its name and its id, with the configuration it asked for.
TEST(MetadataState, ACreatedTopicIsFoundByNameAndId) {
  MetadataState state{{}};
  ASSERT_TRUE(put(state, create(1, "orders", 12, {{TopicKey::retention_time, "7d"}})));
  TopicPointer topic = state.catalog()->find("orders");
  ASSERT_TRUE(topic);
  EXPECT_EQ(state.catalog()->find(id_of(1)), topic);
  EXPECT_EQ(topic->partitions, 12);
  EXPECT_EQ(topic->config.retention_time, std::chrono::hours{24 * 7});
  EXPECT_FALSE(topic->is_default(TopicKey::retention_time));
  EXPECT_TRUE(topic->is_default(TopicKey::durability));
  EXPECT_TRUE(state.catalog()->find("__metadata")->internal);
  state.check_invariants();
}

// Metric names cannot tell '.' from '_', so two topics that differ only there would share their figures.
TEST(MetadataState, NamesThatClashAreRefused) {
  MetadataState state{{}};
  ASSERT_TRUE(put(state, create(1, "a.b")));
  EXPECT_EQ(put(state, create(2, "a.b")).error().code, Errc::topic_exists);
  EXPECT_EQ(put(state, create(2, "a_b")).error().code, Errc::topic_exists);
  EXPECT_EQ(put(state, create(2, "../x")).error().code, Errc::invalid_topic_name);
  EXPECT_EQ(put(state, create(1, "other")).error().code, Errc::invalid_argument);  // an id is used once
  EXPECT_EQ(put(state, create(2, "none", 0)).error().code, Errc::invalid_argument);
  EXPECT_EQ(put(state, create(2, "many", limits::kPartitionsPerTopicMax + 1)).error().code, Errc::invalid_argument);
  ASSERT_TRUE(put(state, DeleteTopic{.id = id_of(1)}));
  EXPECT_TRUE(put(state, create(2, "a_b")));  // the name is free again, also while files are still being removed
  EXPECT_EQ(put(state, create(1, "again")).error().code, Errc::invalid_argument);
  state.check_invariants();
}

// What the broker keeps about a topic is about that topic: it grows with it, goes with it, and another topic of its name finds nothing.
TEST(MetadataState, WhatStandsBesideATopicGrowsAndGoesWithIt) {
  MetadataState state{{}};
  std::string longest(limits::kTopicNameMax, 'n');
  ASSERT_TRUE(put(state, create(1, longest, 2)));
  ASSERT_TRUE(put(state, create(2, "__queue." + longest, 2)));
  ASSERT_TRUE(put(state, create(3, "__snapshots." + longest, 2)));
  ASSERT_TRUE(put(state, create(4, "__offsets", 4)));
  EXPECT_EQ(put(state, create(5, "__queue." + longest + std::string(20, 'n'))).error().code, Errc::invalid_topic_name);
  EXPECT_TRUE(state.catalog()->find("__offsets")->internal);
  EXPECT_EQ(state.catalog()->beside(longest).size(), 2U);
  EXPECT_EQ(put(state, DeleteTopic{.id = id_of(4)}).error().code, Errc::unauthorized);
  EXPECT_EQ(put(state, AlterTopic{.id = id_of(2), .partitions = 9}).error().code, Errc::unauthorized);

  ASSERT_TRUE(put(state, AlterTopic{.id = id_of(1), .partitions = 5}));
  EXPECT_EQ(state.catalog()->find(id_of(2))->partitions, 5);
  EXPECT_EQ(state.catalog()->find(id_of(3))->partitions, 5);
  EXPECT_EQ(state.partitions_total(), 5 + 5 + 5 + 4);

  MetadataState copy{{}};
  for (const Command& command : state.snapshot()) ASSERT_TRUE(put(copy, command));
  EXPECT_EQ(copy.encoded(), state.encoded());
  EXPECT_TRUE(copy.catalog()->find("__offsets")->internal);
  copy.check_invariants();

  ASSERT_TRUE(put(state, DeleteTopic{.id = id_of(1)}));
  EXPECT_EQ(state.removing().size(), 3U);
  EXPECT_FALSE(state.catalog()->find("__queue." + longest));
  EXPECT_TRUE(state.catalog()->find("__offsets"));
  EXPECT_EQ(state.partitions_total(), 4);
  state.check_invariants();
}

// Partitions hold keyed records: taking one away would lose data, so the number only grows.
TEST(MetadataState, PartitionsGrowAndNeverShrink) {
  MetadataState state{{}};
  ASSERT_TRUE(put(state, create(1, "t", 4)));
  EXPECT_EQ(put(state, AlterTopic{.id = id_of(1), .partitions = 3}).error().code, Errc::invalid_argument);
  ASSERT_TRUE(put(state, AlterTopic{.id = id_of(1), .partitions = 8}));
  EXPECT_EQ(state.catalog()->find("t")->partitions, 8);
  EXPECT_EQ(state.partitions_total(), 8);
  state.check_invariants();
}

// An alter is one decision: when a part of it is wrong, no part of it may have happened.
TEST(MetadataState, AnAlterIsAllOrNothing) {
  MetadataState state{{}};
  ASSERT_TRUE(put(state, create(1, "t", 4, {{TopicKey::durability, "leader"}, {TopicKey::segment_bytes_max, "64KiB"}})));
  auto before = state.encoded();
  EXPECT_FALSE(put(state, AlterTopic{.id = id_of(1), .partitions = 8, .set = {{TopicKey::message_bytes_max, "1MiB"}}}));
  EXPECT_FALSE(put(state, AlterTopic{.id = id_of(1), .set = {{TopicKey::durability, "quorum"}}, .unset = {TopicKey::durability}}));
  EXPECT_EQ(state.encoded(), before);
  ASSERT_TRUE(put(state, AlterTopic{.id = id_of(1), .set = {{TopicKey::message_bytes_max, "1MiB"}}, .unset = {TopicKey::segment_bytes_max}}));
  EXPECT_TRUE(state.catalog()->find("t")->is_default(TopicKey::segment_bytes_max));
}

// A catalog that was handed out belongs to other threads: later commands must not change it.
TEST(MetadataState, APublishedCatalogDoesNotChange) {
  MetadataState state{{}};
  ASSERT_TRUE(put(state, create(1, "t", 1)));
  auto seen = state.catalog();
  ASSERT_TRUE(put(state, AlterTopic{.id = id_of(1), .partitions = 5}));
  ASSERT_TRUE(put(state, DeleteTopic{.id = id_of(1)}));
  EXPECT_EQ(seen->find("t")->partitions, 1);
  EXPECT_FALSE(state.catalog()->find("t"));
  EXPECT_GT(state.catalog()->version, seen->version);
}

// Between the delete and the end of its clean-up a restart must know what is left to remove.
TEST(MetadataState, ADeletedTopicIsRememberedUntilItsFilesAreGone) {
  MetadataState state{{}};
  ASSERT_TRUE(put(state, create(1, "t", 3)));
  EXPECT_EQ(put(state, TopicRemoved{.id = id_of(1)}).error().code, Errc::no_such_topic);
  ASSERT_TRUE(put(state, DeleteTopic{.id = id_of(1)}));
  ASSERT_TRUE(state.removing().contains(id_of(1)));
  EXPECT_EQ(state.removing().at(id_of(1)).partitions, 3);
  ASSERT_TRUE(put(state, TopicRemoved{.id = id_of(1)}));
  EXPECT_TRUE(state.removing().empty());
  EXPECT_EQ(put(state, DeleteTopic{.id = kMetadataTopicId}).error().code, Errc::unauthorized);
}

// Two producers with one id would take each other's batches for duplicates: blocks never overlap.
TEST(MetadataState, ProducerIdBlocksDoNotOverlap) {
  MetadataState state{{}};
  ASSERT_TRUE(put(state, AllocateProducerIds{.node = NodeId{1}, .first = 0, .count = 1'000}));
  EXPECT_FALSE(put(state, AllocateProducerIds{.node = NodeId{2}, .first = 0, .count = 1'000}));
  EXPECT_FALSE(put(state, AllocateProducerIds{.node = NodeId{2}, .first = 999, .count = 10}));
  EXPECT_FALSE(put(state, AllocateProducerIds{.node = NodeId{2}, .first = 1'000, .count = 0}));
  ASSERT_TRUE(put(state, AllocateProducerIds{.node = NodeId{2}, .first = 1'000, .count = 500}));
  EXPECT_EQ(state.next_producer_id(), 1'500);
}

// The operator may change a default at any time; a topic that was valid yesterday must still be there after the restart.
TEST(MetadataState, OtherDefaultsNeverLoseATopic) {
  auto command = encode(create(1, "t", 1, {{TopicKey::message_bytes_max, "8MiB"}}));
  TopicConfig small;
  small.segment_bytes_max = 16 * 1024;
  small.message_bytes_max = 16 * 1024;
  MetadataState state{small};
  ASSERT_TRUE(state.apply(command));
  EXPECT_EQ(state.catalog()->find("t")->config.message_bytes_max, 8u << 20);
}

/// A run of random commands, valid and invalid, as several proposers would write them.
std::vector<Command> random_commands(std::uint64_t seed, std::size_t count) {
  Random random{seed};
  std::vector<Command> commands;
  std::int64_t next_id = 0;
  for (std::size_t i = 0; i < count; ++i) {
    auto n = static_cast<std::uint32_t>(random.below(12));
    switch (random.below(6)) {
      case 0:
      case 1: commands.emplace_back(create(n, fmt::format("t{}{}", random.chance(1, 2) ? "." : "_", random.below(10)), static_cast<std::int32_t>(random.below(5)))); break;
      case 2: commands.emplace_back(AlterTopic{.id = id_of(n), .partitions = static_cast<std::int32_t>(random.below(9)), .set = {{TopicKey::retention_time, "1h"}}}); break;
      case 3: commands.emplace_back(DeleteTopic{.id = id_of(n)}); break;
      case 4: commands.emplace_back(TopicRemoved{.id = id_of(n)}); break;
      default:
        commands.emplace_back(AllocateProducerIds{.node = NodeId{1}, .first = next_id, .count = 10});
        if (random.chance(2, 3)) next_id += 10;
    }
  }
  return commands;
}

// Applying is a pure function of the log: every node, and every restart, arrives at the same state, refused commands included.
TEST(MetadataState, TheSameLogGivesTheSameState) {
  rc::check([](std::uint64_t seed) {
    MetadataState one{{}}, two{{}};
    for (const Command& command : random_commands(seed, 200)) {
      bool proposed = one.check(command).has_value();
      auto first = put(one, command);
      auto second = put(two, command);
      RC_ASSERT(first.has_value() == second.has_value());
      RC_ASSERT(first.has_value() == proposed);  // what is checked is what is applied
      one.check_invariants();
    }
    RC_ASSERT(one.encoded() == two.encoded());
  });
}

// The log before a snapshot is thrown away: what is left must lead to the same state, whoever reads it and whatever they had.
TEST(MetadataState, ASnapshotReplacesTheLogBeforeIt) {
  rc::check([](std::uint64_t seed) {
    MetadataState state{{}}, fresh{{}}, other{{}};
    for (const Command& command : random_commands(seed, 100)) (void)put(state, command);
    for (const Command& command : random_commands(seed + 1, 20)) (void)put(other, command);
    for (const Command& command : state.snapshot()) {
      RC_ASSERT(put(fresh, command).has_value());
      RC_ASSERT(put(other, command).has_value());
    }
    RC_ASSERT(fresh.encoded() == state.encoded());
    RC_ASSERT(other.encoded() == state.encoded());
    RC_ASSERT(fresh.commands_since_snapshot() == 0u);
    fresh.check_invariants();
    for (const Command& command : random_commands(seed + 2, 50)) RC_ASSERT(put(fresh, command).has_value() == put(state, command).has_value());
    RC_ASSERT(fresh.encoded() == state.encoded());
  });
}

// A crash between the parts leaves a piece of a snapshot in the log; what follows goes on from the state before it.
TEST(MetadataState, AnIncompleteSnapshotIsForgotten) {
  MetadataState state{{}};
  for (std::uint32_t i = 0; i < 500; ++i) ASSERT_TRUE(put(state, create(i, fmt::format("topic-{}", i), 2)));
  auto before = state.encoded();
  auto snapshot = state.snapshot();
  ASSERT_GT(snapshot.size(), 2u);
  ASSERT_TRUE(put(state, snapshot[0]));
  ASSERT_TRUE(put(state, snapshot[1]));
  ASSERT_TRUE(put(state, AllocateProducerIds{.node = NodeId{1}, .first = 0, .count = 1}));
  EXPECT_EQ(put(state, snapshot[2]).error().code, Errc::invalid_argument);  // its beginning is forgotten
  EXPECT_EQ(state.catalog()->by_id.size(), 501u);
  EXPECT_EQ(state.next_producer_id(), 1);
  EXPECT_NE(state.encoded(), before);
}

// Rot inside a snapshot must stop the start instead of becoming topics that nobody created.
TEST(MetadataState, ADamagedSnapshotIsRefused) {
  MetadataState state{{}};
  ASSERT_TRUE(put(state, create(1, "t", 2)));
  auto snapshot = state.snapshot();
  std::get<SnapshotPart>(snapshot[1]).bytes[20] ^= std::byte{1};
  MetadataState fresh{{}};
  ASSERT_TRUE(put(fresh, snapshot[0]));
  auto applied = put(fresh, snapshot[1]);
  ASSERT_FALSE(applied);
  EXPECT_TRUE(MetadataState::is_fatal(applied.error()));
  EXPECT_EQ(fresh.catalog()->by_id.size(), 1u);
}

}  // namespace
}  // namespace tailrace::broker::cluster
