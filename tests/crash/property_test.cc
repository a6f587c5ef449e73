/// Recovery against a model, with RapidCheck to shrink a failure to its few commands.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "tests/crash/life.h"
#include "tests/support/history_checker.h"

namespace tailrace::broker::crash {
namespace {

struct Command {
  enum class Kind { append, append_producer, settle, wait, start, hard_state, truncate, cut, kill } kind{};
  int partition = 0;
  std::uint32_t size = 0;
};

[[maybe_unused]] std::ostream& operator<<(std::ostream& out, const Command& command) {
  static constexpr const char* kNames[] = {"append", "append as producer", "settle", "wait", "move log start", "hard state", "truncate", "power cut", "kill"};
  return out << kNames[static_cast<int>(command.kind)] << " p" << command.partition << " " << command.size;
}

rc::Gen<Command> arbitrary_command() {
  return rc::gen::build<Command>(
      rc::gen::set(&Command::kind, rc::gen::weightedElement<Command::Kind>({{10, Command::Kind::append}, {8, Command::Kind::append_producer},
                                                                            {4, Command::Kind::settle}, {3, Command::Kind::wait}, {1, Command::Kind::start},
                                                                            {1, Command::Kind::hard_state}, {1, Command::Kind::truncate},
                                                                            {1, Command::Kind::cut}, {1, Command::Kind::kill}})),
      rc::gen::set(&Command::partition, rc::gen::inRange(0, 3)), rc::gen::set(&Command::size, rc::gen::inRange<std::uint32_t>(8, 6'000)));
}

/// Runs the commands, ends with a power cut, and answers what the oracle found.
std::vector<std::string> run(const std::vector<Command>& commands, std::uint64_t seed) {
  Setup setup;
  setup.wal_files = 2;
  setup.segment_bytes_max = 8 * limits::kKiB;
  Oracle oracle;
  Random seeds{seed};
  auto life = std::make_unique<Life>(seeds.next(), sim::DiskImage{}, setup, oracle);
  auto begin = [&] {
    if (!life->start()) {
      oracle.violation("the node does not start: " + life->error().detail);
      return false;
    }
    return true;
  };
  if (!begin()) return oracle.violations;
  for (int i = 0; i < 3; ++i) (void)life->create(partition_number(i));
  for (const Command& command : commands) {
    if (!oracle.violations.empty()) return oracle.violations;
    PartitionId id = partition_number(command.partition);
    auto partition = life->open(id);
    if (!partition) break;
    switch (command.kind) {
      case Command::Kind::append: (void)life->append_later(id, {.records = 2, .value_bytes = command.size}); break;
      case Command::Kind::append_producer: (void)life->append_later(id, {.records = 1, .value_bytes = command.size, .producer = ProducerId{100}}); break;
      case Command::Kind::settle: (void)life->settle(); break;
      case Command::Kind::wait: life->loop().run_for(Duration{std::chrono::microseconds{command.size * 400}}); break;
      case Command::Kind::start: life->advance_start_later(id, partition->high_watermark()); break;
      case Command::Kind::hard_state: life->hard_state_later(id, partition->term() + 1, NodeId{1}); break;
      case Command::Kind::truncate: {
        if (!life->settle()) break;
        auto& po = oracle.partition(id);
        Log log = po.asked();
        if (log.empty() || log.back()->base() < po.start_asked) break;
        life->truncate_later(id, log.back()->base());
        (void)life->settle();  // replication does nothing else with a log that it truncates
        break;
      }
      case Command::Kind::cut:
      case Command::Kind::kill: {
        partition.reset();  // it goes with its life
        sim::DiskImage image = command.kind == Command::Kind::cut ? life->power_cut(sim::CrashPlan::seeded(seeds.next())) : life->kill();
        life = std::make_unique<Life>(seeds.next(), image, setup, oracle);
        if (!begin()) return oracle.violations;
        (void)life->verify({});
        break;
      }
    }
  }
  sim::DiskImage image = life->power_cut(sim::CrashPlan::seeded(seeds.next()));
  if (oracle.violations.empty()) recover_and_verify(image, setup, oracle, seeds.next(), {.check_twice = true});
  if (oracle.violations.empty()) {
    history::Verdict verdict = history::check(oracle.history, {.skip_keys = oracle.unjudged});
    if (verdict.fatal() > 0) oracle.violation(verdict.summary());
  }
  return oracle.violations;
}

// A producer whose newest batch was truncated, after its older ones fell below the log start, goes on where it was before.
TEST(WalRecovery, AProducerIsKnownThroughLogStartAndTruncation) {
  using enum Command::Kind;
  std::vector<Command> commands{{append_producer, 1, 428}, {append_producer, 1, 3'528}, {wait, 0, 8}, {cut}, {start, 1}, {append_producer, 1, 4027},
                                {truncate, 1}, {cut}, {append_producer, 1, 8}};
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    auto found = run(commands, seed);
    ASSERT_TRUE(found.empty()) << "seed " << seed << ": " << found[0];
  }
}

// Whatever is asked in whatever order, and wherever the power fails: what is found is a prefix of what was asked that holds
// all that was acknowledged.
RC_GTEST_PROP(WalRecovery, AgreesWithTheModel, ()) {
  auto commands = *rc::gen::container<std::vector<Command>>(arbitrary_command());
  auto seed = *rc::gen::inRange<std::uint64_t>(0, 1'000'000);
  auto found = run(commands, seed);
  if (!found.empty()) RC_LOG() << found[0] << "\n";
  RC_ASSERT(found.empty());
}

}  // namespace
}  // namespace tailrace::broker::crash
