#include "service/replicated_partition.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "base/planted.h"
#include "service/members_codec.h"
#include "service/replication.h"

namespace tailrace::broker::service {
namespace {

raft::ReplicaId replica_id(NodeId node, const std::array<std::uint8_t, 16>& directory) {
  return node.value() < 0 ? raft::kNobody : raft::ReplicaId{node, {directory}};
}

log::HardState stored(const raft::HardState& state) {
  return {.term = state.term,
          .vote_node = state.vote.node,
          .vote_directory = state.vote.directory.bytes,
          .suspicion = static_cast<std::uint8_t>(state.suspicion),
          .floor_term = state.floor.term,
          .floor = state.floor.position};
}

log::Mark stored(const raft::Mark& mark, const raft::Membership& members) {
  log::Mark out{.begin = mark.begin, .term = mark.term, .kind = log::MarkKind::term_start, .log_start = mark.log_start, .members = {}};
  switch (mark.kind) {
    case raft::MarkKind::term_start:
      break;
    case raft::MarkKind::log_start:
      out.kind = log::MarkKind::log_start;
      break;
    case raft::MarkKind::members:
      out.kind = log::MarkKind::members;
      out.members = encode_members(members);
      break;
  }
  return out;
}

raft::MarkKind replica_kind(log::MarkKind kind) {
  switch (kind) {
    case log::MarkKind::term_start:
      break;
    case log::MarkKind::members:
      return raft::MarkKind::members;
    case log::MarkKind::log_start:
      return raft::MarkKind::log_start;
  }
  return raft::MarkKind::term_start;
}

/// What recovery found, as the replica takes it. A log without members is that of a broker alone: this directory votes in it.
Result<raft::Recovered> recovered(const log::Partition& log, const raft::ReplicaId& self) {
  log::ReplicatedState state = log.replicated();
  raft::Recovered out;
  out.hard.term = state.hard.term;
  out.hard.vote = replica_id(state.hard.vote_node, state.hard.vote_directory);
  out.hard.suspicion = static_cast<raft::Suspicion>(state.hard.suspicion);
  out.hard.floor = {state.hard.floor_term, state.hard.floor};
  out.start = state.start.position;
  out.start_term = state.start.term;
  out.members = raft::Membership::of_voters(std::span{&self, 1});
  if (!state.start.members.empty()) {
    TAILRACE_TRY(out.members, decode_members(state.start.members));
  }
  raft::Membership in_force = out.members;
  for (log::Mark& mark : state.marks) {
    out.marks.push_back({mark.begin, mark.term, replica_kind(mark.kind), mark.log_start});
    if (mark.kind != log::MarkKind::members) continue;
    TAILRACE_TRY(in_force, decode_members(mark.members));
    out.members_after.push_back({mark.begin, in_force});
  }
  out.end = state.end;
  // A term is durable before its entries (R1): where it is not, damage took a hard state, and with it perhaps a vote.
  LeaderEpoch newest = out.start_term;
  for (const raft::Mark& mark : out.marks) newest = std::max(newest, mark.term);
  if (newest > out.hard.term) {
    out.hard.term = newest;
    out.hard.vote = {};
    out.hard.suspicion = raft::Suspicion::lost;
  }
  // Nobody else could have had a say in what a lone voter stored.
  bool alone = in_force.voter_count() == 1 && in_force.is_voter(self);
  out.commit = alone ? state.end : std::clamp(state.commit, out.start, state.end);
  out.log_start = state.log_start;
  for (const raft::Mark& mark : out.marks) {
    if (mark.kind == raft::MarkKind::log_start && mark.end() <= out.commit) out.log_start = std::max(out.log_start, mark.log_start);
  }
  return out;
}

constexpr auto kSnapshotRetry = std::chrono::seconds{1};  // a transfer without an answer is begun anew

Error refusal(raft::Verdict verdict) {
  return {verdict == raft::Verdict::out_of_range ? Errc::offset_out_of_range : Errc::invalid_argument, std::string{name_of(verdict)}};
}

}  // namespace

ReplicatedPartition::ReplicatedPartition(Replication& shard, log::PartitionPtr log) : shard_{shard}, log_{std::move(log)} {}

ReplicatedPartition::~ReplicatedPartition() { close(); }

Result<std::shared_ptr<ReplicatedPartition>> ReplicatedPartition::open(Replication& shard, log::PartitionPtr log) {
  std::shared_ptr<ReplicatedPartition> made{new ReplicatedPartition{shard, std::move(log)}};
  TAILRACE_TRY_VOID(made->begin());
  made->log_->set_listener(made.get());
  if (!made->alone()) made->timed();
  return made;
}

Result<void> ReplicatedPartition::begin() {
  TAILRACE_TRY(raft::Recovered found, recovered(*log_, shard_.self()));
  io::Runtime& runtime = shard_.runtime();
  replica_.emplace(shard_.self(), shard_.incarnation(), shard_.options().replica, std::move(found), Random{runtime.random.next()}, runtime.clock.now());
  generation_base_ = newest_generation_;
  role_ = raft::Role::follower;
  // Begun again after its shard lost it: who votes in it is not known, nor what this directory once acknowledged. Until an operator accepts that, or
  // gives it another directory, it says nothing: its vote could elect a log without an acknowledged record.
  auto fine = log_->writable(0);
  lost_ = alone() && !fine && fine.error().code == Errc::corrupt && log_->end_position() == LogPosition{};
  log_->commit_to(replica_->commit());
  log_->apply_log_start(replica_->log_start());
  return {};
}

void ReplicatedPartition::timed() {
  if (std::exchange(timed_, true)) return;
  shard_.follow_clock(shared_from_this());
}

void ReplicatedPartition::close() {
  if (std::exchange(closed_, true)) return;
  log_->set_listener(nullptr);
}

bool ReplicatedPartition::alone() const {
  const raft::Membership& members = replica_->members();
  return members.members().size() == 1 && members.is_voter(replica_->self());
}

Error ReplicatedPartition::not_leader() const {
  const raft::ReplicaId& leader = replica_->leader();
  if (!leader.valid()) return {Errc::not_leader, "no leader is known"};
  return {Errc::not_leader, fmt::format("node {} leads", leader.node.value())};
}

// ---- one event -----------------------------------------------------------------------------------------------------------

template <class F>
void ReplicatedPartition::handle(F event, Cargo cargo) {
  Replication::Turn turn{shard_};
  event(turn.actions);
  carry_out(turn.actions, cargo);
}

void ReplicatedPartition::carry_out(Actions& actions, Cargo& cargo) {
  // The list grows while it is carried out; what is looked at is a copy.
  for (std::size_t i = 0; i < actions.size() && !failed_; ++i) {
    raft::Action action = actions[i];
    if (std::holds_alternative<raft::Truncate>(action) || std::holds_alternative<raft::InstallSnapshot>(action)) {
      busy_ = true;
      shard_.background().spawn(carry_out_slowly({actions.begin() + static_cast<std::ptrdiff_t>(i), actions.end()}, std::move(cargo)));
      return;
    }
    act(action, cargo);
  }
}

void ReplicatedPartition::act(const raft::Action& action, Cargo& cargo) {
  auto must = [this](std::string_view what, const Result<void>& done) {
    if (!done) fail_here(what, done.error());
  };
  if (const auto* advanced = std::get_if<raft::CommitAdvanced>(&action)) {
    log_->commit_to(advanced->commit);
  } else if (const auto* save = std::get_if<raft::SaveHardState>(&action)) {
    must("the hard state", log_->save_hard_state(stored(save->state), newest_generation_ = generation_base_ + save->generation));
  } else if (const auto* mark = std::get_if<raft::AppendMark>(&action)) {
    must("an entry", log_->append_mark(stored(mark->mark, mark->members)));
  } else if (const auto* run = std::get_if<raft::AppendRun>(&action)) {
    for (std::size_t i = run->first; i < cargo.batches.size() && !failed_; ++i) {
      must("a batch", log_->append_copy(std::move(cargo.batches[i].bytes), cargo.headers[i], cargo.batches[i].append_time));
    }
  } else if (const auto* send_it = std::get_if<raft::Send>(&action)) {
    send(send_it->message);
  } else if (const auto* read = std::get_if<raft::ReadEntries>(&action)) {
    shard_.background().spawn(read_entries(*read));
  } else if (const auto* snapshot = std::get_if<raft::SendSnapshot>(&action)) {
    shard_.background().spawn(send_snapshot(snapshot->to));
  } else if (const auto* start = std::get_if<raft::LogStartAdvanced>(&action)) {
    log_->apply_log_start(start->log_start);
    drop_again_ = true;
    if (!dropping_) shard_.background().spawn(drop_deleted());
  } else if (const auto* changed = std::get_if<raft::RoleChanged>(&action)) {
    role_changed(*changed);
  } else if (std::get_if<raft::MembersChanged>(&action)) {
    if (!alone()) timed();
  } else if (const auto* confirmed = std::get_if<raft::LeadershipConfirmed>(&action)) {
    confirmed_round_ = std::max(confirmed_round_, confirmed->round);
    log_->advanced().notify_all();
  } else if (const auto* kept = std::get_if<raft::TransferFailed>(&action)) {
    log_info("replica.transfer_failed", "{}: node {} did not take over", name(), kept->to.node.value());
  } else if (const auto* halted = std::get_if<raft::Halted>(&action)) {
    bool differs = halted->reason == raft::HaltReason::truncation_below_commit;
    log_error("replica.halted", "{}: {} at offset {}; this replica takes part no more", name(),
              differs ? "its leader's log differs from what is committed here" : "terms are exhausted", halted->at.offset.value());
  }
}

/// What takes time, and all behind it. Nothing else happens to the partition meanwhile.
Task<void> ReplicatedPartition::carry_out_slowly(std::vector<raft::Action> rest, Cargo cargo) {
  std::shared_ptr<ReplicatedPartition> self = shared_from_this();
  co_await yield_to(shard_.runtime().executor);  // the event that asked for it ends first
  std::optional<LogPosition> installed;
  for (const raft::Action& action : rest) {
    if (failed_ || closed_) break;
    if (const auto* cut = std::get_if<raft::Truncate>(&action)) {
      ++shard_.counters.truncations;
      if (auto done = co_await log_->truncate_suffix(cut->to); !done) fail_here("a truncation", done.error());
    } else if (const auto* install = std::get_if<raft::InstallSnapshot>(&action)) {
      ++shard_.counters.snapshots_installed;
      const raft::Snapshot& place = install->snapshot;
      if (planted(PlantedBug::raft_snapshot_without_producers)) cargo.producers = log::ProducerState{}.snapshot();
      auto done = co_await log_->install({.position = place.position, .term = place.position_term, .members = encode_members(place.members)}, place.log_start,
                                         std::move(cargo.producers));
      if (!done) fail_here("a snapshot", done.error());
      installed = place.position;
    } else {
      Replication::Turn turn{shard_};
      act(action, cargo);
    }
  }
  busy_ = false;
  if (failed_ || closed_) co_return;
  if (installed) handle([&](Actions& out) { replica_->snapshot_installed(*installed, shard_.runtime().clock.now(), out); });
  if (report_due_ && !busy_) tell_durable();
}

void ReplicatedPartition::fail_here(std::string_view what, const Error& error) {
  if (std::exchange(failed_, true)) return;
  // What the replica decided is not in the log: it may say nothing more. With the directory failed this is every partition's lot.
  if (!closed_) log_error("replica.failed", "{}: {} could not be written: {}; this replica takes part no more until a restart", name(), what, error.detail);
  log_->abandon_waiters();
}

std::string ReplicatedPartition::name() const { return fmt::format("{}-{}", log_->id().topic.to_string(), log_->id().index.value()); }

void ReplicatedPartition::role_changed(const raft::RoleChanged& changed) {
  bool led = role_ == raft::Role::leader;
  role_ = changed.role;
  confirmed_round_ = 0;  // rounds are counted anew in each term
  if (led && role_ != raft::Role::leader) log_->abandon_waiters();
  if (led != (role_ == raft::Role::leader)) log_->advanced().notify_all();  // readers that wait look again
}

// ---- durability ----------------------------------------------------------------------------------------------------------

void ReplicatedPartition::durable(LogPosition end, LeaderEpoch term, std::uint64_t hard_generation) noexcept {
  durable_end_ = end;
  durable_term_ = term;
  durable_generation_ = hard_generation;
  report_due_ = true;
  if (may_handle()) tell_durable();
}

void ReplicatedPartition::tell_durable() {
  report_due_ = false;
  Instant now = shard_.runtime().clock.now();
  handle([&](Actions& out) {
    if (durable_generation_ > generation_base_) replica_->hard_state_saved(durable_generation_ - generation_base_, now, out);
    replica_->persisted(durable_end_, durable_term_, now, out);
  });
}

// ---- leading -------------------------------------------------------------------------------------------------------------

Result<void> ReplicatedPartition::lead() {
  if (failed_) return fail(Errc::io_error, "this replica takes part no more until a restart");
  if (busy_) return std::unexpected(not_leader());
  if (replica_->role() != raft::Role::leader && alone()) {
    handle([&](Actions& out) { replica_->campaign(shard_.runtime().clock.now(), out); });
  }
  if (failed_ || replica_->can_append() != raft::Verdict::ok) return std::unexpected(not_leader());
  return {};
}

/// A leader that finds its log damaged can take no entry, and not send all it has; while there are others, one of them leads.
bool ReplicatedPartition::leaves_to_others() {
  if (alone()) return false;
  auto fine = log_->writable(0);
  if (fine || fine.error().code != Errc::corrupt) return false;
  fail_here("the next entry", fine.error());
  return true;
}

Result<log::Appended> ReplicatedPartition::append(Slice batch, const BatchHeader& header, WallTime now) {
  if (leaves_to_others()) return std::unexpected(not_leader());
  TAILRACE_TRY_VOID(log_->writable(batch.length));  // so that a lone voter does not stand for what cannot be stored
  TAILRACE_TRY_VOID(lead());
  TAILRACE_TRY(log::Appended done, log_->append(std::move(batch), header, now));
  replica_->appended(done.next_offset);
  if (!alone()) shard_.replicate_soon(shared_from_this());
  return done;
}

void ReplicatedPartition::replicate() {
  if (!may_handle()) return;
  handle([&](Actions& out) { replica_->replicate(shard_.runtime().clock.now(), out); });
}

Task<Result<void>> ReplicatedPartition::advance_log_start(Offset start) {
  std::shared_ptr<ReplicatedPartition> self = shared_from_this();
  bool asked = false;
  while (replica_->log_start() < start) {
    if (shard_.stopping() && !alone()) co_return fail(Errc::closed, "the broker stops");
    TAILRACE_CO_TRY_VOID(log_->usable());
    TAILRACE_CO_TRY_VOID(lead());
    if (!asked && replica_->serving()) {
      raft::Verdict verdict{};
      handle([&](Actions& out) { verdict = replica_->advance_log_start(start, shard_.runtime().clock.now(), out); });
      if (verdict != raft::Verdict::ok) co_return std::unexpected(refusal(verdict));
      asked = true;
      continue;
    }
    co_await log_->advanced().wait();
  }
  co_return Result<void>{};
}

/// Sealed segments below the log start go; a failure is tried again with the next advance.
Task<void> ReplicatedPartition::drop_deleted() {
  std::shared_ptr<ReplicatedPartition> self = shared_from_this();
  dropping_ = true;
  co_await yield_to(shard_.runtime().executor);
  while (std::exchange(drop_again_, false) && !closed_) {
    auto dropped = co_await log_->drop_deleted();
    if (!dropped && !closed_) log_warn("segment.not_removed", "{}: {}", name(), dropped.error().detail);
  }
  dropping_ = false;
}

Task<Result<void>> ReplicatedPartition::confirm_leadership() {
  if (alone()) co_return Result<void>{};
  std::shared_ptr<ReplicatedPartition> self = shared_from_this();
  if (!may_handle()) co_return std::unexpected(not_leader());
  std::optional<std::uint64_t> round;
  LeaderEpoch term = replica_->term();
  handle([&](Actions& out) { round = replica_->confirm_leadership(out); });
  if (!round) co_return std::unexpected(not_leader());
  while (confirmed_round_ < *round || replica_->term() != term) {
    if (shard_.stopping() && !alone()) co_return fail(Errc::closed, "the broker stops");
    if (failed_ || closed_ || replica_->term() != term || replica_->role() != raft::Role::leader) co_return std::unexpected(not_leader());
    TAILRACE_CO_TRY_VOID(log_->usable());
    co_await log_->advanced().wait();
  }
  co_return Result<void>{};
}

Task<Result<void>> ReplicatedPartition::skip_damage() {
  std::shared_ptr<ReplicatedPartition> self = shared_from_this();
  TAILRACE_CO_TRY_VOID(co_await log_->skip_damage());
  // The log may end behind the hole now: another log than the one the replica knew.
  co_return begin();
}

Result<void> ReplicatedPartition::change_members(const raft::MembershipChange& change) {
  TAILRACE_TRY_VOID(lead());
  raft::Verdict verdict{};
  handle([&](Actions& out) { verdict = replica_->change_members(change, shard_.runtime().clock.now(), out); });
  if (verdict != raft::Verdict::ok) return std::unexpected(refusal(verdict));
  return {};
}

Result<void> ReplicatedPartition::transfer(const raft::ReplicaId& to) {
  TAILRACE_TRY_VOID(lead());
  raft::Verdict verdict{};
  handle([&](Actions& out) { verdict = replica_->transfer(to, shard_.runtime().clock.now(), out); });
  if (verdict != raft::Verdict::ok) return std::unexpected(refusal(verdict));
  return {};
}

// ---- other brokers -------------------------------------------------------------------------------------------------------

void ReplicatedPartition::send(const raft::Message& message) {
  const raft::ReplicaId& to = std::visit([](const auto& m) -> const raft::ReplicaId& { return m.header.to; }, message);
  shard_.send({.partition = log_->id(), .from = shard_.self(), .to = to, .incarnation = shard_.incarnation(), .body = message});
}

/// Whole batches as they were stored, one behind the other, of the term that the message says.
bool ReplicatedPartition::take_batches(const raft::Append& append, Cargo& cargo, std::vector<raft::BatchRef>& refs) const {
  std::size_t bytes = 0;
  Offset at = append.previous.offset;
  for (const CarriedBatch& batch : cargo.batches) {
    auto header = read_batch_header(batch.bytes.bytes(), batch.bytes.length);
    if (!header || header->total_bytes() != batch.bytes.length || header->crc != batch_crc(batch.bytes.bytes())) return false;
    if (header->base_offset != at || header->leader_epoch != append.entry_term || header->last_offset_delta < 0) return false;
    at = header->next_offset();
    bytes += batch.bytes.length;
    refs.push_back({at, static_cast<std::uint32_t>(batch.bytes.length)});
    cargo.headers.push_back(*header);
  }
  // What the log has no room for is not taken: the leader sends it again.
  return refs.empty() || log_->writable(bytes).has_value();
}

void ReplicatedPartition::receive(PeerMessage message) {
  auto* said = std::get_if<raft::Message>(&message.body);
  if (!said || !listens() || message.to != shard_.self() || message.from == shard_.self()) return;
  Instant now = shard_.runtime().clock.now();
  Cargo cargo{.batches = std::move(message.batches), .headers = {}, .producers = std::move(message.producers)};
  if (const auto* snapshot = std::get_if<raft::Snapshot>(said)) {
    // Where the log would begin behind its start, records are missing that nobody deleted.
    bool usable = snapshot->log_start >= snapshot->position.offset && log::ProducerState{}.load(cargo.producers);
    if (!usable) return log_warn("replica.snapshot", "{}: from node {}: it cannot be a log's beginning", name(), message.from.node.value());
  }
  const auto* append = std::get_if<raft::Append>(said);
  if (!append) return handle([&](Actions& out) { replica_->receive(*said, now, out); }, std::move(cargo));
  std::vector<raft::BatchRef> refs;
  if (!take_batches(*append, cargo, refs)) return;
  handle([&](Actions& out) { replica_->receive(raft::ReceivedAppend{*append, refs}, now, out); }, std::move(cargo));
}

std::optional<raft::HeartbeatReply> ReplicatedPartition::heard(const raft::ReplicaId& from, const raft::HeartbeatFact& fact) {
  std::optional<raft::HeartbeatReply> reply;
  if (!listens()) return reply;
  handle([&](Actions& out) { reply = replica_->receive(from, fact, shard_.runtime().clock.now(), out); });
  return reply;
}

void ReplicatedPartition::answered(const raft::ReplicaId& from, std::uint64_t incarnation, const raft::HeartbeatReply& reply) {
  if (!listens()) return;
  handle([&](Actions& out) { replica_->receive(from, incarnation, reply, shard_.runtime().clock.now(), out); });
}

void ReplicatedPartition::tick(Instant now) {
  if (!may_handle() || replica_->deadline() > now) return;
  handle([&](Actions& out) { replica_->tick(now, out); });
}

std::optional<raft::HeartbeatFact> ReplicatedPartition::heartbeat(Instant now) {
  std::optional<raft::HeartbeatFact> fact;
  if (!may_handle() || replica_->role() != raft::Role::leader || leaves_to_others()) return fact;
  handle([&](Actions& out) { fact = replica_->heartbeat(0, now, out); });
  if (!fact || now < snapshot_retry_) return fact;
  // A transfer that brought no answer is begun anew.
  snapshot_retry_ = now + kSnapshotRetry;
  std::vector<raft::ReplicaId> waiting;
  for (const raft::Progress& member : replica_->progress()) {
    if (member.state == raft::ProgressState::snapshot) waiting.push_back(member.id);
  }
  for (const raft::ReplicaId& member : waiting) replica_->snapshot_failed(member);
  return fact;
}

Task<void> ReplicatedPartition::read_entries(raft::ReadEntries asked) {
  std::shared_ptr<ReplicatedPartition> self = shared_from_this();
  co_await yield_to(shard_.runtime().executor);
  raft::EntriesRead answer{.to = asked.to, .ticket = asked.ticket, .status = raft::ReadStatus::failed};
  std::vector<CarriedBatch> batches;
  auto read = co_await log_->read_replica(asked.from, asked.until, asked.bytes_max);
  if (!read) {
    if (read.error().code == Errc::offset_out_of_range)
      answer.status = raft::ReadStatus::gone;
    else if (!closed_)
      log_warn("replica.read_failed", "{}: from {} for node {}: {}", name(), asked.from.value(), asked.to.node.value(), read.error().detail);
  } else if (!read->batches.empty()) {
    answer.status = raft::ReadStatus::ok;
    answer.begin = read->begin;
    answer.end = read->end;
    for (log::ReplicaBatch& batch : read->batches) {
      answer.bytes += static_cast<std::uint32_t>(batch.bytes.length);
      batches.push_back({std::move(batch.bytes), batch.append_time});
    }
  }
  if (!may_handle() || closed_) co_return;
  handle([&](Actions& out) {
    auto append = replica_->entries_read(answer, shard_.runtime().clock.now(), out);
    if (!append) return;
    shard_.send({.partition = log_->id(),
                 .from = shard_.self(),
                 .to = asked.to,
                 .incarnation = shard_.incarnation(),
                 .body = raft::Message{*append},
                 .batches = std::move(batches)});
  });
}

/// A follower that is too far behind begins where the log begins: there the derived state is stored.
Task<void> ReplicatedPartition::send_snapshot(raft::ReplicaId to) {
  std::shared_ptr<ReplicatedPartition> self = shared_from_this();
  co_await yield_to(shard_.runtime().executor);
  auto state = co_await log_->stored_state(replica_->log().start());
  if (!may_handle() || closed_) co_return;
  std::optional<raft::Snapshot> snapshot;
  if (state) snapshot = replica_->snapshot_for(to, state->position);
  if (!snapshot) {
    if (!state) log_warn("replica.snapshot", "{}: {}", name(), state.error().detail);
    co_return replica_->snapshot_failed(to);
  }
  shard_.send({.partition = log_->id(),
               .from = shard_.self(),
               .to = to,
               .incarnation = shard_.incarnation(),
               .body = raft::Message{*snapshot},
               .batches = {},
               .producers = std::move(state->producers)});
}

}  // namespace tailrace::broker::service
