#pragma once
/// One consumer's stream over some partitions of one topic: a loop per partition that fetches into shared credit.
///
///   state of a partition     what its loop does
///   waiting for credit/room  wakes when credit is granted, the outbox drains, or it is moved, resumed or stopped
///   paused, finished         wakes when it is resumed, moved or stopped
///   fetching                 a long fetch; moving, pausing and stopping cancel it
///
/// Credit   is spent at the moment a batch is queued, so partitions that fetch at the same time never overdraw it by more
///          than the rest of one batch. What was fetched and does not fit is dropped and fetched again: it is nearly always
///          in the hot tail.
/// Memory   what a loop holds between fetch and outbox is bounded by kFetchBytes and one batch, and few loops of a shard fetch at a
///          time (Front::catching_up()) until they have reached the end; the outbox is bounded by Outbox::full(). Its loops hold
///          Options::memory until the last of them has ended.
/// Spec     docs/native-protocol.md, "Subscribe", "Credit", "Seek and pause".
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "flow/credit_window.h"
#include "native/wire.h"
#include "service/broker_service.h"

namespace tailrace::broker::native {

class Subscription : public std::enable_shared_from_this<Subscription> {
 public:
  static constexpr std::uint64_t kFetchBytes = 1024 * 1024;
  static constexpr std::uint64_t kFetchBytesMin = 64 * 1024;

  /// Where one partition's reading begins.
  struct Start {
    PartitionIndex partition{};
    Offset offset{};
    std::optional<Offset> until{};
    Offset high_watermark{};
    Offset log_start{};
    bool reset = false;  // the policy moved it
  };
  struct Options {
    std::uint64_t id = 0;
    cluster::TopicPointer topic;
    proto::OutOfRange out_of_range = proto::OUT_OF_RANGE_ERROR;
    flow::CreditWindow credit;
    flow::Reservation memory;
  };
  Subscription(Wire& wire, service::ShardService& service, io::Runtime& runtime, flow::MemoryPool& catching_up, TaskScope& scope, Options options)
      : wire_{wire}, service_{service}, runtime_{runtime}, catching_up_{catching_up}, scope_{scope}, options_{std::move(options)}, wake_{runtime.executor} {}

  /// Turns positions into offsets: asks the service, and applies the out-of-range policy to exact ones.
  static Task<service::Answer<std::vector<Start>>> resolve(service::ShardService& service, std::string topic,
                                                           std::vector<proto::SubscribePartition> partitions, proto::OutOfRange policy);

  void start(const std::vector<Start>& starts);
  void grant(std::uint64_t records, std::uint64_t bytes);
  /// The outbox has room again.
  void room();
  /// Resolves, then moves, pauses and resumes in one step, so that what is sent after the reply is from the new places.
  [[nodiscard]] Task<service::Answer<proto::SeekReply>> seek(proto::SeekRequest request);
  /// No more frames; the loops end soon.
  void stop();
  [[nodiscard]] bool stopped() const { return stopped_; }
  [[nodiscard]] std::uint64_t id() const { return options_.id; }
  [[nodiscard]] const cluster::TopicPointer& topic() const { return options_.topic; }
  [[nodiscard]] std::size_t partitions() const { return readers_.size(); }

 private:
  struct Reader {
    Reader(service::ShardService& service, const Start& start)
        : partition{start.partition}, fetcher{service}, next{start.offset}, high_watermark{start.high_watermark}, until{start.until},
          reset{start.reset} {}
    PartitionIndex partition;
    service::Fetcher fetcher;
    Offset next;
    Offset high_watermark;                 // as last heard
    std::optional<Offset> until;
    bool reset;                            // to be told with the next frame
    bool paused = false;
    bool finished = false;
    std::uint64_t moves = 0;               // seeks of this partition, to notice one during a fetch
    std::optional<Offset> told_end{};      // high watermark of the last frame that said reached_end
  };
  static Task<void> read(std::shared_ptr<Subscription> self, Reader* reader);
  [[nodiscard]] bool may_send() const { return options_.credit.may_send() && !wire_.full() && !wire_.waits_for_memory(); }
  void deliver(Reader& reader, const service::FetchReply& reply);
  void send(Reader& reader, Offset first, std::uint64_t records, std::span<const Slice> batches, bool reached_end);
  /// True: moved by the policy, go on. False: the stream has ended with an error.
  bool handle(Reader& reader, const service::Refusal& refusal);
  void end_with(Reader& reader, service::Refusal refusal);
  [[nodiscard]] Reader* find(PartitionIndex partition);

  Wire& wire_;
  service::ShardService& service_;
  io::Runtime& runtime_;
  flow::MemoryPool& catching_up_;
  TaskScope& scope_;
  Options options_;
  Notifier wake_;
  std::vector<std::unique_ptr<Reader>> readers_;
  std::uint64_t seek_count_ = 0;
  bool seeking_ = false;
  std::vector<Slice> batches_;  // scratch of deliver
  bool stopped_ = false;
};

}  // namespace tailrace::broker::native
