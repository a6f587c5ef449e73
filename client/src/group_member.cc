#include "src/group_member.h"

#include <algorithm>
#include <random>

namespace tailrace::inline v1::detail {
namespace {

constexpr Milliseconds kBackoff{100};  // after an answer that says later; doubled up to kBackoffMax
constexpr Milliseconds kBackoffMax{2'000};
constexpr Milliseconds kPatience{3'000};  // for an answer, beyond the time that it may wait

proto::OutOfRange to_wire(OutOfRange in) {
  switch (in) {
    case OutOfRange::error: return proto::OUT_OF_RANGE_ERROR;
    case OutOfRange::earliest: return proto::OUT_OF_RANGE_EARLIEST;
    case OutOfRange::latest: return proto::OUT_OF_RANGE_LATEST;
  }
  return proto::OUT_OF_RANGE_ERROR;
}
OutOfRange from_wire(proto::OutOfRange in) {
  switch (in) {
    case proto::OUT_OF_RANGE_EARLIEST: return OutOfRange::earliest;
    case proto::OUT_OF_RANGE_LATEST: return OutOfRange::latest;
    default: return OutOfRange::error;
  }
}

/// A join whose answer was lost is made again under the same name, so that it takes the place of the first one at once.
std::string a_name() {
  std::random_device device;
  std::uint64_t number = (std::uint64_t{device()} << 32) | device();
  char text[24];
  std::snprintf(text, sizeof text, "c-%016llx", static_cast<unsigned long long>(number));
  return text;
}

bool is_fatal(const Error& error) {
  return error.code == Errc::invalid_argument || error.code == Errc::unauthorized || error.code == Errc::no_such_topic || error.code == Errc::unsupported ||
         error.code == Errc::closed || error.code == Errc::too_many;
}

}  // namespace

GroupMembership::GroupMembership(std::shared_ptr<Engine> engine, std::string group, std::vector<std::string> topics, GroupOptions options, std::function<void()> changed)
    : engine_{std::move(engine)}, group_{std::move(group)}, topics_{std::move(topics)}, options_{[&] {
        if (options.instance.empty()) options.instance = a_name();
        return std::move(options);
      }()},
      changed_{std::move(changed)}, timer_{engine_->loop()} {}

void GroupMembership::start() {
  engine_->add(shared_from_this());
  engine_->post([weak = weak_from_this()] {
    if (auto self = weak.lock()) self->join();
  });
}

GroupMembership::View GroupMembership::view() const {
  std::lock_guard lock{mutex_};
  return view_;
}

void GroupMembership::release(std::uint64_t life, const std::set<TopicPartition>& gone) {
  {
    std::lock_guard lock{mutex_};
    if (life != view_.life) return;
    for (const auto& which : gone) view_.owned.erase(which);
  }
  engine_->post([weak = weak_from_this()] {
    auto self = weak.lock();
    if (!self || self->state_ != State::member) return;
    self->beat_again_ = true;
    if (!self->beating_) self->heartbeat();
  });
}

void GroupMembership::join() {
  if (state_ == State::ended) return;
  state_ = State::joining;
  proto::JoinGroupRequest request;
  request.set_group(group_);
  request.set_instance(options_.instance);
  for (const auto& topic : topics_) request.add_topics(topic);
  request.set_session_timeout_ms(static_cast<std::uint32_t>(options_.session_timeout.count()));
  request.set_assignor(options_.assignor == Assignor::range ? proto::ASSIGNOR_RANGE : proto::ASSIGNOR_STICKY);
  request.set_out_of_range(to_wire(options_.out_of_range));
  std::uint64_t attempt = ++attempt_;
  engine_->link().call(
      proto::FrameType::join_group,
      [request](std::uint64_t id, Milliseconds) { return encode_frame(proto::FrameType::join_group, id, request); }, proto::FrameType::join_group_reply,
      Clock::now() + engine_->options().request_timeout, CallPolicy::repeat, [weak = weak_from_this(), attempt](Result<IncomingFrame*> frame) {
        auto self = weak.lock();
        if (self && self->attempt_ == attempt && self->state_ == State::joining) self->joined(std::move(frame));
      });
}

void GroupMembership::joined(Result<IncomingFrame*> frame) {
  if (!frame) {
    if (is_fatal(frame.error())) return fail(std::move(frame).error());
    return later(backoff_ = std::clamp(backoff_ * 2, kBackoff, kBackoffMax));
  }
  proto::JoinGroupReply reply;
  if (!decode_control((*frame)->control, reply)) return engine_->link().protocol_error("a reply to a join cannot be read");
  backoff_ = Milliseconds{0};
  state_ = State::member;
  {
    std::lock_guard lock{mutex_};
    ++view_.life;
    view_.member = reply.member();
    view_.owned.clear();
  }
  take(reply.assignment(), reply.generation(), reply.out_of_range());
  heartbeat();
}

void GroupMembership::take(const google::protobuf::RepeatedPtrField<proto::TopicPartitions>& assignment, std::int64_t generation, proto::OutOfRange out_of_range) {
  bool news = false;
  {
    std::lock_guard lock{mutex_};
    std::set<TopicPartition> told;
    for (const auto& some : assignment) {
      for (std::int32_t partition : some.partitions()) told.emplace(some.topic(), partition);
    }
    news = told != view_.told || generation != view_.generation;
    view_.owned.insert(told.begin(), told.end());
    view_.told = std::move(told);
    view_.generation = generation;
    view_.out_of_range = from_wire(out_of_range);
  }
  if (news) changed_();
}

void GroupMembership::heartbeat() {
  if (state_ != State::member || beating_) return;
  timer_.cancel();
  beat_again_ = false;
  proto::GroupHeartbeatRequest request;
  request.set_group(group_);
  std::uint64_t life = 0;
  bool caught_up = false;
  {
    std::lock_guard lock{mutex_};
    life = view_.life;
    request.set_member(view_.member);
    request.set_generation(view_.generation);
    proto::TopicPartitions* some = nullptr;
    for (const auto& [topic, partition] : view_.owned) {
      if (!some || some->topic() != topic) {
        some = request.add_owned();
        some->set_topic(topic);
      }
      some->add_partitions(partition);
    }
    caught_up = view_.owned == view_.told;
  }
  // While the user's side has not caught up the broker has news that it told already: it would answer at once, again and again.
  if (caught_up) request.set_wait_ms(static_cast<std::uint32_t>(interval().count()));
  beating_ = true;
  engine_->link().call(
      proto::FrameType::group_heartbeat,
      [request](std::uint64_t id, Milliseconds) { return encode_frame(proto::FrameType::group_heartbeat, id, request); }, proto::FrameType::group_heartbeat_reply,
      Clock::now() + (caught_up ? interval() : Milliseconds{0}) + kPatience, CallPolicy::repeat, [weak = weak_from_this(), life](Result<IncomingFrame*> frame) {
        if (auto self = weak.lock()) self->answered(life, std::move(frame));
      });
}

void GroupMembership::answered(std::uint64_t life, Result<IncomingFrame*> frame) {
  beating_ = false;
  if (state_ != State::member || life != view().life) return;
  if (!frame) {
    const Error& error = frame.error();
    if (error.code == Errc::unknown_member || error.code == Errc::no_such_group || error.code == Errc::fenced || error.code == Errc::invalid_argument) return lost();
    if (error.code == Errc::closed || error.code == Errc::unauthorized) return fail(error);
    return later(backoff_ = std::clamp(backoff_ * 2, kBackoff, kBackoffMax));
  }
  proto::GroupHeartbeatReply reply;
  if (!decode_control((*frame)->control, reply)) return engine_->link().protocol_error("a reply to a heartbeat cannot be read");
  backoff_ = Milliseconds{0};
  take(reply.assignment(), reply.generation(), reply.out_of_range());
  bool caught_up = false;
  {
    std::lock_guard lock{mutex_};
    caught_up = view_.owned == view_.told;
  }
  if (caught_up || beat_again_) return heartbeat();
  later(interval());  // the user's side says when it has looked
}

void GroupMembership::later(Milliseconds pause) {
  timer_.arm(Clock::now() + pause, [weak = weak_from_this()] {
    auto self = weak.lock();
    if (!self) return;
    if (self->state_ == State::joining) self->join();
    else self->heartbeat();
  });
}

void GroupMembership::lost() {
  {
    std::lock_guard lock{mutex_};
    ++view_.life;
    view_.member.clear();
    view_.told.clear();
    view_.owned.clear();
  }
  engine_->event({ClientEvent::Level::warn, ClientEvent::Kind::retrying, "group " + group_ + " does not know this member any more; joining again"});
  changed_();
  state_ = State::joining;
  later(backoff_ = std::clamp(backoff_ * 2, kBackoff, kBackoffMax));
}

void GroupMembership::fail(Error error) {
  state_ = State::ended;
  {
    std::lock_guard lock{mutex_};
    view_.fatal = std::move(error);
  }
  changed_();
}

Task<void> GroupMembership::leave(TimePoint deadline) {
  auto completion = std::make_shared<Single<void>>(engine_->callbacks());
  bool posted = engine_->post([self = shared_from_this(), completion, deadline] {
    std::string member = self->view().member;
    bool there = self->state_ == State::member;
    self->state_ = State::ended;
    self->timer_.cancel();
    if (!there) {
      completion->complete({});
      return;
    }
    proto::LeaveGroupRequest request;
    request.set_group(self->group_);
    request.set_member(member);
    self->engine_->link().call(
        proto::FrameType::leave_group,
        [request](std::uint64_t id, Milliseconds remaining) mutable {
          request.mutable_call()->set_deadline_ms(static_cast<std::uint32_t>(remaining.count()));
          return encode_frame(proto::FrameType::leave_group, id, request);
        },
        proto::FrameType::leave_group_reply, deadline, CallPolicy::once, [completion](Result<IncomingFrame*> frame) {
          completion->complete(frame ? Result<void>{} : std::unexpected(std::move(frame).error()));
        });
  });
  if (!posted) completion->complete(std::unexpected(make_error(Errc::closed, "the client is closed")));
  return Task<void>{completion};
}

void GroupMembership::begin_close(TimePoint, std::function<void(CloseReport)> done) {
  auto alive = shared_from_this();
  if (state_ != State::ended) fail(make_error(Errc::closed, "the client is closed"));
  timer_.cancel();
  engine_->remove(this);
  if (done) done({});
}

}  // namespace tailrace::inline v1::detail
