/// The scripts of tests/scenario/service against a broker of two shards on simulated time and disk.
///
///   create NAME [partitions=N] [KEY=VALUE..]     alter NAME [partitions=N] [KEY=VALUE..] [unset=KEY]   delete NAME   topics
///   describe NAME                                open NAME as=P                    (a producer; P names it in the script)
///   pub NAME/PARTITION VALUE.. [as=P seq=N] [expect=END] [at=SHARD]
///   read NAME/PARTITION [from=N] [at=SHARD]      offsets NAME/PARTITION start|end|last=N|time=MS|exact=N
///   purge NAME/PARTITION before=N                restart | kill | power-cut        wait SECONDS
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/scenario/runner.h"
#include "tests/unit/service/broker_world.h"

namespace tailrace::broker::service {
namespace {

using scenario::Step;
using scenario::value_of;

class Script {
 public:
  Script() : world_{{.shards = 2, .seed = 1}} { world_.start(); }

  std::string perform(const Step& step) {
    const std::string& verb = step.words.at(0);
    if (verb == "create") return create(step);
    if (verb == "alter") return alter(step);
    if (verb == "delete") return outcome(world_.run(shard(step).delete_topic(step.words.at(1), false)), [] { return "ok"; });
    if (verb == "topics") return topics();
    if (verb == "describe") return describe(step);
    if (verb == "open") return open(step);
    if (verb == "pub") return pub(step);
    if (verb == "read") return read(step);
    if (verb == "offsets") return offsets(step);
    if (verb == "purge") return purge(step);
    if (verb == "restart") return again([&] { world_.restart(); });
    if (verb == "kill") return again([&] { world_.kill(); });
    if (verb == "power-cut") return again([&] { world_.power_cut(sim::CrashPlan::lose_all()); });
    if (verb == "wait") {
      world_.loop().run_for(std::chrono::seconds{std::stoi(step.words.at(1))});
      return "";
    }
    return "no such verb";
  }

 private:
  ShardService& shard(const Step& step) { return world_.shard(static_cast<std::uint32_t>(std::stoul(value_of(step, "at", "0")))); }
  static std::pair<std::string, std::int32_t> place(const Step& step) {
    const std::string& word = step.words.at(1);
    auto slash = word.find('/');
    return {word.substr(0, slash), slash == std::string::npos ? 0 : std::stoi(word.substr(slash + 1))};
  }
  template <class T, class F>
  static std::string outcome(const Answer<T>& answer, F ok) {
    if (answer) return ok();
    std::string text{tailrace::describe(answer.error().code).name};
    for (const Fact& fact : answer.error().facts) text += fmt::format(", {} {}", fact.name, fact.value);
    return text;
  }
  /// key=value words that are configuration.
  static std::vector<KeyValue> config_of(const Step& step) {
    std::vector<KeyValue> pairs;
    for (std::size_t i = 2; i < step.words.size(); ++i) {
      const std::string& word = step.words[i];
      auto equals = word.find('=');
      std::string key = word.substr(0, equals);
      if (equals == std::string::npos || key == "partitions" || key == "unset" || key == "at") continue;
      pairs.push_back({key, word.substr(equals + 1)});
    }
    return pairs;
  }

