#pragma once
/// Every bound of the broker, in one place. Relations between bounds are asserted here with the failure they prevent.
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace tailrace::broker::limits {

inline constexpr std::size_t kKiB = 1024;
inline constexpr std::size_t kMiB = 1024 * kKiB;

// Names and topics.
inline constexpr std::size_t kTopicNameMax = 249;  // Kafka's bound, so that both protocols can name every topic
inline constexpr std::size_t kInternalTopicNameMax = kTopicNameMax + 16;  // "__snapshots." and a topic's name
inline constexpr std::int32_t kPartitionsPerTopicMax = 10'000;
inline constexpr std::size_t kTopicsMax = 100'000;
inline constexpr std::int64_t kPartitionsMax = 200'000;  // of a node; an idle one costs under 4 KiB of memory

// Records and batches.
inline constexpr std::size_t kMessageBytesDefault = 1 * kMiB;  // message_bytes_max of a topic, as one encoded batch
inline constexpr std::size_t kMessageBytesCeiling = 32 * kMiB;
inline constexpr std::int32_t kBatchRecordsMax = 1'000'000;
inline constexpr std::size_t kInflatedBytesMax = 64 * kMiB;  // what one compressed batch may become
inline constexpr std::size_t kHeadersPerRecordMax = 1'000;

// Native protocol frames.
inline constexpr std::size_t kControlBytesMax = 256 * kKiB;  // the protobuf part; parsed memory was seen to grow 32x
inline constexpr std::size_t kFrameBytesBeforeHelloMax = 64 * kKiB;
inline constexpr std::size_t kFrameBytesMax = kMessageBytesCeiling + kControlBytesMax + 64;
inline constexpr std::chrono::seconds kHelloDeadline{10};
inline constexpr std::chrono::seconds kFrameDeadline{30};
inline constexpr std::size_t kStreamsPerConnectionMax = 4'096;
inline constexpr std::size_t kSubscribedPartitionsPerConnectionMax = 10'000;  // a whole topic of the largest kind
inline constexpr std::size_t kCallsInFlightPerConnectionMax = 4'096;

// Producers.
inline constexpr int kProducerWindowBatches = 5;  // duplicates are answered from the last five batches (R12)
inline constexpr std::size_t kProducersPerPartitionMax = 100'000;
inline constexpr std::int64_t kProducerIdBlock = 1'000;

// Services, for each shard.
inline constexpr std::size_t kShardMemoryDefault = 128 * kMiB;  // requests, replies and control messages held for clients
inline constexpr std::size_t kServiceCallsMax = 65'536;         // calls of front ends under way; fetches are bounded by what their subscriptions cost
inline constexpr std::size_t kMemoryWaitersMax = 8'192;
inline constexpr std::size_t kAdminCallsMax = 256;        // of a node: topics are changed one at a time
inline constexpr std::size_t kPartitionsOpeningMax = 16;  // created or opened at once by one admin call
inline constexpr std::size_t kFetchBytesMax = 8 * kMiB;   // one answer, unless its first batch is larger
inline constexpr std::size_t kFetchRecordsMax = 1'000'000;
inline constexpr std::chrono::seconds kAppendWaitMax{10};     // for room in the WAL's queue; then no_credit
inline constexpr std::size_t kProducerWindowMax = 16 * kMiB;  // unanswered bytes of one publish stream, without pressure
inline constexpr std::size_t kProducerWindowMin = 64 * kKiB;

// WAL.
inline constexpr std::size_t kWalBlock = 4 * kKiB;
inline constexpr std::size_t kWalFileBytesMin = 64 * kKiB;
inline constexpr std::size_t kWalFileBytesMax = 256 * kMiB;
inline constexpr int kWalFilesMin = 2;
inline constexpr int kWalFilesMax = 16;
inline constexpr int kWalSlotsMax = kWalFilesMax + 1;  // one more is kept back for a start on a full disk
inline constexpr int kWalCommitsInFlightMax = 16;
inline constexpr std::chrono::milliseconds kWalIdleMark{5};  // an idle log writes a durable-up-to mark within this

// Segments.
inline constexpr std::size_t kSegmentBytesMin = 4 * kKiB;
inline constexpr std::size_t kSegmentBytesDefault = 256 * kMiB;
inline constexpr std::size_t kSegmentBytesCeiling = 1024 * kMiB;
inline constexpr std::size_t kIndexInterval = 16 * kKiB;  // bytes of log between two index entries

// Shards and loops.
inline constexpr std::size_t kShardCallsInFlightMax = 1'024;  // from one shard to another; further callers wait
inline constexpr std::size_t kOutsidePostsMax = 4'096;        // functions other threads may queue for a loop
inline constexpr std::size_t kStreamTurnBytes = 1 * kMiB;     // what one connection may send before others have a turn
inline constexpr std::size_t kLoopTurnMax = 256;              // pieces of work between two looks at sockets and timers

// File backends, for each shard.
inline constexpr unsigned kRingEntries = 256;                // the completion queue holds four times as many
inline constexpr std::size_t kRingSubmitBytes = 256 * kKiB;  // so much prepared goes to the kernel before the turn ends
inline constexpr std::size_t kRingPinnedMax = 8;             // pieces of memory registered with the ring
inline constexpr unsigned kRingWorkersMax = 2;               // kernel workers (io-wq) for what cannot be issued inline
inline constexpr std::size_t kFileThreads = 8;               // thread-pool backend: reads, writes and syncs at once

static_assert(kFrameBytesMax > kMessageBytesCeiling + kControlBytesMax, "a largest batch must fit a frame");
static_assert(kSegmentBytesCeiling < (std::size_t{1} << 32), "index positions are 32 bits");
static_assert(kMessageBytesCeiling * 2 < kWalFileBytesMax, "a largest batch must fit a largest WAL file");

// Event streams; docs/event-store.md, "Bounds".
inline constexpr std::size_t kStreamNameBytesMax = 255;
inline constexpr std::size_t kEventIdBytesMax = 64;
inline constexpr std::size_t kEventTypeBytesMax = 255;
inline constexpr std::int32_t kEventsPerAppendMax = 1'000;
inline constexpr std::size_t kLedgerEntriesMax = 64 * 1'024;  // of a partition: appended, and not in its index yet
inline constexpr std::size_t kLedgerBytesMax = 8 * kMiB;      // of their streams' names
inline constexpr std::size_t kWarmHeadsBytes = 16 * kMiB;      // of a shard: heads that need no look-up
inline constexpr std::size_t kIndexBatchMax = 4 * 1'024;       // batches that go into the index in one step
inline constexpr std::size_t kStreamReadEventsMax = 1'000;
inline constexpr std::size_t kStreamReadBytesMax = 1 * kMiB;
inline constexpr std::size_t kStreamListMax = 1'000;
inline constexpr std::size_t kColdHeadWaitersMax = 64;        // appends that wait for one head to be looked up

// Consumer groups; docs/groups.md, "Bounds".
inline constexpr std::size_t kGroupMembersMax = 2'000;
inline constexpr std::size_t kGroupTopicsMax = 100;         // of one member
inline constexpr std::size_t kGroupPartitionsMax = 50'000;  // of all topics that a group reads
inline constexpr std::size_t kMemberIdBytesMax = 255;       // and of an instance's name
inline constexpr std::size_t kGroupNameBytesMax = 255;
inline constexpr std::size_t kGroupsMax = 10'000;             // of one partition of `__offsets`
inline constexpr std::size_t kOffsetMetadataBytesMax = 4'096;  // beside one stored offset
inline constexpr std::size_t kOffsetsPerCommitMax = 10'000;
inline constexpr std::size_t kOffsetsBytesMax = 32 * kMiB;     // of stored offsets, one coordinator: some 300,000
inline constexpr std::int32_t kOffsetsPartitions = 16;         // of `__offsets`; fixed, a group's place is a hash of its name
inline constexpr std::chrono::milliseconds kSessionTimeoutMin{1'000};
inline constexpr std::chrono::milliseconds kSessionTimeoutMax{1'800'000};

// Queue groups; docs/queues.md, "Bounds".
inline constexpr std::size_t kDeadLettersPendingMax = 5;       // moves under way: what a producer's window remembers (ProducerState)
inline constexpr std::uint32_t kQueueAttemptsMax = 1'000'000;
inline constexpr std::size_t kQueueLiveMax = 10'000;            // of a partition and group; its snapshot then has some 350 KiB
inline constexpr std::size_t kQueueCreditMax = 1'000;           // records of one lease or settle
inline constexpr std::size_t kQueueGroupsMax = 100;             // on one topic
inline constexpr std::size_t kQueueWhyBytesMax = 1'024;         // of a handler's reason
inline constexpr std::int64_t kQueueDelayMsMax = 604'800'000;  // a week: of a retry's delay and a lease's extension

}  // namespace tailrace::broker::limits
