#pragma once
/// Between protocol messages and the SDK's values.
#include "src/completion.h"
#include "src/wire.h"
#include "tailrace/admin.h"

namespace tailrace::inline v1::detail {

[[nodiscard]] TopicSummary to_summary(const proto::TopicInfo& topic);
[[nodiscard]] Result<std::vector<std::int32_t>> partitions_of(const proto::MetadataReply& reply, const std::string& topic);
/// `at` is earliest, latest or a time.
[[nodiscard]] proto::ListOffsetsRequest offsets_request(const std::string& topic, const From& at, std::span<const std::int32_t> partitions);
/// The first partition's error stands for all.
[[nodiscard]] Result<std::vector<ListedOffset>> to_listed(const proto::ListOffsetsReply& reply);

/// Runs `function` with the result where it arrives, not on the executor: for our own code only. The handle's own member for
/// this is not public.
template <class T, class F>
void when_done(const Task<T>& task, F function) {
  DirectAccess::when_ready(task, std::move(function));
}
template <class T>
void pass_on(const Task<T>& task, std::shared_ptr<Single<T>> to) {
  when_done(task, [to](Result<T> result) { to->complete(std::move(result)); });
}

}  // namespace tailrace::inline v1::detail