  std::string create(const Step& step) {
    auto topic = world_.run(shard(step).create_topic({.name = step.words.at(1), .partitions = std::stoi(value_of(step, "partitions", "1")), .config = config_of(step)}));
    return outcome(topic, [&] { return fmt::format("ok, {} partitions", (*topic)->partitions); });
  }
  std::string alter(const Step& step) {
    AlterTopicRequest request{.name = step.words.at(1), .partitions = std::stoi(value_of(step, "partitions", "0")), .set = config_of(step)};
    if (std::string key = value_of(step, "unset", ""); !key.empty()) request.unset.push_back(key);
    auto topic = world_.run(shard(step).alter_topic(std::move(request)));
    return outcome(topic, [&] { return fmt::format("ok, {} partitions", (*topic)->partitions); });
  }
  std::string topics() {
    std::string text;
    for (const auto& [name, topic] : world_.shard(1).catalog()->by_name) text += fmt::format("{} {}\n", name, topic->partitions);
    return text;
  }
  std::string describe(const Step& step) {
    auto described = world_.run(shard(step).describe_topic(step.words.at(1)));
    return outcome(described, [&] {
      std::string text;
      for (const ConfigValue& value : described->config) {
        if (!value.is_default) text += fmt::format("{} = {}\n", value.key, value.value);
      }
      for (const PartitionDescription& p : described->partitions) {
        text += fmt::format("partition {}: {} to {}\n", p.index.value(), p.log_start.value(), p.high_watermark.value());
      }
      return text;
    });
  }
  std::string open(const Step& step) {
    auto opened = world_.run(shard(step).open_producer({.topic = step.words.at(1)}));
    return outcome(opened, [&] {
      producers_[value_of(step, "as", "")] = opened->producer_id;
      return std::string{"ok"};
    });
  }
  std::string pub(const Step& step) {
    auto [name, partition] = place(step);
    auto topic = world_.topic(name);
    if (!topic) return "no_such_topic";
    std::vector<std::string> values;
    for (std::size_t i = 2; i < step.words.size(); ++i) {
      if (step.words[i].find('=') == std::string::npos) values.push_back(step.words[i]);
    }
    codec::ProducerStamp stamp;
    if (std::string who = value_of(step, "as", ""); !who.empty()) {
      stamp = {.producer_id = producers_.at(who), .producer_epoch = ProducerEpoch{0}, .base_sequence = std::stoi(value_of(step, "seq", "0"))};
    }
    ProduceRequest request = BrokerWorld::request(topic, partition, batch_of(values, stamp));
    if (std::string end = value_of(step, "expect", ""); !end.empty()) request.expected_end_offset = Offset{std::stoll(end)};
    auto reply = world_.run(shard(step).produce(std::move(request)));
    return outcome(reply, [&] { return fmt::format("offset {}{}", reply->base_offset.value(), reply->duplicate ? ", stored before" : ""); });
  }
  std::string read(const Step& step) {
    auto [name, partition] = place(step);
    auto topic = world_.topic(name);
    if (!topic) return "no_such_topic";
    std::string text;
    std::int64_t next = std::stoll(value_of(step, "from", "0"));
    for (;;) {
      Fetcher fetcher{shard(step)};
      auto reply = world_.run(fetcher.fetch({.topic = topic->id, .partition = PartitionIndex{partition}, .from = Offset{next}, .bytes_max = 1 << 20}));
      if (!reply) return text + outcome(reply, [] { return std::string{}; });
      if (reply->batches.empty()) return text;
      for (auto& [offset, value] : BrokerWorld::records_of(*reply)) {
        if (offset >= next) text += fmt::format("{} {}\n", offset, value);
      }
      next = reply->next.value();
    }
  }
  std::string offsets(const Step& step) {
    auto [name, partition] = place(step);
    const std::string& what = step.words.at(2);
    auto equals = what.find('=');
    std::string kind = what.substr(0, equals);
    Position at{.kind = kind == "start" ? Position::Kind::start : kind == "end" ? Position::Kind::end : kind == "last" ? Position::Kind::last
                        : kind == "time" ? Position::Kind::time : Position::Kind::exact,
                .value = equals == std::string::npos ? 0 : std::stoll(what.substr(equals + 1))};
    auto listed = world_.run(shard(step).list_offsets(name, {{PartitionIndex{partition}, at}}));
    if (!listed) return outcome(listed, [] { return std::string{}; });
    return outcome(listed->at(0), [&] { return fmt::format("{}", listed->at(0)->offset.value()); });
  }
  std::string purge(const Step& step) {
    auto [name, partition] = place(step);
    auto cut = world_.run(shard(step).delete_records({.topic = name, .before = {{PartitionIndex{partition}, Offset{std::stoll(value_of(step, "before", "-1"))}}}}));
    return outcome(cut, [&] { return fmt::format("begins at {}", cut->at(0).offset.value()); });
  }
  template <class F>
  std::string again(F end_of_life) {
    end_of_life();
    StartReport report = world_.start();
    return fmt::format("{}, {} topics", report.was_clean ? "after a clean stop" : "recovered", report.topics);
  }

  BrokerWorld world_;
  std::map<std::string, ProducerId> producers_;
};

class ServiceScenario : public ::testing::TestWithParam<std::string> {};

TEST_P(ServiceScenario, ReadsAsWritten) {
  Script script;
  auto talk = scenario::run_script(GetParam(), [&](const Step& step) { return script.perform(step); });
  EXPECT_EQ(talk.actual, talk.expected);
}

std::string short_name(const ::testing::TestParamInfo<std::string>& info) {
  std::string name = info.param.substr(info.param.rfind('/') + 1);
  name.resize(name.rfind('.'));
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}
INSTANTIATE_TEST_SUITE_P(Scripts, ServiceScenario, ::testing::ValuesIn(scenario::scripts_in(TAILRACE_SCENARIOS "/service")), short_name);

}  // namespace
}  // namespace tailrace::broker::service
