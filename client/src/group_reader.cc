#include "src/group_reader.h"

#include <algorithm>
#include <thread>

namespace tailrace::inline v1::detail {
namespace {

constexpr std::size_t kBatch = 512;          // messages fetched at once
constexpr Milliseconds kRevokePatience{5'000};  // for the last commit of partitions that go
constexpr Milliseconds kFencePause{20};      // a commit met a generation that this member is just being told of

Error closed_error() { return make_error(Errc::closed, "the consumer is closed"); }

}  // namespace

GroupReader::GroupReader(std::shared_ptr<ClientCore> client, std::string group, std::vector<std::string> topics, GroupOptions options)
    : client_{std::move(client)}, group_{std::move(group)}, options_{std::move(options)}, bell_{std::make_shared<Bell>()},
      membership_{Engine::make_part<GroupMembership>(client_->engine(), group_, std::move(topics), options_, [bell = bell_] { bell->ring(); })} {
  commit_at_ = Clock::now() + options_.commit_interval;
  membership_->start();
}

GroupReader::~GroupReader() { (void)close(Milliseconds{5'000}); }

// ---- what it reads ------------------------------------------------------------------------------------------------------

Result<void> GroupReader::look() {
  GroupMembership::View view = membership_->view();
  {
    std::lock_guard lock{bell_->mutex};
    if (bell_->closed) return std::unexpected(closed_error());
  }
  if (view.fatal) return std::unexpected(*view.fatal);
  out_of_range_ = view.out_of_range;
  if (view.life != life_) {
    // Whoever reads these partitions now goes on where they were stored last.
    if (auto gone = drop_all(false); !gone) return gone;
    life_ = view.life;
  }
  std::set<TopicPartition> gone, fresh, let_go;
  for (const auto& [which, place] : places_) {
    if (!view.told.contains(which)) gone.insert(which);
  }
  for (const auto& which : view.owned) {
    if (!view.told.contains(which)) let_go.insert(which);
  }
  for (const auto& which : view.told) {
    if (!places_.contains(which)) fresh.insert(which);
  }
  if (!gone.empty()) {
    if (auto done = give_up(gone); !done) return done;
  }
  if (!let_go.empty()) membership_->release(life_, let_go);
  if (fresh.empty()) return {};
  return take_on(fresh, view.out_of_range);
}

Result<void> GroupReader::drop_all(bool store_first) {
  std::set<TopicPartition> all;
  for (const auto& [which, place] : places_) all.insert(which);
  if (all.empty()) return {};
  if (store_first) return give_up(all);
  std::vector<Position> told = positions_of(all, true);
  places_.clear();
  here_.clear();
  readers_.clear();
  committing_.reset();
  if (options_.on_revoked) options_.on_revoked(told);
  return {};
}

Result<void> GroupReader::give_up(const std::set<TopicPartition>& gone) {
  if (commits_after_processing()) {
    std::vector<Position> last;
    for (const Position& one : unstored()) {
      if (gone.contains({one.topic, one.partition})) last.push_back(one);
    }
    // Where it cannot be stored, the next reader handles some records twice: at least once is the promise.
    if (!last.empty()) (void)store(std::move(last), Clock::now() + kRevokePatience);
  }
  std::vector<Position> told = positions_of(gone, true);
  std::set<std::string> topics;
  for (const auto& which : gone) {
    topics.insert(which.first);
    places_.erase(which);
  }
  for (const auto& topic : topics) {
    drop_messages(topic, gone);
    if (auto again = read_topic(topic, out_of_range_); !again) return again;
  }
  if (options_.on_revoked) options_.on_revoked(told);
  return {};
}

Result<void> GroupReader::take_on(const std::set<TopicPartition>& fresh, OutOfRange out_of_range) {
  proto::StoredOffsetsRequest request;
  request.set_group(group_);
  proto::TopicPartitions* some = nullptr;
  for (const auto& [topic, partition] : fresh) {
    if (!some || some->topic() != topic) {
      some = request.add_partitions();
      some->set_topic(topic);
    }
    some->add_partitions(partition);
  }
  using Offsets = std::map<TopicPartition, std::int64_t>;
  auto stored = client_->engine()
                    ->call<Offsets, proto::StoredOffsetsRequest, proto::StoredOffsetsReply>(
                        proto::FrameType::stored_offsets, std::move(request), proto::FrameType::stored_offsets_reply, CallPolicy::repeat,
                        [](const proto::StoredOffsetsReply& reply) -> Result<Offsets> {
                          Offsets out;
                          for (const auto& one : reply.offsets()) out[{one.topic(), one.partition()}] = one.offset();
                          return out;
                        })
                    .get();
  if (!stored) {
    if (stored.error().retriable) return {};  // looked at again with the next call
    return std::unexpected(std::move(stored).error());
  }
  std::set<std::string> topics;
  for (const auto& which : fresh) {
    Place place{.start = options_.start};
    if (auto at = stored->find(which); at != stored->end()) {
      place.stored = at->second;
      place.next = at->second;
    }
    places_[which] = place;
    topics.insert(which.first);
  }
  for (const auto& topic : topics) {
    if (auto again = read_topic(topic, out_of_range); !again) return again;
  }
  if (options_.on_assigned) options_.on_assigned(positions_of(fresh, false));
  return {};
}

void GroupReader::drop_messages(const std::string& topic, const std::set<TopicPartition>& of) {
  std::erase_if(here_, [&](const Message& message) { return message.topic == topic && of.contains({topic, message.partition}); });
}

/// Makes the topic's consumer anew for the partitions that are read now, each where it stands.
Result<void> GroupReader::read_topic(const std::string& topic, OutOfRange out_of_range) {
  // What is fetched and not given yet is fetched again.
  std::erase_if(here_, [&](const Message& message) { return message.topic == topic; });
  readers_.erase(topic);
  ConsumerOptions options;
  options.out_of_range = out_of_range;
  options.credit_records = options_.credit_records;
  options.credit_bytes = options_.credit_bytes;
  std::vector<std::int32_t> paused;
  for (const auto& [which, place] : places_) {
    if (which.first != topic) continue;
    options.partitions.push_back(which.second);
    options.starts.push_back({.partition = which.second, .start = place.next ? From::offset(*place.next) : place.start, .until = {}});
    if (place.paused) paused.push_back(which.second);
  }
  if (options.partitions.empty()) return {};
  Client client{client_};
  auto consumer = client.consumer(topic, std::move(options));
  if (!consumer) return std::unexpected(std::move(consumer).error());
  if (!paused.empty()) {
    if (auto done = consumer->pause(paused); !done) return done;
  }
  readers_[topic].consumer = *std::move(consumer);
  return {};
}

std::vector<Position> GroupReader::positions_of(const std::set<TopicPartition>& which, bool stored) const {
  std::vector<Position> out;
  for (const auto& one : which) {
    auto at = places_.find(one);
    if (at == places_.end()) continue;
    out.push_back({one.first, one.second, stored ? at->second.stored : at->second.next.value_or(-1)});
  }
  return out;
}

std::vector<Position> GroupReader::assignment() const {
  std::lock_guard inside{inside_};
  std::set<TopicPartition> all;
  for (const auto& [which, place] : places_) all.insert(which);
  return positions_of(all, false);
}

bool GroupReader::caught_up() const {
  std::lock_guard inside{inside_};
  GroupMembership::View view = membership_->view();
  if (view.member.empty() || !here_.empty() || view.life != life_ || view.told.size() != places_.size()) return false;
  for (const auto& [which, place] : places_) {
    if (!view.told.contains(which)) return false;
  }
  return std::ranges::all_of(readers_, [](const auto& one) {
    return one.second.consumer && one.second.consumer->caught_up() && !(one.second.fetching && one.second.fetching->ready());
  });
}

// ---- messages -----------------------------------------------------------------------------------------------------------

Result<std::optional<Message>> GroupReader::take() {
  if (here_.empty() && !readers_.empty()) {
    // Each topic gets its turn, so that a busy one does not keep the others from being read.
    std::vector<Reader*> order;
    for (auto& [topic, reader] : readers_) order.push_back(&reader);
    std::ranges::rotate(order, order.begin() + static_cast<std::ptrdiff_t>(turn_++ % order.size()));
    for (Reader* reader : order) {
      if (!reader->consumer) continue;
      if (!reader->fetching) {
        reader->fetching = reader->consumer->next_batch(kBatch);
        DirectAccess::when_ready(*reader->fetching, [bell = bell_](const Result<std::vector<Message>>&) { bell->ring(); });
      }
      if (!reader->fetching->ready()) continue;
      auto batch = reader->fetching->get();
      reader->fetching.reset();
      if (!batch) return std::unexpected(std::move(batch).error());
      std::ranges::move(*batch, std::back_inserter(here_));
      if (!here_.empty()) break;
    }
  }
  while (!here_.empty()) {
    Message message = std::move(here_.front());
    here_.pop_front();
    auto at = places_.find({std::string{message.topic}, message.partition});
    if (at == places_.end()) continue;
    at->second.next = message.offset + 1;
    return std::optional<Message>{std::move(message)};
  }
  return std::optional<Message>{};
}

void GroupReader::processed_all() {
  for (auto& [which, place] : places_) {
    if (place.next) place.processed = *place.next;
  }
}

Result<std::optional<Message>> GroupReader::next(Milliseconds wait) {
  std::lock_guard inside{inside_};
  TimePoint until = Clock::now() + wait;
  processed_all();
  for (;;) {
    {
      std::lock_guard lock{bell_->mutex};
      bell_->rung = false;
    }
    if (auto looked = look(); !looked) return std::unexpected(std::move(looked).error());
    if (commits_after_processing()) commit_in_background();
    auto message = take();
    if (!message || *message) return message;
    std::unique_lock lock{bell_->mutex};
    TimePoint stop = commits_after_processing() ? std::min(until, std::max(commit_at_, Clock::now() + Milliseconds{1})) : until;
    bell_->changed.wait_until(lock, stop, [&] { return bell_->rung || bell_->closed; });
    if (bell_->closed) return std::unexpected(closed_error());
    if (!bell_->rung && Clock::now() >= until) return std::optional<Message>{};
  }
}

Result<std::vector<Message>> GroupReader::next_batch(std::size_t max, Milliseconds wait) {
  std::lock_guard inside{inside_};
  std::vector<Message> out;
  if (max == 0) return out;
  auto first = next(wait);
  if (!first) return std::unexpected(std::move(first).error());
  if (!*first) return out;
  out.push_back(**std::move(first));
  while (out.size() < max && !here_.empty()) {
    auto more = take();
    if (!more || !*more) break;
    out.push_back(**std::move(more));
  }
  return out;
}

// ---- offsets ------------------------------------------------------------------------------------------------------------

std::vector<Position> GroupReader::unstored() const {
  std::vector<Position> out;
  for (const auto& [which, place] : places_) {
    if (place.processed >= 0 && place.processed != place.stored) out.push_back({which.first, which.second, place.processed});
  }
  return out;
}

void GroupReader::note_stored(const std::vector<Position>& offsets) {
  for (const Position& one : offsets) {
    if (auto at = places_.find({one.topic, one.partition}); at != places_.end()) at->second.stored = one.offset;
  }
}

Task<void> GroupReader::send_commit(const std::vector<Position>& offsets, const GroupMembership::View& view) {
  proto::CommitOffsetsRequest request;
  request.set_group(group_);
  request.set_member(view.member);
  request.set_generation(view.generation);
  for (const Position& one : offsets) {
    auto* to = request.add_offsets();
    to->set_topic(one.topic);
    to->set_partition(one.partition);
    to->set_offset(one.offset);
  }
  return client_->engine()->call<void, proto::CommitOffsetsRequest, proto::CommitOffsetsReply>(
      proto::FrameType::commit_offsets, std::move(request), proto::FrameType::commit_offsets_reply, CallPolicy::repeat,
      [](const proto::CommitOffsetsReply&) -> Result<void> { return {}; });
}

void GroupReader::commit_in_background() {
  if (committing_) {
    if (!committing_->second.ready()) return;
    if (committing_->second.get()) note_stored(committing_->first);  // otherwise it is tried again
    committing_.reset();
  }
  if (Clock::now() < commit_at_) return;
  commit_at_ = Clock::now() + options_.commit_interval;
  std::vector<Position> offsets = unstored();
  GroupMembership::View view = membership_->view();
  if (offsets.empty() || view.life != life_ || view.member.empty()) return;
  Task<void> sent = send_commit(offsets, view);
  committing_.emplace(std::move(offsets), std::move(sent));
}

Result<void> GroupReader::store(std::vector<Position> offsets, TimePoint deadline) {
  if (offsets.empty()) return {};
  for (;;) {
    GroupMembership::View view = membership_->view();
    if (view.fatal) return std::unexpected(*view.fatal);
    if (view.life != life_ || view.member.empty()) {
      return std::unexpected(make_error(Errc::unknown_member, "this member was silent for too long or was removed: its partitions went to others"));
    }
    auto left = std::chrono::duration_cast<Milliseconds>(deadline - Clock::now());
    if (left <= Milliseconds{0}) return std::unexpected(make_error(Errc::timeout, "the offsets were not stored in time"));
    auto done = send_commit(offsets, view).get_for(left);
    if (!done) return std::unexpected(make_error(Errc::timeout, "the offsets were not stored in time"));
    if (*done) {
      note_stored(offsets);
      return {};
    }
    // The coordinator has begun a generation that this member is being told of at this moment.
    bool being_told = done->error().code == Errc::fenced && membership_->view().told.size() > 0;
    if (!being_told && !done->error().retriable) return *done;
    std::this_thread::sleep_for(kFencePause);
  }
}

Result<void> GroupReader::commit() {
  std::lock_guard inside{inside_};
  processed_all();
  return store(unstored(), Clock::now() + client_->engine()->options().request_timeout);
}

Result<void> GroupReader::commit(std::span<const Position> offsets) {
  std::lock_guard inside{inside_};
  for (const Position& one : offsets) {
    if (one.offset < 0) return std::unexpected(make_error(Errc::invalid_argument, "the offset is below 0"));
  }
  return store({offsets.begin(), offsets.end()}, Clock::now() + client_->engine()->options().request_timeout);
}

Result<void> GroupReader::seek(std::optional<TopicPartition> which, const From& to) {
  std::lock_guard inside{inside_};
  std::set<std::string> topics;
  for (auto& [one, place] : places_) {
    if (which && one != *which) continue;
    topics.insert(one.first);
    place.start = to;
    place.next.reset();
    place.processed = -1;
    if (const auto* offset = std::get_if<From::Offset>(&to.value())) place.next = offset->value;
  }
  if (topics.empty()) {
    return std::unexpected(make_error(Errc::invalid_argument, which ? "this member does not read " + which->first + "[" + std::to_string(which->second) + "] now" : "this member reads nothing now"));
  }
  for (const auto& topic : topics) {
    if (auto again = read_topic(topic, out_of_range_); !again) return again;
  }
  return {};
}

Result<void> GroupReader::set_paused(std::span<const Position> partitions, bool paused) {
  std::lock_guard inside{inside_};
  std::set<std::string> topics;
  for (auto& [one, place] : places_) {
    bool meant = partitions.empty() || std::ranges::any_of(partitions, [&](const Position& p) { return p.topic == one.first && p.partition == one.second; });
    if (!meant || place.paused == paused) continue;
    place.paused = paused;
    topics.insert(one.first);
  }
  for (const auto& topic : topics) {
    if (auto again = read_topic(topic, out_of_range_); !again) return again;
  }
  return {};
}

Result<void> GroupReader::close(Milliseconds deadline) {
  {
    std::lock_guard lock{bell_->mutex};
    if (std::exchange(bell_->closed, true)) return {};
    bell_->changed.notify_all();
  }
  TimePoint until = Clock::now() + deadline;
  // In a callback nothing can be waited for: what is not stored comes again.
  bool may_wait = !client_->engine()->must_not_wait();
  Result<void> stored;
  std::unique_lock inside{inside_, until};  // whoever waits in next() was woken just now
  if (may_wait && inside && commits_after_processing()) stored = store(unstored(), Clock::now() + deadline / 2);
  Task<void> left = membership_->leave(until);
  if (may_wait) (void)left.get_for(std::max(std::chrono::duration_cast<Milliseconds>(until - Clock::now()), Milliseconds{1}));
  (void)client_->engine()->close_part(membership_, std::max(std::chrono::duration_cast<Milliseconds>(until - Clock::now()), Milliseconds{1}));
  if (inside) readers_.clear();
  return stored;
}

}  // namespace tailrace::inline v1::detail
