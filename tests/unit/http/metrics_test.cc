#include "http/metrics.h"

#include <gtest/gtest.h>

#include <set>
#include <sstream>

namespace tailrace::broker::http {
namespace {

NodeMetrics two_shards() {
  NodeMetrics node;
  node.version = "1.2.3";
  node.shards.resize(2);
  for (std::uint32_t i = 0; i < 2; ++i) {
    ShardMetrics& shard = node.shards[i];
    shard.status.shard = ShardIndex{i};
    shard.status.partitions_owned = 3;
    service::TopicCounters orders;
    orders.name = "orders";
    orders.records_in = 10 + i;
    shard.status.topics.push_back(orders);
    shard.status.log.commit_latency.buckets[5] = 1;   // 32-64 us
    shard.status.log.commit_latency.buckets[7] = 2;   // 128-256 us
    shard.status.log.commit_latency.buckets[30] = 1;  // minutes
    shard.status.log.commit_latency.count = 4;
    shard.status.log.commit_latency.sum_us = 1'000'000;
    shard.io.backend = "io_uring";
    ListenerMetrics native;
    native.protocol = "native";
    native.connections_open = 5;
    ApiMetrics publish;
    publish.api = "publish";
    publish.ok = 7;
    publish.refused[Errc::too_large] = 2;
    native.apis.push_back(publish);
    shard.listeners.push_back(native);
  }
  return node;
}

TEST(Metrics, FiguresOfAllShardsAreAddedUp) {
  std::string text = render_metrics(two_shards());
  for (std::string_view line : {"tailrace_build_info{version=\"1.2.3\"} 1\n", "tailrace_produce_records_total{topic=\"orders\"} 21\n",
                                "tailrace_partitions 6\n", "tailrace_connections{listener=\"native\"} 10\n",
                                "tailrace_requests_total{api=\"publish\",protocol=\"native\",code=\"ok\"} 14\n",
                                "tailrace_requests_total{api=\"publish\",protocol=\"native\",code=\"too_large\"} 4\n",
                                "tailrace_produce_errors_total{code=\"too_large\"} 4\n", "tailrace_io_backend{shard=\"1\",name=\"io_uring\"} 1\n"}) {
    EXPECT_NE(text.find(line), std::string::npos) << line;
  }
}

// Lag as ready gauges: to join offsets in a query was seen to be too hard for people.
TEST(Metrics, GroupsShowHowFarBehindTheyAre) {
  NodeMetrics node = two_shards();
  node.shards[1].status.groups = {{.group = "billing", .topic = "audit", .state = service::GroupState::stable, .members = 2, .generation = 7, .lag_records = 0, .behind_ms = 0, .last_commit_ms = 1'500},
                                  {.group = "billing", .topic = "orders", .state = service::GroupState::stable, .members = 2, .generation = 7, .lag_records = 42, .behind_ms = 2'500, .last_commit_ms = 0}};
  std::string text = render_metrics(node);
  for (std::string_view line : {"tailrace_group_lag_records{group=\"billing\",topic=\"orders\"} 42\n", "tailrace_group_lag_seconds{group=\"billing\",topic=\"orders\"} 2.5\n",
                                "tailrace_group_last_commit_timestamp_seconds{group=\"billing\",topic=\"audit\"} 1.5\n", "tailrace_group_state{group=\"billing\",state=\"stable\"} 1\n",
                                "tailrace_group_figures_left_out 0\n"}) {
    EXPECT_NE(text.find(line), std::string::npos) << line;
  }
  std::size_t at = text.find("tailrace_group_members{group=\"billing\"} 2\n");
  ASSERT_NE(at, std::string::npos);
  EXPECT_EQ(text.find("tailrace_group_members{", at + 1), std::string::npos) << "a group is told once";
}

// A scraper refuses a page whose buckets fall, or whose +Inf is not the count.
TEST(Metrics, HistogramsAreCumulativeAndInSeconds) {
  std::string text = render_metrics(two_shards());
  for (std::string_view line : {"tailrace_fsync_seconds_count{what=\"wal\"} 8\n", "tailrace_fsync_seconds_sum{what=\"wal\"} 2\n",
                                "tailrace_fsync_seconds_bucket{what=\"wal\",le=\"0.000128\"} 2\n", "tailrace_fsync_seconds_bucket{what=\"wal\",le=\"0.000256\"} 6\n",
                                "tailrace_fsync_seconds_bucket{what=\"wal\",le=\"16.777216\"} 6\n", "tailrace_fsync_seconds_bucket{what=\"wal\",le=\"+Inf\"} 8\n"}) {
    EXPECT_NE(text.find(line), std::string::npos) << line << text.substr(text.find("tailrace_fsync_seconds"), 2'000);
  }
}

// One HELP and one TYPE for each name, and every sample under its own name: the text format's rules.
TEST(Metrics, EachNameIsDeclaredOnce) {
  std::stringstream text{render_metrics(two_shards())};
  std::set<std::string> declared;
  for (std::string line; std::getline(text, line);) {
    if (!line.starts_with("# TYPE ")) continue;
    EXPECT_TRUE(declared.insert(line.substr(7, line.find(' ', 7) - 7)).second) << line;
  }
  EXPECT_GT(declared.size(), 50u);
}

TEST(Metrics, TopicNamesAreEscapedAndAnEmptyNodeIsAPageToo) {
  NodeMetrics node = two_shards();
  node.shards[0].status.topics[0].name = "a\"b\\c\n";
  EXPECT_NE(render_metrics(node).find("topic=\"a\\\"b\\\\c\\n\""), std::string::npos);
  EXPECT_NE(render_metrics(NodeMetrics{}).find("tailrace_shards 0\n"), std::string::npos);
}

}  // namespace
}  // namespace tailrace::broker::http
